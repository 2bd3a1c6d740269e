"""Where tables are printed: as wide as the terminal; whole where there is none, in a file or pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WHOLE = 10_000  # characters; a table takes what it needs
_LEAST = 20  # characters that the last column keeps beside the others


def console() -> Console:
    """Standard output."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=_WHOLE, highlight=False)


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    out: Console | None = None,
) -> None:
    """Print rows under their columns; the last column wraps between words where it must.

    A terminal too narrow for the others gets a paragraph a row, with the columns' names in it: a table whose cells
    are cut or folded cannot be read.

    Args:
        columns: names; the first column says what a row is about.
        rows: cells as they shall stand there, nothing in them read as markup.
        right: columns of numbers.
        out: standard output where not given.
    """
    out = out or console()
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    if sum(widths[:-1]) + 2 * (len(widths) - 1) + min(widths[-1], _LEAST) > out.width:
        for line in _paragraphs(columns, rows, out.width):
            out.print(line, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for number, column in enumerate(columns, 1):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=number < len(columns), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with out.capture() as printed:
        out.print(table)
    for text in printed.get().splitlines():
        print(text.rstrip(), file=out.file)  # a long reason in one row would fill all others with spaces


def _paragraphs(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[Text]:
    indent = min(max(cell_len(row[0]) for row in rows) + 2, width // 3)
    for row in rows:
        lines = [""]
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell in ("", "-"):
                continue
            words = f"{column} {cell}"
            if lines[-1] and indent + cell_len(lines[-1]) + 3 + cell_len(words) <= width:
                lines[-1] += f"   {words}"
            else:
                lines += textwrap.wrap(words, max(width - indent, _LEAST))
        lines = [line for line in lines if line] or [""]
        head = Text(f"{row[0]:<{indent}}" if lines[0] else row[0], style="bold")
        yield head.append(lines[0], style="not bold")
        yield from (Text(" " * indent + line) for line in lines[1:])

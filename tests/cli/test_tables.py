"""Tables on narrow terminals: no word is cut or folded; what cells hold is shown as it is."""

from __future__ import annotations

import io

from rich.console import Console

from barcast.cli._console import show_table

COLUMNS = ("symbol", "champion", "kind", "since", "by", "reason")
REASON = "better in [both] halves of the [/year], and :smile: surely no worse than anything before"
ROWS = [("BTC/USDT", "12", "network", "2026-11-27", "ana", REASON), ("_linear", "-", "", "", "", "-")]


def printed(width: int, columns: tuple[str, ...] = COLUMNS, rows: list[tuple[str, ...]] = ROWS) -> list[str]:
    out = io.StringIO()
    show_table(columns, rows, out=Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= width
    return lines


def test_a_wide_terminal_has_a_line_a_row_with_cells_as_they_are() -> None:
    head, first, second = printed(200)
    assert head.split() == list(COLUMNS)
    assert first.split(maxsplit=5) == [*ROWS[0][:5], REASON]
    assert second.split() == ["_linear", "-", "-"]


def test_the_last_column_wraps_between_words_and_the_others_stay_whole() -> None:
    head, *lines = printed(80)
    assert head.split() == list(COLUMNS)
    assert lines[0].split()[:5] == list(ROWS[0][:5])
    at = head.index("reason")
    assert " ".join(line[at:] for line in lines[:-1]).split() == REASON.split()


def test_a_terminal_too_narrow_for_the_columns_gets_a_paragraph_a_row() -> None:
    lines = printed(56)
    assert lines[0] == "BTC/USDT  champion 12   kind network   since 2026-11-27"
    assert lines[1].strip() == "by ana"
    assert " ".join(lines[2:-1]).split() == f"reason {REASON}".split()
    assert lines[-1] == "_linear"


def test_a_list_of_names_and_values_has_no_head() -> None:
    assert printed(80, ("", ""), [("kind", "linear"), ("version", "1")]) == ["kind     linear", "version  1"]

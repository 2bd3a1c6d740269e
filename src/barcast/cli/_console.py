"""Where tables are printed: as wide as the terminal; whole where there is none, in a file or pipe."""

from __future__ import annotations

from rich.console import Console

_WHOLE = 10_000  # characters; a table takes what it needs


def console() -> Console:
    """Standard output."""
    found = Console()
    return found if found.is_terminal else Console(width=_WHOLE)

"""What a source of bars is. A new source is one class with two methods; see docs/guides/add-a-source.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

import polars as pl

from barcast.errors import DataError, did_you_mean


@runtime_checkable
class Source(Protocol):
    """Closed bars of many symbols, asked for by time."""

    def symbols(self) -> list[str]:
        """The symbols this source has, sorted."""

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars (`barcast.bars.BARS`) of `symbols` (None: all) that close in start < t <= end.

        Only closed bars; gaps are left as they are; `created_timestamp` says when a bar was known.

        Raises:
            DataError: unknown symbol, or data that is not bars.
        """


def selected(known: Sequence[str], asked: Sequence[str] | None) -> list[str]:
    """`asked` if the source knows all of them, all of `known` for None.

    Raises:
        DataError: a symbol is unknown; the nearest known one is suggested.
    """
    if asked is None:
        return sorted(known)
    for symbol in asked:
        if symbol not in known:
            raise DataError(
                f"The source has no symbol {symbol!r}.",
                hint=did_you_mean(symbol, known) or f"It has: {', '.join(sorted(known)[:10])}.",
            )
    return sorted(set(asked))


def between(bars: pl.DataFrame, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    """The bars that close in start < t <= end."""
    if start is not None:
        bars = bars.filter(pl.col("event_timestamp") > start)
    if end is not None:
        bars = bars.filter(pl.col("event_timestamp") <= end)
    return bars

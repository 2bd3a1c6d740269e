"""The calendars of several symbols together: each symbol is held against its own.

A market's hours are a fact of the symbol (a stock's exchange closes, a coin never does), so whoever asks when a bar
should close passes a symbol: `calendars(symbol)`. A `Calendar` is itself such a function, for a universe of one market.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from barcast.bars.calendar import GAPS, Calendar
from barcast.bars.schema import TIME
from barcast.bars.universe import open_universe

if TYPE_CHECKING:
    from barcast.config import Config

Calendars = Callable[[str], Calendar]


def calendars_of(config: Config) -> Calendars:
    """The calendar of each symbol of a workspace: its universe file's, else the configuration's.

    Raises:
        ConfigError: the universe file cannot be used.
    """
    return open_universe(config.universe, source_kind=config.source.kind).calendar_of


def distinct(calendars: Calendars, symbols: Iterable[str]) -> list[Calendar]:
    """The different calendars of some symbols, by name."""
    return [Calendar.of(name) for name in sorted({calendars(symbol).name for symbol in symbols})]


def close_times(
    calendars: Calendars, symbols: Iterable[str], start: datetime, end: datetime, interval: str
) -> pl.Series:
    """Times t with start < t <= end at which a bar of any of the symbols should close, ascending."""
    parts = [c.close_times(start, end, interval) for c in distinct(calendars, symbols)]
    if not parts:
        return pl.Series("event_timestamp", [], dtype=TIME)
    return parts[0] if len(parts) == 1 else pl.concat(parts).unique().sort()


def next_close(calendars: Calendars, symbols: Iterable[str], after: datetime, interval: str) -> datetime:
    """The first moment later than `after` at which a bar of any of the symbols should close."""
    return min(c.next_close(after, interval) for c in distinct(calendars, symbols))


def bars_per_year(calendars: Calendars, symbols: Iterable[str], interval: str) -> float:
    """Different closes in an average year of all the symbols together: how often their portfolio is valued."""
    found = distinct(calendars, symbols)
    if len(found) == 1:
        return found[0].bars_per_year(interval)
    first, years = datetime(2010, 1, 1, tzinfo=UTC), 10
    closes = close_times(calendars, symbols, first, first.replace(year=2010 + years), interval)
    return len(closes) / years


def expected_closes(bars: pl.DataFrame, interval: str, calendars: Calendars) -> dict[str, pl.Series]:
    """For each symbol the closes that its calendar expects over the span of all bars; one series a calendar."""
    symbols = bars["symbol"].unique().to_list()
    first, last = bars["event_timestamp"].min(), bars["event_timestamp"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return {}
    of = {c.name: c.close_times(first, last, interval) for c in distinct(calendars, symbols)}
    return {symbol: of[calendars(symbol).name] for symbol in symbols}


def by_calendar(
    symbols: pl.Series, calendars: Calendars, ask: Callable[[Calendar, pl.Series], pl.Series]
) -> pl.Series:
    """One time a row, asked of the calendar of the row's symbol.

    Args:
        ask: gives the times of some rows, from their calendar and which rows they are (a mask).
    """
    out = pl.Series("t", [None] * len(symbols), dtype=TIME)
    names = symbols.unique()
    for calendar in distinct(calendars, names):
        mine = symbols.is_in([s for s in names if calendars(s).name == calendar.name])
        out = out.scatter(mine.arg_true(), ask(calendar, mine))
    return out


def bar_opens(bars: pl.DataFrame, interval: str, calendars: Calendars) -> pl.Series:
    """When each intraday bar opened, by its symbol's calendar (`Calendar.bar_opens`)."""
    closes = bars["event_timestamp"]
    return by_calendar(
        bars["symbol"], calendars, lambda calendar, mine: calendar.bar_opens(closes.filter(mine), interval)
    )


def gaps(bars: pl.DataFrame, interval: str, calendars: Calendars) -> pl.DataFrame:
    """`Calendar.gaps` of each symbol by its own calendar, sorted by symbol and time."""
    names = {symbol: calendars(symbol).name for symbol in bars["symbol"].unique()}
    parts = [
        Calendar.of(name).gaps(
            bars.filter(pl.col("symbol").is_in([s for s, n in names.items() if n == name])), interval
        )
        for name in sorted(set(names.values()))
    ]
    return pl.concat([GAPS.to_frame(), *parts]).sort("symbol", "after_timestamp")

"""The live feed: a source asked again and again, closed bars out, all bars of one close together.

It back-fills from the last known bar, drops what it has given already, gives late and corrected bars as such, waits
for late symbols until a deadline, reconnects after failures and reports a clock that is off. The same feed runs over
an exchange, a broker or a replay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Literal

import polars as pl

from barcast import clock, intervals, logs
from barcast.bars.calendars import Calendars, close_times, distinct, next_close
from barcast.bars.schema import TIME, VALUES, empty
from barcast.bars.sources.base import Source
from barcast.config.bars import FeedConfig
from barcast.errors import BarcastError, ConfigError, DataError

log = logs.get("bars.feed")
_COMPARE_EVERY = timedelta(hours=1)
Kind = Literal["live", "backfill", "late", "correction"]


@dataclass(frozen=True)
class Batch:
    """Bars of one close.

    Attributes:
        event_timestamp: their close.
        bars: `BARS`, one row a symbol.
        kind: "live"; "backfill" (closed before the feed looked); "late" (its close was already given without it);
            "correction" (given before with other values).
        missing: symbols of the feed without a bar at this close, when the feed stopped waiting.
    """

    event_timestamp: datetime
    bars: pl.DataFrame
    kind: Kind
    missing: tuple[str, ...] = ()


@dataclass
class Health:
    """What the feed has met so far.

    Attributes:
        failures: since the last answer.
        reconnects: answers after failures.
        duplicates, corrections, late: bars.
        future: bars that closed after this machine's clock, held back until they are due.
        clock_skew_seconds: source's clock minus ours when last compared; None where the source has no clock.
        last_error: text of the last failure.
    """

    failures: int = 0
    reconnects: int = 0
    duplicates: int = 0
    corrections: int = 0
    late: int = 0
    future: int = 0
    clock_skew_seconds: float | None = None
    last_error: str = ""
    notices: list[str] = field(default_factory=list)


class Feed:
    """Closed bars of `symbols`, in order of their close.

    Args:
        source: where bars come from; with a `server_time()` its clock is compared.
        symbols: which.
        interval, calendar: when bars close: a `Calendar`, or a function that gives each symbol's.
        after: per symbol the last bar that is known already; symbols without one begin with what closes next.
        config: section `source.feed`.
        now, sleep: the clock; a replay brings its own.

    Raises:
        ConfigError: no symbols.
    """

    def __init__(
        self,
        source: Source,
        symbols: Sequence[str],
        interval: str,
        calendar: Calendars,
        *,
        after: Mapping[str, datetime] | None = None,
        config: FeedConfig | None = None,
        now: Callable[[], datetime] = clock.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.symbols = tuple(sorted(symbols))
        if not self.symbols:
            raise ConfigError(
                "The feed has no symbol to follow.",
                hint="Name symbols that the source has (`source.symbols`).",
            )
        self.health = Health()
        self._source, self._calendar, self._interval = source, calendar, interval
        self._markets = {
            market: [s for s in self.symbols if calendar(s).name == market.name]
            for market in distinct(calendar, self.symbols)
        }
        self._step = intervals.parse(interval)
        self._config = config or FeedConfig()
        self._now, self._sleep = now, sleep
        begin = now()
        self._began = begin
        self._last = {symbol: (after or {}).get(symbol, begin) for symbol in self.symbols}
        self._start = dict(self._last)  # bars up to here were known before the feed began
        self._given: dict[tuple[str, datetime], tuple[float, ...]] = {}
        self._closed = min(self._last.values(), default=begin)  # closes up to here are done with
        self._held = empty()
        self._absent: set[tuple[str, datetime]] = set()  # given up at the deadline, still looked for
        self._asked = self._starts()
        self._compared: datetime | None = None

    def poll(self) -> list[Batch]:
        """Ask once; the batches that are complete or whose deadline has passed, in order.

        Raises:
            BarcastError: the source failed.
        """
        now = self._now()
        self._compare_clocks(now)
        fresh, corrected = self._sift(self._ask(), now)
        batches = [self._batch(t, rows, "correction") for t, rows in _by_close(corrected)]
        self.health.corrections += corrected.height
        self._held = pl.concat([self._held, fresh]).sort("event_timestamp", "symbol")
        ready = []
        for moment, rows in _by_close(self._held):
            late = moment <= self._closed
            came, trading = set(rows["symbol"]), self._trading(moment)
            missing = tuple(s for s in trading if s not in came and self._expects(s, moment))
            if not late and missing and now < moment + timedelta(seconds=self._config.deadline_seconds):
                break  # later closes wait too: order matters more than speed
            kind: Kind = "late" if late else "backfill" if moment <= self._began else "live"
            self.health.late += rows.height if late else 0
            ready.append(self._batch(moment, rows, kind, () if late else missing))
            self._note_absent(moment, missing)
            self._closed = max(self._closed, moment)
        done = {b.event_timestamp for b in ready}
        self._held = self._held.filter(~pl.col("event_timestamp").is_in(list(done)))
        for batch in [*batches, *ready]:
            self._remember(batch.bars)
        return batches + ready

    def run(self, stop: Event | None = None) -> Iterator[Batch]:
        """Batches for ever, or until `stop` is set or the source says that it has ended (`ended()`).

        Raises:
            DataError: `max_failures` failures in a row.
            ConfigError: a setting of the source is wrong.
        """
        stop = stop or Event()
        while not stop.is_set():
            try:
                batches = self.poll()
            except ConfigError:
                raise  # no waiting mends a wrong setting
            except (BarcastError, OSError) as error:
                self._failed(error)
                continue
            if self.health.failures:
                self._notice(f"the source answers again after {self.health.failures} failure(s)")
                self.health.reconnects += 1
                self.health.failures = 0
            yield from batches
            ended = getattr(self._source, "ended", None)
            if not batches and not self._held.height and ended is not None and ended():
                return
            self._sleep(self._pause(self._now()))

    def _ask(self) -> pl.DataFrame:
        """What closed since the last bar of each symbol, a few older and all absent ones included."""
        groups: dict[datetime, list[str]] = {}
        self._asked = self._starts()
        for symbol, start in self._asked.items():
            groups.setdefault(start, []).append(symbol)
        parts = [self._source.fetch(symbols, start, None) for start, symbols in groups.items()]
        return pl.concat([empty(), *parts])

    def _starts(self) -> dict[str, datetime]:
        """Per symbol the time after which bars are asked for."""
        back = self._config.overlap_bars * self._step
        starts = {symbol: last - back for symbol, last in self._last.items()}
        for symbol, moment in self._absent:
            starts[symbol] = min(starts[symbol], moment - self._step)
        return starts

    def _sift(self, bars: pl.DataFrame, now: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(new bars, corrected bars) among what came, stamped with their arrival."""
        future = bars.filter(pl.col("event_timestamp") > now)
        if future.height:
            ahead = max((t - now).total_seconds() for t in future["event_timestamp"])
            self.health.future += future.height
            text = f"{future.height} bar(s) close up to {ahead:.1f} s in the future and are held back"
            self._notice(f"{text}; is this machine's clock right?")
        bars = bars.filter(pl.col("event_timestamp") <= now).unique(
            ["symbol", "event_timestamp"], keep="last"
        )
        held = set(self._held.select("symbol", "event_timestamp").iter_rows())
        new, corrected = [], []
        for row in bars.sort("event_timestamp", "symbol").iter_rows(named=True):
            key = (row["symbol"], row["event_timestamp"])
            before = self._given.get(key)
            known = key in held or (before is None and self._is_old(*key))
            if known or (before is not None and before == _values(row)):
                self.health.duplicates += 1
            elif before is not None:
                corrected.append(row)
            else:
                new.append(row)
        stamp = pl.max_horizontal("created_timestamp", pl.lit(now, dtype=TIME))
        live = pl.col("event_timestamp") > self._began
        arrival = pl.when(live).then(stamp).otherwise("created_timestamp")
        schema = empty().schema
        fresh = pl.DataFrame(new, schema=schema).with_columns(created_timestamp=arrival)
        return fresh, pl.DataFrame(corrected, schema=schema).with_columns(created_timestamp=stamp)

    def _is_old(self, symbol: str, moment: datetime) -> bool:
        """Whether the bar was known before the feed began, or lies before what was asked for."""
        return moment <= max(self._start[symbol], self._asked[symbol])

    def _expects(self, symbol: str, moment: datetime) -> bool:
        """Whether `symbol` may still have a bar at `moment` that was not given yet."""
        return (symbol, moment) not in self._given and moment > self._start[symbol]

    def _trading(self, moment: datetime) -> tuple[str, ...]:
        """The symbols of which a bar may close at `moment`: of several markets, those that are open."""
        if len(self._markets) == 1:
            return self.symbols
        before = moment - self._step / 2
        found = [
            symbols
            for market, symbols in self._markets.items()
            if moment in market.close_times(before, moment, self._interval)
        ]
        return tuple(sorted(symbol for symbols in found for symbol in symbols))

    def _note_absent(self, moment: datetime, missing: Sequence[str]) -> None:
        """Remember whose bars are absent at this close, and at closes before it that brought nothing at all."""
        self._absent |= {(symbol, moment) for symbol in missing}
        for market, symbols in self._markets.items():
            skipped = market.close_times(self._closed, moment, self._interval)
            self._absent |= {(s, t) for t in skipped if t != moment for s in symbols if self._expects(s, t)}
        oldest = moment - self._config.late_bars * self._step
        self._absent = {(s, t) for s, t in self._absent if t >= oldest}

    def _batch(
        self, moment: datetime, rows: pl.DataFrame, kind: Kind, missing: tuple[str, ...] = ()
    ) -> Batch:
        if missing:
            log.info("symbols missing at the deadline", close=str(moment), missing=missing)
        return Batch(moment, rows.sort("symbol"), kind, missing)

    def _remember(self, rows: pl.DataFrame) -> None:
        for row in rows.iter_rows(named=True):
            symbol, moment = row["symbol"], row["event_timestamp"]
            self._given[symbol, moment] = _values(row)
            self._absent.discard((symbol, moment))
            self._last[symbol] = max(self._last[symbol], moment)
        floor = min(self._starts().values())  # nothing older is asked for again
        self._given = {key: values for key, values in self._given.items() if key[1] > floor}

    def _pause(self, now: datetime) -> float:
        """Seconds until it is worth asking again."""
        if self._held.height:
            return self._config.poll_seconds
        newest = close_times(self._calendar, self.symbols, self._closed, now, self._interval)
        if (
            newest.len()
        ):  # a close has passed and no bar of it came; ask less often once the deadline has passed
            overdue = (now - newest[-1]).total_seconds() > self._config.deadline_seconds
            patient = min(self._step.total_seconds() / 10, 60.0)
            return max(self._config.poll_seconds, patient) if overdue else self._config.poll_seconds
        close = next_close(self._calendar, self.symbols, now, self._interval)
        return max((close - now).total_seconds() + self._config.delay_seconds, 0.001)

    def _failed(self, error: Exception) -> None:
        self.health.failures += 1
        self.health.last_error = str(error)
        log.warning("feed: the source failed", failures=self.health.failures, error=str(error))
        limit = self._config.max_failures
        if limit and self.health.failures >= limit:
            raise DataError(
                f"The source failed {self.health.failures} times in a row: {error}",
                hint="Check the connection; the feed back-fills what it missed when it is started again.",
            ) from error
        self._sleep(min(2.0 ** min(self.health.failures - 1, 10), self._config.max_backoff_seconds))

    def _compare_clocks(self, now: datetime) -> None:
        server_time = getattr(self._source, "server_time", None)
        recent = self._compared is not None and now - self._compared < _COMPARE_EVERY
        if server_time is None or (recent and self.health.failures == 0):
            return
        self._compared = now
        theirs: Any = server_time()
        if theirs is None:
            return
        skew = (theirs - now).total_seconds()
        self.health.clock_skew_seconds = skew
        if abs(skew) > self._config.max_clock_skew_seconds:
            self._notice(
                f"this clock is {abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the source's"
            )

    def _notice(self, text: str) -> None:
        log.warning(f"feed: {text}")
        if text not in self.health.notices[-1:]:
            self.health.notices.append(text)


def _by_close(bars: pl.DataFrame) -> Iterator[tuple[datetime, pl.DataFrame]]:
    for (moment,), rows in bars.sort("event_timestamp").group_by("event_timestamp", maintain_order=True):
        assert isinstance(moment, datetime)
        yield moment, rows


def _values(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(row[name] for name in VALUES)

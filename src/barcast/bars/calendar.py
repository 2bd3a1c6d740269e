"""When a market is open. Daily closes, expected bar closes and gaps all come from here.

Sessions come from exchange_calendars (daylight saving and half days included); "24/7" markets need none:
their bars close at multiples of the interval since 1970-01-01 UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache

import polars as pl

from barcast import intervals
from barcast.bars.schema import TIME
from barcast.errors import ConfigError, DataError, did_you_mean

ALWAYS_OPEN = "24/7"
_FIRST, _LAST = "1990-01-01", "2040-12-31"
_DAY = 86400
GAPS = pl.Schema(
    {"symbol": pl.String(), "after_timestamp": TIME, "before_timestamp": TIME, "missing_bars": pl.Int64()}
)


class Calendar:
    """Sessions of one market. Get one by `Calendar.of(name)`; it is cached.

    Attributes:
        name: "24/7" or an exchange_calendars name such as "XNYS".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, symbol: str) -> Calendar:
        """The calendar of a symbol (see `bars.calendars`): this one, whichever it is."""
        return self

    @staticmethod
    @lru_cache(maxsize=64)
    def of(name: str) -> Calendar:
        """The calendar called `name`.

        Raises:
            ConfigError: no such calendar.
        """
        if name != ALWAYS_OPEN:
            import exchange_calendars

            known = exchange_calendars.get_calendar_names(include_aliases=True)
            if name not in known:
                raise ConfigError(
                    f"There is no calendar {name!r}.",
                    hint=did_you_mean(name, [ALWAYS_OPEN, *known])
                    or "Use 24/7, XNYS or another exchange_calendars name.",
                )
        return Calendar(name)

    @property
    def always_open(self) -> bool:
        return self.name == ALWAYS_OPEN

    @cached_property
    def _schedule(self) -> pl.DataFrame:
        """session, open, close, break_start, break_end (null where there is no break)."""
        import exchange_calendars
        import pandas

        usual = exchange_calendars.get_calendar(self.name)
        first, last = pandas.Timestamp(_FIRST), pandas.Timestamp(_LAST)
        low, high = usual.bound_min(), usual.bound_max()  # some calendars are known for a shorter time
        found = exchange_calendars.get_calendar(
            self.name,
            start=first if low is None else max(first, low),
            end=last if high is None else min(last, high),
        )
        table = found.schedule
        columns = {name: _utc(table[name]) for name in ("open", "close", "break_start", "break_end")}
        return pl.DataFrame({"session": pl.Series(table.index.to_numpy()).cast(pl.Date), **columns})

    @cached_property
    def _sessions(self) -> pl.DataFrame:
        return self._schedule.select("session", "open", "close")

    @cached_property
    def _segments(self) -> pl.DataFrame:
        """Stretches of uninterrupted trading: session, open, close; two where there is a lunch break."""
        schedule = self._schedule
        broken = schedule.filter(pl.col("break_start").is_not_null())
        parts = [
            schedule.filter(pl.col("break_start").is_null()).select("session", "open", "close"),
            broken.select("session", "open", close="break_start"),
            broken.select("session", open="break_end", close="close"),
        ]
        return pl.concat(parts).sort("open")

    @property
    def span(self) -> tuple[date, date]:
        """First and last day whose sessions are known."""
        if self.always_open:
            return date.fromisoformat(_FIRST), date.fromisoformat(_LAST)
        return _date(self._sessions["session"][0]), _date(self._sessions["session"][-1])

    def sessions(self, start: date, end: date) -> pl.DataFrame:
        """Sessions from `start` to `end` (both included): session (Date), open, close (UTC instants).

        Of a market that never closes each UTC day is a session, closing at the next midnight.
        """
        if self.always_open:
            days = pl.date_range(start, end, eager=True)
            open_ = days.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
            return pl.DataFrame({"session": days, "open": open_, "close": open_ + timedelta(days=1)})
        self._check_span(start, end)
        return self._sessions.filter(pl.col("session").is_between(start, end))

    def breaks(self, start: date, end: date) -> pl.DataFrame:
        """Sessions that pause at noon, as `sessions`: session, break_start, break_end."""
        if self.always_open:
            return pl.DataFrame(schema={"session": pl.Date, "break_start": TIME, "break_end": TIME})
        broken = self._schedule.filter(pl.col("break_start").is_not_null())
        return broken.filter(pl.col("session").is_between(start, end)).drop("open", "close")

    def _check_span(self, start: date, end: date) -> None:
        first, last = self.span
        if start < first - timedelta(days=7) or end > last + timedelta(days=7):
            raise DataError(
                f"Calendar {self.name} is known from {first} to {last}; {start} to {end} was asked for.",
                hint="Check the dates and the time unit of the bars (seconds, milliseconds?).",
            )

    def session_closes(self, dates: pl.Series) -> pl.Series:
        """For each date the close of its session (UTC), null where the market was closed that day."""
        if dates.len() == 0:
            return pl.Series("close", [], dtype=TIME)
        days = dates.cast(pl.Date)
        table = self.sessions(_date(days.min()), _date(days.max()))
        return pl.DataFrame({"session": days}).join(table, on="session", how="left", maintain_order="left")[
            "close"
        ]

    def close_times(self, start: datetime, end: datetime, interval: str) -> pl.Series:
        """Expected bar closes t with start < t <= end, ascending.

        Intraday bars are counted from the session's open; the last one of a session (or before a
        lunch break) ends there.
        Intervals of several days count sessions from the calendar's first.
        """
        step = intervals.seconds(interval)
        if end <= start:
            return pl.Series("event_timestamp", [], dtype=TIME)
        if self.always_open:
            first = int(start.timestamp()) // step * step + step
            last = int(end.timestamp()) // step * step
            closes = pl.Series(range(first, last + 1, step), dtype=pl.Int64) * 1_000_000
            return _between(closes.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), start, end)
        span = timedelta(days=1)
        first_day, last_day = (start - span).date(), (end + span).date()
        if step % _DAY == 0:
            every = step // _DAY
            table = self.sessions(first_day, last_day)
            if every > 1:
                table = self._sessions.gather_every(every, offset=every - 1)
            return _between(table["close"], start, end)
        self._check_span(first_day, last_day)
        table = self._segments.filter(pl.col("session").is_between(first_day, last_day))
        length = timedelta(seconds=step)
        bars = table.select(
            t=pl.datetime_ranges(
                pl.col("open") + length, pl.col("close") + length, interval=length, closed="left"
            ),
            close="close",
        )
        return _between(bars.explode("t").select(pl.min_horizontal("t", "close"))["t"], start, end)

    def bar_closes(self, opened: pl.Series, interval: str) -> pl.Series:
        """Closes of intraday bars that opened then: the interval later, or where trading stops if that comes first."""
        table = self._within(opened, exact=True)
        stop = pl.when(pl.col("t") < pl.col("stop")).then("stop")
        return table.select(
            close=pl.min_horizontal(pl.col("t") + intervals.parse(interval), stop)
        ).to_series()

    def bar_opens(self, closes: pl.Series, interval: str) -> pl.Series:
        """When intraday bars that close then opened: the interval before, less where trading stops with them."""
        step = intervals.seconds(interval)
        table = self._within(closes, exact=False)
        length = (pl.col("stop") - pl.col("begin")).dt.total_seconds()
        last = pl.when(pl.col("t") == pl.col("stop")).then(
            pl.col("begin") + pl.duration(seconds=(length - 1) // step * step)
        )
        return table.select(open=pl.coalesce(last, pl.col("t") - timedelta(seconds=step))).to_series()

    def _within(self, times: pl.Series, *, exact: bool) -> pl.DataFrame:
        """Each time `t` with the stretch of trading that began last before it: begin, stop (null where none did).

        Args:
            exact: whether a stretch that begins at `t` counts.
        """
        table = pl.DataFrame({"t": times}).with_row_index()
        if self.always_open:
            return table.with_columns(begin=pl.lit(None, dtype=TIME), stop=pl.lit(None, dtype=TIME))
        stretches = self._segments.select(begin="open", stop="close")
        return (
            table.sort("t")
            .join_asof(stretches, left_on="t", right_on="begin", coalesce=False, allow_exact_matches=exact)
            .sort("index")
        )

    @lru_cache(maxsize=256)  # noqa: B019  calendars are cached for the life of the process as it is
    def bars_per_year(self, interval: str) -> float:
        """Bars of `interval` in an average year of this market (mean over ten years), for annualising."""
        years = 10
        if self.always_open:
            return 365.25 * _DAY / intervals.seconds(interval)
        closes = self.close_times(
            datetime(2010, 1, 1, tzinfo=UTC), datetime(2010 + years, 1, 1, tzinfo=UTC), interval
        )
        return closes.len() / years

    def next_close(self, after: datetime, interval: str) -> datetime:
        """The first expected bar close later than `after`."""
        span = max(timedelta(days=14), 4 * intervals.parse(interval))
        while (found := self.close_times(after, after + span, interval)).is_empty():
            span *= 2  # some markets were closed for weeks
        first: datetime = found[0]
        return first

    def is_open(self, moment: datetime) -> bool:
        """Whether the market trades at `moment` (sessions include their open, not their close)."""
        if self.always_open:
            return True
        return self._segments.filter((pl.col("open") <= moment) & (pl.col("close") > moment)).height > 0

    def gaps(self, bars: pl.DataFrame, interval: str) -> pl.DataFrame:
        """Stretches of expected bars that are missing between a symbol's first and last bar.

        Returns:
            symbol, after_timestamp (last bar before), before_timestamp (first bar after), missing_bars
            (count).
        """
        parts = []
        for (symbol,), group in bars.select("symbol", "event_timestamp").group_by(
            "symbol", maintain_order=True
        ):
            have = group["event_timestamp"].sort()
            expected = self.close_times(have[0], have[-1], interval)
            missing = expected.filter(~expected.is_in(have.implode()))
            if missing.len() == 0:
                continue
            spans = pl.DataFrame({"t": missing}).with_columns(
                after=have.gather(have.search_sorted(missing) - 1),
                before=have.gather(have.search_sorted(missing)),
            )
            parts.append(
                spans.group_by("after", "before", maintain_order=True)
                .len("missing_bars")
                .select(
                    symbol=pl.lit(symbol),
                    after_timestamp="after",
                    before_timestamp="before",
                    missing_bars=pl.col("missing_bars").cast(pl.Int64),
                )
            )
        return pl.concat([GAPS.to_frame(), *parts])

    def off_grid(self, bars: pl.DataFrame, interval: str) -> pl.DataFrame:
        """The bars whose close is no close of this calendar (wrong interval, wrong time zone, holiday)."""
        if bars.height == 0:
            return bars
        times = bars["event_timestamp"]
        first, last = times.min(), times.max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        expected = self.close_times(first - timedelta(microseconds=1), last, interval)
        return bars.filter(~pl.col("event_timestamp").is_in(expected.implode()))


def _utc(column: object) -> pl.Series:
    return pl.Series(column.to_numpy(dtype="datetime64[us]")).dt.replace_time_zone("UTC")  # type: ignore[attr-defined]


def _between(times: pl.Series, start: datetime, end: datetime) -> pl.Series:
    return times.filter((times > start) & (times <= end)).alias("event_timestamp")


def _date(value: object) -> date:
    assert isinstance(value, date)
    return value

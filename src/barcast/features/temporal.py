"""B4: where a bar stands in the day, the week, the year and the trading calendar.

Everything here is a function of the bar's close time and the calendar's schedule, which is published beforehand; one
table per calendar holds a row per day from 1990 to 2040, and a bar looks its day up where the calendar knows it. The
two seasonal features that need the symbol's own past are kernels at the end.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math
from datetime import date, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from barcast import intervals
from barcast.errors import DataError
from barcast.features.series import TIME, R, V
from barcast.features.spec import Category, FeatureSpec

temporal = Category("temporal")

_FIRST, _LAST = date(1990, 1, 1), date(2040, 12, 31)
_EPOCH = date(1970, 1, 1)
_DAY_US = 86_400_000_000
_HOURS_A_DAY = 48  # more than a session has, the hours before a late open included
_CAL = "calendar arithmetic (UTC)"
_SEASON = "Lakonishok and Smidt, Review of Financial Studies 1 (1988)"
_SESSIONS = "Ito and Hashimoto, Journal of the Japanese and International Economies 20 (2006)"

# name -> (formula, unit, source); the order here is the order of the columns
DATES: dict[str, tuple[str, str, str]] = {
    "weekday_sin": ("sine of the weekday's place in the week", "-1..1", _CAL),
    "weekday_cos": ("cosine of the weekday's place in the week", "-1..1", _CAL),
    "monday": ("1 on Mondays", "flag", "French, JFE 8 (1980)"),
    "friday": ("1 on Fridays", "flag", "French, JFE 8 (1980)"),
    "month_day_sin": ("sine of the day's place in the month", "-1..1", _CAL),
    "month_day_cos": ("cosine of the day's place in the month", "-1..1", _CAL),
    "year_day_sin": ("sine of the day's place in the year", "-1..1", _CAL),
    "year_day_cos": ("cosine of the day's place in the year", "-1..1", _CAL),
    "half_year_sin": ("sine of the day's place in the half year: a second seasonal harmonic", "-1..1", _SEASON),
    "half_year_cos": ("cosine of the day's place in the half year", "-1..1", _SEASON),
    "month_sin": ("sine of the month's place in the year", "-1..1", _CAL),
    "month_cos": ("cosine of the month's place in the year", "-1..1", _CAL),
    "quarter": ("quarter of the year, 1 to 4", "1..4", _CAL),
    "quarter_progress": ("share of the quarter's days that have begun", "share", _CAL),
    "month_start": ("1 on the first three sessions of a month", "flag", "Ariel, JFE 18 (1987)"),
    "month_end": ("1 on the last three sessions of a month", "flag", "Ariel, JFE 18 (1987)"),
    "quarter_end": ("1 on the last five sessions of a quarter", "flag", _SEASON),
    "month_sessions_left": ("sessions left in the month, by 23", "share", _CAL),
    "weekend": ("1 on Saturdays and Sundays", "flag", _CAL),
    "holiday": ("1 on a weekday without a session (New York's holidays for markets that never close)", "flag", _SEASON),
    "days_to_holiday": ("days to the next such holiday, at most 30, by 30", "share", _SEASON),
    "days_since_holiday": ("days since the last such holiday, at most 30, by 30", "share", _SEASON),
    "before_holiday": ("1 where the next weekday is such a holiday", "flag", "Ariel, Journal of Finance 45 (1990)"),
    "winter_half": ("1 from November to April", "flag", "Bouman and Jacobsen, American Economic Review 92 (2002)"),
}  # fmt: skip
CLOCKS: dict[str, tuple[str, str, str]] = {
    "hour_sin": ("sine of the close's time of day", "-1..1", _CAL),
    "hour_cos": ("cosine of the close's time of day", "-1..1", _CAL),
    "hour": ("hour of day in which the bar began, by 23", "share", _CAL),
    "hour_progress": ("share of the hour that has passed at the close (0 at the full hour)", "share", _CAL),
    "session_asia": ("1 from 9 to 15 o'clock in Tokyo on weekdays", "flag", _SESSIONS),
    "session_europe": ("1 from 8:00 to 16:30 in London on weekdays", "flag", _SESSIONS),
    "session_us": ("1 from 9:30 to 16:00 in New York on weekdays", "flag", _SESSIONS),
    "session_overlap": ("1 while London and New York are both open", "flag", _SESSIONS),
    "session_progress": ("share of the calendar's session that has passed", "share", "Admati and Pfleiderer, RFS 1 (1988)"),
    "session_hours_left": ("hours to the session's close, by 24", "share", "Admati and Pfleiderer (1988)"),
    "session_first_hour": ("1 in the session's first hour", "flag", "Gao, Han, Li and Zhou, JFE 129 (2018)"),
    "session_last_hour": ("1 in the session's last hour", "flag", "Gao, Han, Li and Zhou (2018)"),
}  # fmt: skip


def clock_specs(intraday: bool) -> tuple[FeatureSpec, ...]:
    """The features that need the clock only, in column order."""
    table = {**CLOCKS, **DATES} if intraday else DATES
    return tuple(
        FeatureSpec(name, "temporal", words, 1, unit, source, 1)
        for name, (words, unit, source) in table.items()
    )


class Clock:
    """Answers, for close times of one calendar and interval, the temporal columns and the higher intervals' buckets.

    Attributes:
        name: of the calendar. annual: its bars a year.
    """

    def __init__(self, calendar: Any, interval: str) -> None:
        self.name: str = calendar.name
        self.annual = float(calendar.bars_per_year(interval))
        self.step_us = intervals.seconds(interval) * 1_000_000
        self.intraday = intervals.is_intraday(interval)
        self.table = _days(calendar)
        # the higher intervals: an hour (four from half an hour up) and a day; a week and a month on daily bars
        self.hour_us = 3_600_000_000 if self.step_us < 1_800_000_000 else 4 * 3_600_000_000

    def day_of(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Index into the day table: the session a bar belongs to (its date in UTC for markets that never close)."""
        table = self.table
        first, last = table.span
        begin, end = ((day - _EPOCH).days * _DAY_US for day in (first, last + timedelta(days=1)))
        if len(times) and (times.min() <= begin or times.max() > end):
            raise DataError(
                f"A bar closes outside {first} to {last}, the days that calendar {self.name} knows.",
                hint="Check the time unit of the bars (us expected).",
            )
        if table.closes is None:
            return (times - 1) // _DAY_US - table.first
        at = np.searchsorted(table.closes, times - (0 if self.intraday else 1), side="left")
        return table.session_day[np.minimum(at, len(table.session_day) - 1)]

    def off_grid(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which close times are none: intraday bars close whole intervals after the open (or the noon break), or where
        trading ends."""
        if not self.intraday:
            return np.zeros(len(times), dtype=bool)
        table, day = self.table, self.day_of(times)
        noon, again = table.breaks_us[0][day], table.breaks_us[1][day]
        began = np.where(times > again, again, table.opens_us[day])
        off: npt.NDArray[np.bool_] = (
            ((times - began) % self.step_us != 0) & (times != table.closes_us[day]) & (times != noon)
        )
        return off

    def columns(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The temporal columns of close times (microseconds since 1970, UTC): (number of specs, len(times))."""
        day = self.day_of(times)
        dates = self.table.dates[day].T
        if not self.intraday:
            return np.ascontiguousarray(dates)
        of_day = times % _DAY_US
        began = (times - self.step_us) % _DAY_US
        angle = 2 * math.pi * of_day / _DAY_US
        minute = began / 60e6  # sessions are judged by when the bar began
        weekday = ((times - self.step_us) // _DAY_US + 3) % 7
        working = weekday < 5
        zones = self.table.zones[day]
        tokyo, london, new_york = ((minute + zones[:, k]) % 1440 for k in range(3))
        asia = working & (tokyo >= 540) & (tokyo < 900)
        europe = working & (london >= 480) & (london < 990)
        america = working & (new_york >= 570) & (new_york < 960)
        opened, closed = self.table.opens_us[day], self.table.closes_us[day]
        length = np.maximum(closed - opened, 1)
        left = closed - times
        rows = [
            np.sin(angle),
            np.cos(angle),
            began // 3_600_000_000 / 23,
            of_day % 3_600_000_000 / 3.6e9,
            asia,
            europe,
            america,
            europe & america,
            np.clip((times - opened) / length, 0, 1),
            np.clip(left / 86.4e9, 0, 1),
            times - opened <= 3_600_000_000,
            left < 3_600_000_000,
        ]
        return np.vstack([*rows, dates]).astype(np.float64, copy=False)

    def buckets(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """For the rows HOUR, HOUR_CLOSES, DAY, DAY_CLOSES: ids of the two higher intervals, 1 where they end."""
        day = self.day_of(times)
        table = self.table
        if not self.intraday:
            return np.vstack([table.week[day], table.week_ends[day], table.month[day], table.month_ends[day]])
        # hours are counted from the session's open, and the last one ends with it
        passed, closed = times - table.opens_us[day], times >= table.closes_us[day]
        hour = day * _HOURS_A_DAY + (passed - 1) // self.hour_us
        return np.vstack([hour, (passed % self.hour_us == 0) | closed, day, closed]).astype(np.float64)


class _Days:
    """One row per date of 1990 to 2040."""

    first: int
    span: tuple[date, date]  # of the days whose sessions the calendar knows
    dates: npt.NDArray[np.float64]  # (days, len(DATES))
    zones: npt.NDArray[np.float64]  # minutes ahead of UTC: Tokyo, London, New York
    opens_us: npt.NDArray[np.int64]
    closes_us: npt.NDArray[np.int64]
    breaks_us: npt.NDArray[
        np.int64
    ]  # (2, days) start and end of the noon break; far away where there is none
    closes: npt.NDArray[np.int64] | None  # close instants of the sessions; None for markets that never close
    session_day: npt.NDArray[np.int64]
    week: npt.NDArray[np.float64]
    week_ends: npt.NDArray[np.float64]
    month: npt.NDArray[np.float64]
    month_ends: npt.NDArray[np.float64]


_TABLES: dict[str, _Days] = {}


def _days(calendar: Any) -> _Days:
    if calendar.name not in _TABLES:
        _TABLES[calendar.name] = _build(calendar)
    return _TABLES[calendar.name]


def _build(calendar: Any) -> _Days:
    out = _Days()
    out.first = (_FIRST - _EPOCH).days
    count = (_LAST - _FIRST).days + 1
    number = np.arange(out.first, out.first + count)
    days = number.astype("datetime64[D]")
    known = calendar.span
    out.span = (max(_FIRST, known[0]), min(_LAST, known[1]))
    sessions = calendar.sessions(*out.span)
    at = sessions["session"].cast(int).to_numpy() - out.first
    opens, closes = sessions["open"].cast(int).to_numpy(), sessions["close"].cast(int).to_numpy()
    trading = np.zeros(count, dtype=bool)
    trading[at] = True
    out.opens_us, out.closes_us = number * _DAY_US, (number + 1) * _DAY_US
    out.opens_us[at], out.closes_us[at] = opens, closes
    out.breaks_us = np.full((2, count), np.iinfo(np.int64).max)
    pauses = calendar.breaks(*out.span)
    noon = pauses["session"].cast(int).to_numpy() - out.first
    out.breaks_us[:, noon] = [pauses[name].cast(int).to_numpy() for name in ("break_start", "break_end")]
    always = bool(trading.all())
    out.closes, out.session_day = (None, at) if always else (closes, at)

    weekday = (number + 3) % 7  # Monday 0
    month = days.astype("datetime64[M]").astype(int)
    quarter, year = month // 3, days.astype("datetime64[Y]").astype(int)
    in_month = (days - days.astype("datetime64[M]")).astype(int)
    in_year = (days - days.astype("datetime64[Y]")).astype(int)
    month_length, year_length = np.bincount(month)[month], np.bincount(year)[year]
    quarter_start = (quarter * 3).astype("datetime64[M]").astype("datetime64[D]").astype(int)
    quarter_length = np.bincount(quarter)[quarter]
    before, after = _sessions_around(trading, month)
    _, quarter_after = _sessions_around(trading, quarter)
    off = _holidays() if always else (~trading & (weekday < 5))
    next_off, last_off = _distance(off)
    next_weekday = number - out.first + np.where(weekday == 4, 3, np.where(weekday == 5, 2, 1))
    eve = np.zeros(count, dtype=bool)
    inside = next_weekday < count
    eve[inside] = off[next_weekday[inside]]

    turn = 2 * math.pi
    rows = {
        "weekday_sin": np.sin(turn * weekday / 7),
        "weekday_cos": np.cos(turn * weekday / 7),
        "monday": weekday == 0,
        "friday": weekday == 4,
        "month_day_sin": np.sin(turn * in_month / month_length),
        "month_day_cos": np.cos(turn * in_month / month_length),
        "year_day_sin": np.sin(turn * in_year / year_length),
        "year_day_cos": np.cos(turn * in_year / year_length),
        "half_year_sin": np.sin(2 * turn * in_year / year_length),
        "half_year_cos": np.cos(2 * turn * in_year / year_length),
        "month_sin": np.sin(turn * (month % 12) / 12),
        "month_cos": np.cos(turn * (month % 12) / 12),
        "quarter": quarter % 4 + 1,
        "quarter_progress": (number - quarter_start + 1) / quarter_length,
        "month_start": before < 3,
        "month_end": after < 3,
        "quarter_end": quarter_after < 5,
        "month_sessions_left": after / 23,
        "weekend": weekday >= 5,
        "holiday": off,
        "days_to_holiday": np.minimum(next_off, 30) / 30,
        "days_since_holiday": np.minimum(last_off, 30) / 30,
        "before_holiday": eve,
        "winter_half": (month % 12 >= 10) | (month % 12 < 4),
    }
    out.dates = np.vstack([rows[name] for name in DATES]).astype(np.float64).T.copy()
    out.zones = np.vstack(
        [_offsets(zone) for zone in ("Asia/Tokyo", "Europe/London", "America/New_York")]
    ).T.copy()
    week = (number + 3) // 7
    out.week, out.month = week.astype(np.float64), month.astype(np.float64)
    out.week_ends = (_sessions_around(trading, week)[1] == 0).astype(np.float64)
    out.month_ends = (after == 0).astype(np.float64)
    return out


def _sessions_around(
    trading: npt.NDArray[np.bool_], period: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each day the sessions of its period before it and after it."""
    done = np.cumsum(trading)
    starts = np.flatnonzero(np.diff(period, prepend=period[0] - 1))
    which = np.cumsum(np.diff(period, prepend=period[0]) != 0)
    base = np.where(starts > 0, done[starts - 1], 0)
    ends = np.append(starts[1:], len(period)) - 1
    return done - trading - base[which], done[ends][which] - done


def _distance(flags: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Days to the next flagged day after, and since the last flagged day up to, each day."""
    n = len(flags)
    index = np.arange(n)
    last = np.maximum.accumulate(np.where(flags, index, -n))
    following = np.minimum.accumulate(np.where(flags, index, 2 * n)[::-1])[::-1]
    return np.append(following[1:], 2 * n) - index, index - last


@lru_cache(maxsize=1)
def _holidays() -> npt.NDArray[np.bool_]:
    import holidays

    found = holidays.financial_holidays("NYSE", years=range(_FIRST.year, _LAST.year + 1))
    count = (_LAST - _FIRST).days + 1
    out = np.zeros(count, dtype=bool)
    for day in found:
        if day.weekday() < 5:
            out[(day - _FIRST).days] = True
    return out


@lru_cache(maxsize=8)
def _offsets(zone: str) -> npt.NDArray[np.float64]:
    """Minutes ahead of UTC at noon UTC of each day (clocks change at night)."""
    import polars as pl

    noon = pl.datetime_range(_FIRST, _LAST, timedelta(days=1), eager=True) + timedelta(hours=12)
    local = noon.dt.replace_time_zone("UTC").dt.convert_time_zone(ZoneInfo(zone).key)
    offset = local.dt.base_utc_offset() + local.dt.dst_offset()
    return offset.dt.total_minutes().to_numpy().astype(np.float64)


@temporal.group(
    ("hour_activity", "mean absolute log return of this hour of day at its last occurrence, by the mean over the hours known, at most 10; 1 where unknown", 1, "ratio", "Andersen and Bollerslev, Journal of Empirical Finance 4 (1997)"),
    ("hour_volume", "volume of this hour of day at its last occurrence, by the mean over the hours known, at most 10; 1 where unknown", 1, "ratio", "Andersen and Bollerslev (1997)"),
    state=128, intervals="intraday",
)  # fmt: skip
def hour_seasonality(x, t, n, s, out):
    # s[0:24] closed sums of |r|, s[24:48] of volume, s[48:72] bars; s[120:124] the running hour: |r|, volume, bars, id
    began = int((x[TIME, t] - 1.0) // 3600.0)
    if n > 1 and s[123] != began:
        k = int(s[123]) % 24
        s[k], s[24 + k], s[48 + k] = s[120], s[121], s[122]
        s[120] = s[121] = s[122] = 0.0
    s[123] = began
    s[120] += abs(x[R, t]) if n > 1 else 0.0
    s[121] += x[V, t]
    s[122] += 1.0
    a = v = b = 0.0
    for k in range(24):
        a += s[k]
        v += s[24 + k]
        b += s[48 + k]
    k = began % 24
    known = s[48 + k] > 0.0
    out[0] = min(s[k] / s[48 + k] / (a / b), 10.0) if known and a > 1e-12 else 1.0
    out[1] = min(s[24 + k] / s[48 + k] / (v / b), 10.0) if known and v > 0.0 else 1.0


@temporal.group(
    ("weekday_return_8", "mean log return of the last 8 bars of this weekday, this one left out, by the deviation over 60 bars; 0 where constant", 64, "deviations", _SEASON),
    ("month_turn_return_60", "mean log return of the bars of the last 60 within 4 days of a month's turn, by the deviation over 60 bars; 0 where constant", 61, "deviations", _SEASON),
    intervals="daily",
)  # fmt: skip
def weekday_seasonality(x, t, n, s, out):
    if n < 61:
        return
    m = square = turn = near = 0.0
    for i in range(t - 59, t + 1):
        m += x[R, i] / 60.0
    for i in range(t - 59, t + 1):
        square += (x[R, i] - m) ** 2
        d = int((x[TIME, i] - 1.0) // 86400.0)  # the civil day of month, by Hinnant's days-to-date
        z = d + 719468
        doe = z - (z // 146097) * 146097
        yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
        doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
        day = doy - (153 * ((5 * doy + 2) // 153) + 2) // 5 + 1
        if day <= 4 or day >= 28:
            turn += x[R, i]
            near += 1.0
    sd = math.sqrt(square / 60.0)
    out[1] = turn / near / sd if sd > 1e-12 and near > 0.0 else 0.0
    if n >= 64:
        weekday = int((x[TIME, t] - 1.0) // 86400.0) % 7
        a = count = 0.0
        for i in range(t - 1, t - 63, -1):
            if int((x[TIME, i] - 1.0) // 86400.0) % 7 == weekday and count < 8.0:
                a += x[R, i]
                count += 1.0
        out[0] = a / count / sd if sd > 1e-12 and count > 0.0 else 0.0

"""Times as people and exchanges write them, turned into instants."""

from __future__ import annotations

import polars as pl

from barcast.bars.schema import TIME
from barcast.errors import DataError

# Signs of a time of day in a format; without one it is of dates.
_OF_DAY = ("%H", "%k", "%I", "%l", "%R", "%T", "%r", "%X", "%c", "%s", "%+")


def parse_times(times: pl.Series, timezone: str, time_format: str, origin: str) -> pl.Series:
    """Instants in UTC, or dates where the texts are dates.

    Numbers are read by `time_format` where there is one; else they are epoch seconds, milliseconds, microseconds or
    nanoseconds, told by the size of the largest.

    Raises:
        DataError: not times, epoch numbers of more than one unit, or local times that do not exist or occur twice at a
            daylight-saving change.
    """
    if times.dtype.is_float():
        times = times.fill_nan(None)
    if times.null_count():
        raise DataError(f"{origin}: {times.null_count()} row(s) have no time.", hint="Remove them.")
    if times.dtype == pl.Date:
        return times
    if time_format and times.dtype.is_integer():  # such as 20240131
        times = times.cast(pl.String)
    if times.dtype.is_numeric():
        return _epoch(times, origin)
    if times.dtype == pl.String:
        times = _text(times, time_format, origin)
        if times.dtype == pl.Date:
            return times
    if not isinstance(times.dtype, pl.Datetime):
        raise DataError(
            f"{origin}: the time column is {times.dtype}.", hint="Give times, dates or epoch numbers."
        )
    if times.dtype.time_zone is not None:
        return times.dt.convert_time_zone("UTC").cast(TIME)
    try:
        return times.cast(pl.Datetime("us")).dt.replace_time_zone(timezone).dt.convert_time_zone("UTC")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{origin}: a local time cannot be placed in {timezone}: {str(error).splitlines()[0]}.",
            hint="Give times in UTC or with their offset; a clock change makes local times ambiguous.",
        ) from error


def _epoch(times: pl.Series, origin: str) -> pl.Series:
    top = float(times.max() or 0)  # type: ignore[arg-type]
    _refuse_mixed(times, top, origin)
    for limit, factor in ((1e11, 1_000_000), (1e14, 1_000), (1e17, 1)):
        if 0 < top < limit:
            return (
                (times.cast(pl.Float64) * factor)
                .round()
                .cast(pl.Int64)
                .cast(pl.Datetime("us"))
                .dt.replace_time_zone("UTC")
            )
    if top >= 1e17:
        return (times.cast(pl.Int64) // 1_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise DataError(f"{origin}: the time column holds numbers up to {top}.", hint="Give epoch times or text.")


def _refuse_mixed(times: pl.Series, top: float, origin: str) -> None:
    """In the unit of the largest, times of a smaller unit all lie in early 1970, and none in the three years after."""
    for limit in (1e17, 1e14, 1e11):
        if top < limit:
            continue
        small = times.filter((times > 0) & (times < limit / 10))
        between = times.is_between(limit / 10, limit, closed="left").any()
        if len(small) and not between:
            raise DataError(
                f"{origin}: the time column mixes units: it holds {small[0]} and {top:.0f}, and no one unit "
                "reads both.",
                hint="Give all times in seconds, or all in milliseconds.",
            )
        return


def _text(times: pl.Series, time_format: str, origin: str) -> pl.Series:
    try:
        if time_format:
            if not any(sign in time_format for sign in _OF_DAY):
                return times.str.to_date(time_format)
            has_zone = "%z" in time_format
            return times.str.to_datetime(time_format, time_unit="us", time_zone="UTC" if has_zone else None)
        if times.str.len_chars().max() == 10:
            return times.str.to_date("%Y-%m-%d")
        zoned = times.str.contains(r"(Z|[+-]\d\d:?\d\d)$")
        if zoned.all():
            return times.str.to_datetime(time_unit="us", time_zone="UTC")
        return times.str.to_datetime(time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{origin}: times such as {times[0]!r} are not understood: {str(error).splitlines()[0]}.",
            hint="Set source.files.time_format, e.g. '%d.%m.%Y %H:%M'.",
        ) from error

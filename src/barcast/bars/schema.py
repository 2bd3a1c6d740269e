"""What a bar is. Every source ends here, and every later room begins here.

A source's frame goes through `conform` (columns, types, time zone) and `check` (row rules); `adjusted` turns
prices as traded into prices comparable over time.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import polars as pl

from barcast.errors import DataError

TIME = pl.Datetime("us", "UTC")

BARS = pl.Schema(
    {
        "symbol": pl.String(),
        "event_timestamp": TIME,
        "created_timestamp": TIME,
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "price_factor": pl.Float64(),
        "volume_factor": pl.Float64(),
    }
)
KEY = ("symbol", "event_timestamp")
PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume", "price_factor", "volume_factor")


def empty() -> pl.DataFrame:
    """A bars frame without rows."""
    return BARS.to_frame()


def conform(frame: pl.DataFrame, *, origin: str = "the frame") -> pl.DataFrame:
    """`frame` with exactly the columns and types of `BARS`, sorted by symbol and time.

    `created_timestamp` defaults to the bar's close (a closed historical bar was known then), factors to 1.

    Args:
        frame: at least symbol, event_timestamp, open, high, low, close, volume.
        origin: named in errors.

    Raises:
        DataError: a column is missing, a value is not a number or a time, a time has no zone, a key is null.
    """
    needed = [*KEY, *PRICES, "volume"]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise DataError(
            f"{origin} lacks the column(s) {missing}; it has {frame.columns}.",
            hint="Name your columns in source.files.columns, e.g. {close: Last}.",
        )
    defaults = {
        "created_timestamp": pl.col("event_timestamp"),
        "price_factor": pl.lit(1.0),
        "volume_factor": pl.lit(1.0),
    }
    frame = frame.with_columns(**{k: v for k, v in defaults.items() if k not in frame.columns})
    for name in ("event_timestamp", "created_timestamp"):
        dtype = frame.schema[name]
        if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
            raise DataError(
                f"{origin}: {name} is {dtype}, expected an instant with a time zone.",
                hint="Convert it to UTC (polars: .dt.replace_time_zone('UTC')).",
            )
    frame = frame.with_columns(pl.col("event_timestamp", "created_timestamp").dt.convert_time_zone("UTC"))
    for name in VALUES:
        frame = number(frame, name, origin)
    frame = frame.select(pl.col(name).cast(dtype) for name, dtype in BARS.items())
    nulls = frame.filter(pl.any_horizontal(pl.col(*KEY).is_null()))
    if nulls.height:
        raise DataError(
            f"{origin}: {nulls.height} row(s) have no symbol or no time.",
            hint="Remove them or give them a key.",
        )
    return frame.sort(*KEY, maintain_order=True)


def number(frame: pl.DataFrame, name: str, origin: str) -> pl.DataFrame:
    """`frame` with the column `name` as numbers.

    Raises:
        DataError: a value is no number.
    """
    if frame.schema[name].is_numeric():
        return frame
    parsed = frame[name].cast(pl.String, strict=False).cast(pl.Float64, strict=False)
    bad = frame.with_row_index("row").filter(parsed.is_null() & pl.Series(frame[name].is_not_null()))
    if bad.height:
        first = bad.row(0, named=True)
        raise DataError(
            f"{origin}: column {name} holds {first[name]!r} in row {first['row'] + 1}; a number was expected"
            f" ({bad.height} such value(s)).",
            hint="Correct the file; nothing was stored.",
        )
    return frame.with_columns(parsed.alias(name))


# One row rule each: name, when a row breaks it, what was expected.
ROW_RULES: dict[str, tuple[pl.Expr, str]] = {
    "missing_value": (
        pl.any_horizontal(pl.col(*VALUES).is_null() | pl.col(*VALUES).is_nan()),
        "a number in every column",
    ),
    "infinite_value": (pl.any_horizontal(pl.col(*VALUES).is_infinite()), "finite numbers"),
    "price_not_positive": (pl.any_horizontal(pl.col(*PRICES) <= 0), "prices above 0"),
    "volume_negative": (pl.col("volume") < 0, "volume of 0 or more"),
    "high_below_low": (pl.col("high") < pl.col("low"), "high at or above low"),
    "open_outside_range": (
        (pl.col("open") > pl.col("high")) | (pl.col("open") < pl.col("low")),
        "open between low and high",
    ),
    "close_outside_range": (
        (pl.col("close") > pl.col("high")) | (pl.col("close") < pl.col("low")),
        "close between low and high",
    ),
    "factor_not_positive": (
        (pl.col("price_factor") <= 0) | (pl.col("volume_factor") <= 0),
        "adjustment factors above 0",
    ),
    "known_before_close": (
        pl.col("created_timestamp") < pl.col("event_timestamp"),
        "a bar known at its close or later (closed bars only)",
    ),
}


def check(bars: pl.DataFrame, *, as_of: datetime | None = None, origin: str = "the bars") -> pl.DataFrame:
    """`bars` unchanged, or an error that names the first offending row of the first broken rule.

    Raises:
        DataError: a row rule is broken, a key occurs twice, or (with `as_of`) a bar closes in the future.
    """
    rules = dict(ROW_RULES)
    if as_of is not None:
        rules["from_the_future"] = (
            pl.col("event_timestamp") > as_of,
            f"a bar that closed by {as_of:%Y-%m-%d %H:%M:%SZ}",
        )
    counts = bars.select(**{name: rule.sum() for name, (rule, _) in rules.items()}).row(0, named=True)
    for name, count in counts.items():
        if count:
            rule, expected = rules[name]
            raise DataError(
                f"{origin}: {count} bar(s) break the rule {name}: expected {expected}; first: "
                f"{describe(bars.filter(rule).row(0, named=True))}.",
                hint="Correct or remove these bars at the source; nothing was stored.",
            )
    twice = bars.filter(pl.struct(*KEY).is_duplicated())
    if twice.height:
        raise DataError(
            f"{origin}: {twice.height} rows share a symbol and a close time; first: "
            f"{describe(twice.row(0, named=True))}.",
            hint="Keep one bar per symbol and time.",
        )
    return bars


def describe(row: dict[str, object]) -> str:
    """One bar in words, for messages."""
    time = row["event_timestamp"]
    when = f"{time:%Y-%m-%d %H:%M:%SZ}" if isinstance(time, datetime) else str(time)
    values = " ".join(f"{name}={row[name]}" for name in (*PRICES, "volume"))
    return f"{row['symbol']} at {when} ({values})"


def adjusted(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars with prices and volume comparable over time: raw × price_factor, raw volume × volume_factor.

    The factors stay in the frame: the close as traded is `close / price_factor`. Do not call it twice.
    """
    return bars.with_columns(
        pl.col(*PRICES) * pl.col("price_factor"), volume=pl.col("volume") * pl.col("volume_factor")
    )


def content_hash(bars: pl.DataFrame) -> str:
    """SHA-256 over all columns of the bars, sorted by symbol and time: same rows, same hash, anywhere."""
    digest = hashlib.sha256()
    for (symbol,), group in bars.sort(*KEY).group_by("symbol", maintain_order=True):
        digest.update(f"{symbol}\0{group.height}\0".encode())
        for name in BARS.names()[1:]:
            column = group[name]
            digest.update(
                (column.to_physical() if column.dtype == TIME else column + 0.0).to_numpy().tobytes()
            )
    return digest.hexdigest()

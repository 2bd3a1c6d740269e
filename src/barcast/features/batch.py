"""The batch engine: a table of adjusted bars in, a table of features out.

Symbols run in threads through the same compiled kernels as the stream, each over its own bars from its first
one on, then
all events in order of time through the cross-symbol kernel; so a value depends on nothing that came later.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast.config.features import FeaturesConfig
from barcast.errors import DataError
from barcast.features.memory import VALUES, Memory, microseconds
from barcast.features.plan import Plan, plan

KEYS = ("symbol", "event_timestamp", "created_timestamp")


def compute(
    adjusted_bars: pl.DataFrame, *, interval: str, calendar: Any, config: FeaturesConfig | None = None
) -> pl.DataFrame:
    """All features of all bars.

    Args:
        adjusted_bars: columns symbol, event_timestamp (close, UTC), created_timestamp, open, high, low, close, volume.
        interval: of the bars, such as "5m".
        calendar: the bars' `Calendar` (name, sessions(start, end), bars_per_year(interval)), or a function that gives
            each symbol's: annual figures, hours, sessions and holidays follow it.
        config: which features; the default is all of them.

    Returns:
        symbol, event_timestamp, created_timestamp and one Float32 column per feature, sorted by symbol and time. Null
        until the look-back is filled; never NaN or infinite. `created_timestamp` is when the last of the bars that the
        row rests on was known: the symbol's own up to it, and the others' of its close time that met the deadline.

    Raises:
        DataError: a value is missing, not finite or not positive, or two bars share symbol and time.
    """
    p = plan(interval, config)
    bars = check(adjusted_bars)
    times = microseconds(bars["event_timestamp"])
    values, known = Memory(p, calendar).run(bars, times)
    return frame(bars, p, values, known)


def correlations(
    adjusted_bars: pl.DataFrame, *, interval: str, calendar: Any, config: FeaturesConfig | None = None
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The correlation matrix that the cross-symbol features of the table's last bars use.

    Args:
        adjusted_bars, interval, calendar, config: as for `compute`.

    Returns:
        Symbols in alphabetical order; (S, S) correlations at the last refresh, NaN where too few returns are common.
    """
    settings = (config or FeaturesConfig()).model_copy(
        update={"categories": ("cross_symbol",), "user_features": None}
    )
    bars = check(adjusted_bars)
    memory = Memory(plan(interval, settings), calendar)
    memory.run(bars, microseconds(bars["event_timestamp"]))
    return memory.cross.correlations()


def check(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars sorted by symbol and time, or an error that names the first bad one."""
    needed = [*KEYS, *VALUES]
    missing = [name for name in needed if name not in bars.columns]
    if missing:
        raise DataError(
            f"The bars lack the columns {missing}.", hint="Pass a bars frame (see barcast.bars.schema)."
        )
    bars = bars.select(needed).sort("symbol", "event_timestamp")
    prices = [pl.col(name) for name in VALUES[:4]]
    bad = bars.filter(
        pl.any_horizontal(*((p.is_null() | ~p.is_finite() | (p <= 0)) for p in prices))
        | pl.col("volume").is_null()
        | ~pl.col("volume").is_finite()
        | (pl.col("volume") < 0)
        | (pl.col("high") < pl.max_horizontal("open", "close", "low"))
        | (pl.col("low") > pl.min_horizontal("open", "close"))
    )
    if bad.height:
        first = bad.row(0, named=True)
        raise DataError(
            f"{bad.height} bar(s) have a missing, infinite or non-positive price, a bad volume, or a close or open "
            f"outside low to high; first: {first['symbol']} at {first['event_timestamp']}.",
            hint="Repair or drop them at the source; a feature of a wrong price is wrong for its whole look-back.",
        )
    if bars.select(pl.struct("symbol", "event_timestamp").is_duplicated().any()).item():
        raise DataError(
            "Two bars share symbol and event_timestamp.", hint="Keep the one known last (the bar store does)."
        )
    return bars


def check_few(bars: pl.DataFrame) -> pl.DataFrame:
    """`check` for the few bars of one moment, without a query; `check` itself words the error."""
    if not set(KEYS) <= set(bars.columns) or not set(VALUES) <= set(bars.columns) or bars.height == 0:
        return check(bars)
    names = bars["symbol"].to_list()
    if None in names or any(a >= b for a, b in itertools.pairwise(names)):
        return check(bars)
    o, h, l, c, v = (bars[name].to_numpy() for name in VALUES)  # noqa: E741
    top, bottom = np.maximum(o, c), np.minimum(o, c)
    good = (
        (l > 0) & (l <= bottom) & (h >= top) & (h < np.inf) & (v >= 0) & (v < np.inf)
    )  # false where one is NaN
    return bars if good.all() else check(bars)


def frame(
    bars: pl.DataFrame, p: Plan, values: npt.NDArray[np.float32], known: npt.NDArray[np.int64]
) -> pl.DataFrame:
    """Keys and values (F + 1, rows) as a features frame; NaN becomes null."""
    names = p.names
    created = pl.Series("created_timestamp", known).cast(pl.Datetime("us", "UTC"))
    keys = [bars["symbol"], bars["event_timestamp"], created]
    if 0 < bars.height <= 1024:  # one series cut into columns: ten times quicker than a series per column
        flat = pl.Series("", np.ascontiguousarray(values[: len(names)].T).ravel(), nan_to_null=True)
        wide = flat.reshape((bars.height, len(names))).arr.to_struct(list(names)).struct.unnest()
        for at, key in enumerate(keys):
            wide.insert_column(at, key)
        return wide
    return pl.DataFrame(
        [*keys, *(pl.Series(name, values[k], nan_to_null=True) for k, name in enumerate(names))]
    )

"""The batch engine: a table of adjusted bars in, a table of features out.

Symbols run in threads through the same compiled kernels as the stream, each over its own bars from its first one on, so
a value depends on nothing that came later.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast.config.features import FeaturesConfig
from barcast.errors import DataError
from barcast.features.drive import drive
from barcast.features.plan import Plan, plan
from barcast.features.series import ANNUAL, GIVEN, HOUR, NUM_SERIES, TIME
from barcast.features.temporal import Clock

_VALUES = ("open", "high", "low", "close", "volume")
_KEYS = ("symbol", "event_timestamp", "created_timestamp")


def compute(
    adjusted_bars: pl.DataFrame, *, interval: str, calendar: Any, config: FeaturesConfig | None = None
) -> pl.DataFrame:
    """All features of all bars.

    Args:
        adjusted_bars: columns symbol, event_timestamp (close, UTC), created_timestamp, open, high, low, close, volume.
        interval: of the bars, such as "5m".
        calendar: the bars' `Calendar` (name, sessions(start, end), bars_per_year(interval)).
        config: which features; the default is all of them.

    Returns:
        symbol, event_timestamp, created_timestamp and one Float32 column per feature, sorted by symbol and time. Null
        until the look-back is filled; never NaN or infinite.

    Raises:
        DataError: a value is missing, not finite or not positive, or two bars share symbol and time.
    """
    p = plan(interval, config)
    bars = check(adjusted_bars, p.interval)
    values = np.empty((len(p.specs) + 1, bars.height), dtype=np.float32)  # the last row takes what nobody asked for
    times = bars["event_timestamp"].dt.timestamp("us").to_numpy()
    clock = Clock(calendar, interval)
    annual = float(calendar.bars_per_year(interval))
    data = [bars[name].to_numpy() for name in _VALUES]
    symbols = bars["symbol"]
    edges = [0, *(np.flatnonzero((symbols != symbols.shift()).fill_null(False).to_numpy())), bars.height]
    kernels = p.kernels()

    def one(k: int) -> None:
        a, b = int(edges[k]), int(edges[k + 1])
        x = given(data, times, a, b, clock, annual)
        _run(p, kernels, x, values, a)
        if len(p.clock_columns):
            values[p.clock_columns, a:b] = clock.columns(times[a:b])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(len(edges) - 1 if bars.height else 0)))
    return frame(bars, p, values)


def check(bars: pl.DataFrame, interval: str) -> pl.DataFrame:
    """The bars sorted by symbol and time, or an error that names the first bad one."""
    needed = [*_KEYS, *_VALUES]
    missing = [name for name in needed if name not in bars.columns]
    if missing:
        raise DataError(f"The bars lack the columns {missing}.", hint="Pass a bars frame (see barcast.bars.schema).")
    bars = bars.select(needed).sort("symbol", "event_timestamp")
    prices = [pl.col(name) for name in _VALUES[:4]]
    bad = bars.filter(
        pl.any_horizontal(*((p.is_null() | ~p.is_finite() | (p <= 0)) for p in prices))
        | pl.col("volume").is_null()
        | ~pl.col("volume").is_finite()
        | (pl.col("volume") < 0)
    )
    if bad.height:
        first = bad.row(0, named=True)
        raise DataError(
            f"{bad.height} bar(s) have a missing, infinite or non-positive price or a bad volume; first: "
            f"{first['symbol']} at {first['event_timestamp']}.",
            hint="Repair or drop them at the source; a feature of a wrong price is wrong for its whole look-back.",
        )
    twice = bars.select(pl.struct("symbol", "event_timestamp").is_duplicated().any()).item()
    if twice:
        raise DataError("Two bars share symbol and event_timestamp.", hint="Keep the one known last (the bar store does).")
    return bars


def given(
    data: list[npt.NDArray[np.float64]], times: npt.NDArray[np.int64], a: int, b: int, clock: Clock, annual: float
) -> npt.NDArray[np.float64]:
    """The matrix x of one symbol's bars a to b, with the given rows filled."""
    x = np.empty((NUM_SERIES, b - a))
    for row, column in enumerate(data):
        x[row] = column[a:b]
    x[TIME] = times[a:b] / 1e6
    x[HOUR : HOUR + 4] = clock.buckets(times[a:b])
    x[ANNUAL] = annual
    assert GIVEN == ANNUAL + 1
    return x


def _run(p: Plan, kernels: Any, x: npt.NDArray[np.float64], values: npt.NDArray[np.float32], at: int) -> None:
    state = np.zeros(int(p.state_at[-1]))
    drive(kernels, p.state_at, p.value_at, p.column, p.lookback, x, 0, x.shape[1], 0, state, values, at)


def frame(bars: pl.DataFrame, p: Plan, values: npt.NDArray[np.float32]) -> pl.DataFrame:
    """Keys and values (F, rows) as a features frame; NaN becomes null."""
    columns = [pl.Series(name, values[k], nan_to_null=True) for k, name in enumerate(p.names)]
    return bars.select(_KEYS).with_columns(columns)

"""Outcomes after each bar that could really have been traded, and the classes made of them.

The decision is taken at the close of bar t; the position is entered at the open of bar t+1 and left at the
open of bar t+1+h (fixed horizon), at the open after the first barrier touched (triple barrier), or when the user's own
label says (`user_labels`). Adjusted
bars of one interval go in, one row a bar comes out, with the reason where a row cannot be used. Class
thresholds are fitted on training rows only (`fit_thresholds`) and put on afterwards (`classify`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from barcast.config.models import LabelsConfig
from barcast.errors import ConfigError, DataError

SELL, HOLD, BUY = 0, 1, 2
CLASSES = ("SELL", "HOLD", "BUY")

# Why a row has no usable label.
_OUTCOME = ("label_start_timestamp", "label_end_timestamp", "forward_log_return", "duration_bars", "touch")
OK, WARM_UP, GAP, PENDING, CONSTANT = "", "warm_up", "gap", "pending", "constant_price"


@dataclass(frozen=True)
class Thresholds:
    """Class limits in units of the horizon's volatility: z < lower is SELL, z > upper is BUY, else HOLD."""

    lower: float
    upper: float


def missing_bars(
    event_timestamp: pl.Series, *, interval_seconds: float, expected: pl.Series | None = None
) -> np.ndarray:
    """Bars missing just before each row of one symbol, (n,) float64; the first row has 0.

    Args:
        event_timestamp: sorted closes of one symbol.
        interval_seconds: length of a bar.
        expected: sorted closes that the calendar expects; without it every interval counts, weekends too.
    """
    if len(event_timestamp) == 0:
        return np.zeros(0)
    micros = event_timestamp.dt.timestamp("us").to_numpy()
    if expected is None:
        position = micros / (interval_seconds * 1e6)
    else:
        position = np.searchsorted(expected.dt.timestamp("us").to_numpy(), micros).astype(np.float64)
    return np.maximum(np.diff(position, prepend=position[0] - 1) - 1, 0.0)


def infer_interval_seconds(bars: pl.DataFrame) -> float:
    """The most frequent distance between successive closes, in seconds."""
    steps = bars.sort("symbol", "event_timestamp").select(
        pl.col("event_timestamp").diff().over("symbol").dt.total_microseconds().alias("step")
    )["step"]
    steps = steps.drop_nulls()
    if steps.is_empty():
        raise DataError("The interval cannot be told from fewer than two bars.", hint="Pass more bars.")
    return float(steps.mode().min()) / 1e6  # type: ignore[arg-type]


def make(
    bars: pl.DataFrame,
    *,
    horizon_bars: int,
    config: LabelsConfig | None = None,
    interval_seconds: float | None = None,
    expected_times: Mapping[str, pl.Series] | None = None,
) -> pl.DataFrame:
    """Labels of every bar.

    Args:
        bars: adjusted bars (frame "Bars"), one interval, any symbols.
        horizon_bars: bars from entry to exit (or to the vertical barrier).
        config: see LabelsConfig.
        interval_seconds: length of a bar; told from the times when None.
        expected_times: for each symbol the closes that its calendar expects (`bars.calendars`); None: round the clock.

    Returns:
        `symbol, event_timestamp, label_start_timestamp, label_end_timestamp` (closes of the bars in which
        entry and exit trade), `forward_log_return`, `volatility` (of the horizon's log return, known at t),
        `duration_bars`, `touch` Int8 (-1, 0, 1: barrier; null for the fixed horizon), `valid`, `reason`.

    Raises:
        ConfigError: a horizon below 1.
        DataError: no bars, or a price that is not positive.
    """
    config = config or LabelsConfig()
    if horizon_bars < 1:
        raise ConfigError(
            f"horizon_bars is {horizon_bars}; it must be 1 or more.", hint="Set horizon_bars: 5."
        )
    if bars.is_empty():
        raise DataError("There are no bars to make labels from.", hint="Ingest bars first.")
    # NaN would be passed over by the minimum, spoil all volatility after it, and compare as the largest: BUY.
    prices = bars.select(pl.col("open", "high", "low", "close").cast(pl.Float64).fill_nan(None))
    lowest = min((float(v) for v in prices.min().row(0) if v is not None), default=0.0)
    missing = sum(prices.null_count().row(0))
    if not lowest > 0 or missing:
        raise DataError(
            f"Labels need positive prices, the smallest is {lowest}, {missing} are missing.",
            hint="Validate the bars (barcast ingest).",
        )
    seconds = interval_seconds or infer_interval_seconds(bars)
    parts = [
        _one_symbol(
            part.sort("event_timestamp"),
            horizon_bars,
            config,
            seconds,
            None if expected_times is None else expected_times[part["symbol"][0]],
        )
        for part in bars.partition_by("symbol", maintain_order=True)
    ]
    return pl.concat(parts).sort("symbol", "event_timestamp")


def _one_symbol(
    bars: pl.DataFrame, horizon: int, config: LabelsConfig, seconds: float, expected: pl.Series | None
) -> pl.DataFrame:
    n = bars.height
    open_, close = bars["open"].to_numpy(), bars["close"].to_numpy()
    returns = np.diff(np.log(close), prepend=np.log(close[0]))
    volatility = _ewm_std(returns, config.volatility_span_bars) * np.sqrt(horizon)
    row = np.arange(n)
    entry = row + 1
    if config.scheme == "fixed_horizon":
        exit_, touch = entry + horizon, None
    elif config.scheme == "user":
        exit_, touch = _by_user(bars, entry, horizon, config)
    else:
        exit_, touch = _first_touch(bars, entry, horizon, volatility, config.barrier_width)
    known = exit_ < n
    safe_entry, safe_exit = np.minimum(entry, n - 1), np.minimum(exit_, n - 1)
    forward = np.log(open_[safe_exit] / open_[safe_entry])
    too_long = (
        missing_bars(bars["event_timestamp"], interval_seconds=seconds, expected=expected)
        > config.max_gap_bars
    )
    gaps = np.cumsum(too_long)
    reason = np.full(n, OK, dtype=object)
    reason[gaps[safe_exit] != gaps[row]] = GAP
    reason[~known] = PENDING
    reason[volatility <= 1e-12] = CONSTANT
    reason[row < config.volatility_span_bars // 3] = WARM_UP
    times = bars["event_timestamp"]
    frame = pl.DataFrame(
        {
            "symbol": bars["symbol"],
            "event_timestamp": times,
            "label_start_timestamp": times.gather(safe_entry),
            "label_end_timestamp": times.gather(safe_exit),
            "forward_log_return": forward,
            "volatility": volatility,
            "duration_bars": (exit_ - entry).astype(np.int32),
            "touch": pl.Series([None] * n, dtype=pl.Int8)
            if touch is None
            else pl.Series(touch, dtype=pl.Int8),
            "reason": pl.Series(reason.tolist(), dtype=pl.Utf8),
        }
    ).with_columns((pl.col("reason") == OK).alias("valid"))
    unknown = pl.Series(~known)
    return frame.with_columns(
        pl.when(unknown).then(None).otherwise(pl.col(name)).alias(name)
        for name in (
            "label_start_timestamp",
            "label_end_timestamp",
            "forward_log_return",
            "duration_bars",
            "touch",
        )
    )


def _ewm_std(returns: np.ndarray, span: int) -> np.ndarray:
    """Exponentially weighted root mean square of log returns, (n,); the mean is taken as 0."""
    # The first return does not exist; leaving it out keeps early volatility from being pulled to 0.
    squares = pl.Series(np.square(returns[1:]))
    mean = squares.ewm_mean(span=span, adjust=True).to_numpy() if len(squares) else np.zeros(0)
    volatility: np.ndarray = np.sqrt(np.concatenate([[0.0], mean]))
    return volatility


def _first_touch(
    bars: pl.DataFrame, entry: np.ndarray, horizon: int, volatility: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Exit row and the barrier touched (-1, 0, 1), each (n,).

    Barriers stand at entry x exp(± width x volatility). A bar that touches both counts for the one nearer to
    its open. The exit trades at the open after the touch, never at a price inside the bar.
    """
    n = len(entry)
    open_, high, low = (bars[name].to_numpy() for name in ("open", "high", "low"))
    start = open_[np.minimum(entry, n - 1)]
    upper, lower = start * np.exp(width * volatility), start * np.exp(-width * volatility)
    touch, exit_ = np.zeros(n, dtype=np.int8), entry + horizon
    undecided = np.ones(n, dtype=bool)
    for step in range(horizon):
        at = np.minimum(entry + step, n - 1)
        inside = entry + step < n
        up, down = high[at] >= upper, low[at] <= lower
        nearer_up = upper - open_[at] < open_[at] - lower
        side = np.where(up & down, np.where(nearer_up, 1, -1), np.where(up, 1, np.where(down, -1, 0)))
        hit = undecided & inside & (side != 0)
        touch[hit], exit_[hit] = side[hit], entry[hit] + step + 1
        undecided &= ~hit
    return exit_, touch


def _by_user(
    bars: pl.DataFrame, entry: np.ndarray, horizon: int, config: LabelsConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """Exit row and class (-1, 0, 1) of the user's own labels, each (n,); None leaves classes to thresholds."""
    from barcast import user_labels

    arrays = {
        name: bars[name].to_numpy().astype(np.float64) for name in ("open", "high", "low", "close", "volume")
    }
    arrays["time"] = bars["event_timestamp"].dt.timestamp("us").to_numpy() / 1e6
    held, side = user_labels.load(str(config.user_labels), horizon)(arrays)
    # Not known yet: an exit past the last row makes the label pending.
    exit_ = np.where(np.isfinite(held), entry + np.nan_to_num(held), len(entry) + horizon).astype(np.int64)
    return exit_, None if side is None else np.nan_to_num(side).astype(np.int8)


def counts(labels: pl.DataFrame) -> dict[str, int]:
    """Rows by reason: `valid`, `warm_up`, `gap`, `pending`, `constant_price`."""
    found = dict(labels.group_by("reason").len().iter_rows())
    return {"valid": found.get(OK, 0)} | {k: found.get(k, 0) for k in (WARM_UP, GAP, PENDING, CONSTANT)}


def fit_thresholds(train_labels: pl.DataFrame, config: LabelsConfig | None = None) -> Thresholds:
    """Class limits that put `hold_share` of these rows into HOLD, the same distance on both sides of zero.

    Args:
        train_labels: training rows only (`forward_log_return`, `volatility`, and `touch`).

    Raises:
        DataError: no row, or rows of one class only.
    """
    config = config or LabelsConfig()
    rows = train_labels.drop_nulls(["forward_log_return", "volatility"])
    if rows.is_empty():
        raise DataError("There are no training labels to fit thresholds on.", hint="Use a longer history.")
    z = (rows["forward_log_return"] / rows["volatility"]).to_numpy()
    if config.scheme == "triple_barrier":
        limit = float(config.barrier_width)
    else:
        limit = float(np.quantile(np.abs(z), config.hold_share))
    fitted = Thresholds(lower=-limit, upper=limit)
    classes = classify(rows, fitted)["label"].unique()
    if len(classes) < 2:
        raise DataError(
            f"All {rows.height} training labels fall into one class ({CLASSES[int(classes[0])]}).",
            hint="Use a longer history, another horizon or another hold_share.",
        )
    return fitted


def classify(labels: pl.DataFrame, thresholds: Thresholds) -> pl.DataFrame:
    """`labels` with `label` Int8 (0 SELL, 1 HOLD, 2 BUY; null where the outcome is not known)."""
    z = pl.col("forward_log_return") / pl.col("volatility")
    by_return = pl.when(z > thresholds.upper).then(BUY).when(z < thresholds.lower).then(SELL).otherwise(HOLD)
    touched = pl.col("touch") + 1 if "touch" in labels.columns else pl.lit(None, dtype=pl.Int8)
    return labels.with_columns(
        pl.when(pl.col("forward_log_return").is_null())
        .then(None)
        .otherwise(pl.coalesce(touched, by_return))
        .cast(pl.Int8)
        .alias("label")
    )

"""The predictions frame: its columns, its checks, and the small views that every measure takes of it.

Rows come from a model scored out of sample (one row per symbol and bar); metrics, backtest, gate and report
read them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from barcast.errors import DataError

CLASSES = ("SELL", "HOLD", "BUY")
SELL, HOLD, BUY = 0, 1, 2
PROBABILITIES = ("p_sell", "p_hold", "p_buy")
TIME = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "symbol": pl.Utf8,
    "event_timestamp": TIME,
    "label_end_timestamp": TIME,
    "model": pl.Utf8,
    "fold": pl.Int32,
    "p_sell": pl.Float64,
    "p_hold": pl.Float64,
    "p_buy": pl.Float64,
    "confidence": pl.Float64,
    "uncertainty": pl.Float64,
    "expected_return": pl.Float64,
    "expected_volatility": pl.Float64,
    "position_size": pl.Float64,
    "label": pl.Int8,
    "forward_log_return": pl.Float64,
    "volatility": pl.Float64,
    "regime": pl.Utf8,
    "volatility_regime": pl.Utf8,
}
REQUIRED = ("symbol", "event_timestamp", "label_end_timestamp", *PROBABILITIES, "label", "forward_log_return")
_DEFAULTS: dict[str, Any] = {
    "model": "model",
    "fold": 0,
    "uncertainty": 0.0,
    "expected_return": 0.0,
    "expected_volatility": 0.0,
    "position_size": 1.0,
    "volatility": 0.0,
    "regime": "unknown",
    "volatility_regime": "unknown",
}


def check(frame: pl.DataFrame, *, name: str = "model") -> pl.DataFrame:
    """The frame with every column of SCHEMA, cast, sorted by symbol and time.

    Optional columns that are absent get their neutral value (position_size 1, regime "unknown", confidence =
    largest probability).

    Raises:
        DataError: no rows, missing columns, repeated (symbol, event_timestamp), NaN or null in a prediction
            or a label, probabilities that don't sum to 1, a label other than 0, 1, 2, or a label that ends
            before its bar.
    """
    if frame.height == 0:
        raise DataError(
            f"The evaluation window of {name!r} holds no labelled rows.",
            hint="Widen the test span, or wait until the newest labels have ended.",
        )
    missing = [c for c in REQUIRED if c not in frame.columns]
    if missing:
        raise DataError(
            f"Predictions of {name!r} lack the columns {missing}; got {frame.columns}.",
            hint="Score the model with barcast's own predictor, which writes them all.",
        )
    absent = [pl.lit(v, dtype=SCHEMA[c]).alias(c) for c, v in _DEFAULTS.items() if c not in frame.columns]
    frame = frame.with_columns(absent)
    if "confidence" not in frame.columns:
        frame = frame.with_columns(pl.max_horizontal(*PROBABILITIES).alias("confidence"))
    frame = frame.select(pl.col(c).cast(t) for c, t in SCHEMA.items()).sort("symbol", "event_timestamp")
    values = (*PROBABILITIES, "confidence", "position_size", "forward_log_return", "label")
    bad = {
        c: n
        for c in values
        if (
            n := int(
                frame[c].null_count() + (frame[c].is_infinite() | frame[c].is_nan()).sum()
                if frame[c].dtype.is_float()
                else frame[c].null_count()
            )
        )
    }
    if bad:
        raise DataError(
            f"Predictions of {name!r} hold NaN, infinite or missing values: {bad} of {frame.height} rows.",
            hint="A model that answers NaN is broken: see its training log. Leave unlabelled rows out.",
        )
    if frame.select("symbol", "event_timestamp").is_duplicated().any():
        raise DataError(
            f"Predictions of {name!r} hold a bar of a symbol twice.",
            hint="Pass one model at a time, each bar from one fold only.",
        )
    total = frame.select(pl.sum_horizontal(*PROBABILITIES)).to_series()
    negative = frame.select((pl.min_horizontal(*PROBABILITIES) < -1e-9).any()).item()
    if negative or float((total - 1.0).abs().max()) > 1e-3:  # type: ignore[arg-type]
        raise DataError(
            f"Probabilities of {name!r} are no distribution: sums from {total.min()!r} to {total.max()!r}.",
            hint="p_sell, p_hold and p_buy must be at least 0 and sum to 1.",
        )
    if not frame["label"].is_between(0, 2).all():
        raise DataError(
            f"Labels of {name!r} go beyond 0 SELL, 1 HOLD, 2 BUY.", hint="Fit the thresholds first."
        )
    if (frame["label_end_timestamp"] <= frame["event_timestamp"]).any():
        raise DataError(
            f"A label of {name!r} ends no later than the bar it is decided on.",
            hint="label_end_timestamp is the close of the bar in which the exit trades.",
        )
    return frame


def probabilities(frame: pl.DataFrame) -> np.ndarray:
    """(n, 3) float64 in the order SELL, HOLD, BUY, each row summing to exactly 1."""
    p = np.clip(frame.select(PROBABILITIES).to_numpy().astype(np.float64), 0.0, None)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def actions(frame: pl.DataFrame) -> np.ndarray:
    """(n,) int8: the class of the largest probability (the lower class number on a tie)."""
    return np.asarray(np.argmax(probabilities(frame), axis=1).astype(np.int8))


def signals(
    frame: pl.DataFrame, *, exit_only: bool = False, min_confidence: float = 0.0, sized: bool = False
) -> np.ndarray:
    """(n,) float64 position each row asks for: +1 BUY, 0 HOLD, -1 SELL (0 with `exit_only`).

    Args:
        min_confidence: a BUY or SELL with less confidence asks for nothing.
        sized: multiply by the model's `position_size` in [0, 1].
    """
    side = actions(frame).astype(np.float64) - 1.0
    if exit_only:
        side = np.maximum(side, 0.0)
    if min_confidence > 0:
        side = np.where(frame["confidence"].to_numpy() >= min_confidence, side, 0.0)
    if sized:
        side = side * np.clip(frame["position_size"].to_numpy(), 0.0, 1.0)
    return np.asarray(side)


def score(frame: pl.DataFrame) -> np.ndarray:
    """(n,) float64: p_buy - p_sell, the direction a model leans to."""
    p = probabilities(frame)
    return np.asarray(p[:, BUY] - p[:, SELL])


def newest(times: pl.Series) -> datetime:
    """The latest of a column of times; the column must not be empty."""
    return _time(times, times.max())


def oldest(times: pl.Series) -> datetime:
    """The earliest of a column of times; the column must not be empty."""
    return _time(times, times.min())


def _time(times: pl.Series, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise DataError(f"Expected a column of times, got {times.dtype} holding {value!r}.")
    return value


def sample(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` of the rows, the same ones each time, in their order."""
    if rows.height <= most:
        return rows
    at = np.random.default_rng(0).choice(rows.height, most, replace=False)
    return rows[np.sort(at)]

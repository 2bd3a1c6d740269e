"""Feature frames and configurations for tests of the feature store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from barcast.config import Config

NAMES = [f"f{i:02d}" for i in range(8)]
CROSS = NAMES[3:5]
START = datetime(2024, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
LOOKBACK = 6


def make_features(
    symbols: list[str],
    num_rows: int,
    *,
    seed: int = 0,
    start: datetime = START,
    delay: timedelta = timedelta(0),
) -> pl.DataFrame:
    """Random features, one row each five minutes, known `delay` after the close."""
    rng = np.random.default_rng(seed)
    parts = []
    for symbol in symbols:
        times = [start + STEP * i for i in range(num_rows)]
        keys = pl.DataFrame(
            {
                "symbol": [symbol] * num_rows,
                "event_timestamp": times,
                "created_timestamp": [t + delay for t in times],
            },
            schema={
                "symbol": pl.String,
                "event_timestamp": pl.Datetime("us", "UTC"),
                "created_timestamp": pl.Datetime("us", "UTC"),
            },
        )
        values = rng.normal(size=(num_rows, len(NAMES))).astype(np.float32)
        parts.append(keys.hstack(pl.DataFrame(values, schema=NAMES)))
    return pl.concat(parts)


def windows_of(features: pl.DataFrame, symbols: list[str]) -> np.ndarray:
    """The last look-back window of each symbol, float32 (n, T, F)."""
    return np.stack(
        [features.filter(pl.col("symbol") == s).tail(LOOKBACK).select(NAMES).to_numpy() for s in symbols]
    )


def make_config(**changes: Any) -> Config:
    """Five-minute crypto with a short look-back."""
    base = {
        "workspace": "small",
        "interval": "5m",
        "lookback_bars": LOOKBACK,
        "source": {"kind": "simulator"},
        "universe": {"calendar": "24/7"},
    }
    return Config.model_validate({**base, **changes})

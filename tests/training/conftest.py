"""A small market with something to learn, and models trained on it once."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast import datasets, labels, splits
from barcast.config.models import LabelsConfig, ModelConfig, SplitsConfig, TrainingConfig
from barcast.models import regime
from barcast.training import PlainSettings

LOOKBACK = 12


def make_bars(
    num_symbols: int = 3, num_bars: int = 500, seed: int = 0, drift_size: float = 0.01
) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    parts = []
    for number in range(num_symbols):
        # Returns with momentum: the sign of the drift holds for stretches, so that direction can be learned.
        drift = np.repeat(drift_size * rng.choice([-1, 1], size=num_bars // 20 + 1), 20)[:num_bars]
        close = 100 * np.exp(np.cumsum(drift + rng.normal(size=num_bars) * 0.01))
        open_ = close * np.exp(rng.normal(size=num_bars) * 0.001)
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [f"S{number}"] * num_bars,
                    "event_timestamp": [start + timedelta(days=i) for i in range(num_bars)],
                    "open": open_,
                    "high": np.maximum(open_, close) * 1.002,
                    "low": np.minimum(open_, close) * 0.998,
                    "close": close,
                    "volume": rng.lognormal(8, 1, num_bars),
                }
            )
        )
    return pl.concat(parts).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))


def make_features(bars: pl.DataFrame) -> pl.DataFrame:
    r = pl.col("close").log().diff().over("symbol")
    return bars.with_columns(r.alias("r")).select(
        "symbol",
        "event_timestamp",
        pl.col("event_timestamp").alias("created_timestamp"),
        pl.col("r").cast(pl.Float32),
        *[pl.col("r").rolling_sum(k).over("symbol").cast(pl.Float32).alias(f"r{k}") for k in (3, 5, 8, 12)],
        pl.col("r").rolling_std(10).over("symbol").cast(pl.Float32).alias("std10"),
        (pl.col("volume").log() * 100).cast(pl.Float32).alias("volume"),
        pl.lit(3.0, dtype=pl.Float32).alias("constant"),
    )


def make_dataset(bars: pl.DataFrame, features: pl.DataFrame | None = None) -> datasets.Dataset:
    outcomes = labels.make(bars, horizon_bars=3)
    return datasets.build(
        make_features(bars) if features is None else features,
        outcomes,
        lookback_bars=LOOKBACK,
        regimes=regime.rules(bars),
    )


@pytest.fixture(scope="session")
def market() -> pl.DataFrame:
    return make_bars()


@pytest.fixture(scope="session")
def dataset(market: pl.DataFrame) -> datasets.Dataset:
    return make_dataset(market)


@pytest.fixture(scope="session")
def fold(dataset: datasets.Dataset) -> splits.Fold:
    return splits.holdout(dataset.rows, SplitsConfig())


@pytest.fixture(scope="session")
def small() -> PlainSettings:
    return PlainSettings(
        labels=LabelsConfig(),
        model=ModelConfig(
            lstm_units=(12, 8), attention_heads=2, attention_key_dim=4, dense_units=(8, 6), symbol_capacity=8
        ),
        training=TrainingConfig(max_epochs=6, batch_size=64, learning_rate=5e-3, transfer_epochs=3),
        horizon_bars=3,
        lookback_bars=LOOKBACK,
        seed=5,
    )


@pytest.fixture(scope="session")
def universal(
    dataset: datasets.Dataset, fold: splits.Fold, small: PlainSettings, tmp_path_factory: Any
) -> Any:
    from barcast.training import train_universal

    return train_universal(dataset, fold, small, Path(tmp_path_factory.mktemp("universal")))


@pytest.fixture(scope="session")
def linear(dataset: datasets.Dataset, fold: splits.Fold, small: PlainSettings) -> Any:
    from barcast.training import train_linear

    return train_linear(dataset, fold, small)


@pytest.fixture(scope="session")
def tools() -> Any:
    """The builders above, for tests that need another market."""
    return dataclasses.make_dataclass("Tools", ["bars", "features", "dataset"])(
        make_bars, make_features, make_dataset
    )

"""Baselines that every run is measured against: buy-and-hold, persistence, LightGBM. (The linear one is a
model.)

Each takes the rows of the evaluation window (any model's predictions frame) and gives a predictions frame of
the same rows, so that all are scored alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from barcast.errors import DataError
from barcast.evaluation import frames

BUY_AND_HOLD, PERSISTENCE, LIGHTGBM = "buy_and_hold", "persistence", "lightgbm"


def class_prior(labels: np.ndarray) -> np.ndarray:
    """(3,) shares of the classes with one row of each added, so that none is impossible."""
    count = np.bincount(labels.astype(np.int64), minlength=3) + 1.0
    return np.asarray(count / count.sum())


def with_probabilities(rows: pl.DataFrame, probabilities: np.ndarray, name: str) -> pl.DataFrame:
    """`rows` with another model's probabilities (n, 3); what only a network answers is set to neutral
    values.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return rows.with_columns(
        pl.Series("p_sell", p[:, 0]),
        pl.Series("p_hold", p[:, 1]),
        pl.Series("p_buy", p[:, 2]),
        pl.Series("confidence", p.max(axis=1)),
        pl.lit(0.0).alias("uncertainty"),
        pl.lit(0.0).alias("expected_return"),
        pl.lit(1.0).alias("position_size"),
        pl.lit(name).alias("model"),
    )


def buy_and_hold(rows: pl.DataFrame, *, prior: np.ndarray | None = None) -> pl.DataFrame:
    """Always BUY: half the probability on BUY, half spread as the training shares of the classes."""
    rows = frames.check(rows)
    prior = class_prior(rows["label"].to_numpy()) if prior is None else prior
    p = 0.5 * np.array([0.0, 0.0, 1.0]) + 0.5 * prior
    return with_probabilities(rows, np.tile(p, (rows.height, 1)), BUY_AND_HOLD)


def persistence(
    rows: pl.DataFrame, *, labels: pl.DataFrame | None = None, prior: np.ndarray | None = None
) -> pl.DataFrame:
    """What happened last happens again: the symbol's newest label that had ended when the row's bar closed.

    Half the probability stands on that class, half is spread as `prior`; a row before any ended label gets
    `prior`.

    Args:
        labels: symbol, label_end_timestamp, label of the history (training rows too); `rows` where absent.
    """
    rows = frames.check(rows)
    history = rows if labels is None else labels
    prior = class_prior(history["label"].drop_nulls().to_numpy()) if prior is None else prior
    ended = (
        history.select(
            "symbol",
            pl.col("label_end_timestamp").cast(frames.TIME).alias("known"),
            pl.col("label").cast(pl.Int8).alias("last"),
        )
        .drop_nulls()
        .sort("known")
    )
    joined = (
        rows.select("symbol", "event_timestamp")
        .with_row_index("order")
        .sort("event_timestamp")
        .join_asof(
            ended,
            left_on="event_timestamp",
            right_on="known",
            by="symbol",
            strategy="backward",
            check_sortedness=False,
        )
        .sort("order")
    )
    last = joined["last"].fill_null(-1).to_numpy()
    p = np.tile(prior, (rows.height, 1))
    known = last >= 0
    p[known] = 0.5 * np.eye(3)[last[known]] + 0.5 * prior
    return with_probabilities(rows, p, PERSISTENCE)


def lightgbm(
    rows: pl.DataFrame,
    features: pl.DataFrame,
    train: pl.DataFrame,
    feature_names: Sequence[str],
    *,
    num_rounds: int = 150,
    seed: int = 7,
    weight: str | None = None,
) -> pl.DataFrame:
    """Gradient-boosted trees on the newest feature row (no window), trained on `train` only.

    Args:
        rows: evaluation rows.
        features: symbol, event_timestamp and `feature_names` of the evaluation rows.
        train: feature_names and `label` of the training rows (their labels ended before the window).
        weight: column of `train` with sample weights.

    Raises:
        DataError: no training rows, one class only, or evaluation rows without features.
    """
    rows = frames.check(rows)
    model = fit_lightgbm(train, feature_names, num_rounds=num_rounds, seed=seed, weight=weight)
    joined = rows.select("symbol", "event_timestamp").join(
        features, on=["symbol", "event_timestamp"], how="left", maintain_order="left"
    )
    x = joined.select(pl.col(list(feature_names)).cast(pl.Float32)).to_numpy()
    if np.isnan(x).all(axis=1).any():
        raise DataError(
            f"{int(np.isnan(x).all(axis=1).sum())} evaluation rows have no features.",
            hint="Pass the features frame of the whole evaluation window.",
        )
    return with_probabilities(rows, np.asarray(model.predict(x)), LIGHTGBM)


# Fewer training rows than this are quicker on one thread.
_ONE_THREAD_ROWS = 20_000


def fit_lightgbm(
    train: pl.DataFrame,
    feature_names: Sequence[str],
    *,
    num_rounds: int = 150,
    seed: int = 7,
    weight: str | None = None,
) -> Any:
    """The booster behind the baseline: 31 leaves, 5% rate, row and column sampling, deterministic under
    `seed`.
    """
    import lightgbm as lgb

    labels = train["label"].to_numpy()
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            f"LightGBM needs two classes to learn from; {train.height} rows hold {present.tolist()}.",
            hint="Train on a longer span or narrow the label thresholds.",
        )
    data = lgb.Dataset(
        train.select(pl.col(list(feature_names)).cast(pl.Float32)).to_numpy(),
        label=labels,
        weight=None if weight is None else train[weight].to_numpy(),
        free_raw_data=True,
    )
    settings = {
        "objective": "multiclass",
        "num_class": 3,
        "num_leaves": 31,
        "learning_rate": 0.05,
        "min_data_in_leaf": 50,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        # Threads that wait for one another crawl where cores are shared: only much work is worth them.
        "num_threads": 1 if train.height < _ONE_THREAD_ROWS else 0,
        "verbosity": -1,
    }
    return lgb.train(settings, data, num_boost_round=num_rounds)

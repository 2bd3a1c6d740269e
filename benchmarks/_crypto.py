"""The shared 5-minute crypto bars as a dataset, and the measures of the honest report, shared by its benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

DAY = 86_400_000_000
BARS_A_YEAR = 365 * 288
COSTS_BPS = (0.0, 2.0, 5.0, 10.0)


def load_bars(folder: Path, last: int) -> pl.DataFrame:
    """The last bars of every symbol, stamped at their close."""
    parts = []
    for file in sorted(folder.glob("*.parquet")):
        close = (pl.col("timestamp").cast(pl.Datetime("us", "UTC")) + timedelta(minutes=5)).alias(
            "event_timestamp"
        )
        known = (close, close.alias("created_timestamp"))
        factors = (pl.lit(1.0).alias("price_factor"), pl.lit(1.0).alias("volume_factor"))
        prices = ("open", "high", "low", "close", "volume")
        frame = pl.read_parquet(file).tail(last)
        parts.append(frame.select(pl.lit(file.stem).alias("symbol"), *known, *prices, *factors))
    return pl.concat(parts)


def features_of(bars: pl.DataFrame, cache: Path, every: int) -> pl.DataFrame:
    """Every n-th computed feature of the bars, from `cache` where they were computed before."""
    from barcast import datasets, features
    from barcast.bars import Calendar

    file = cache / f"features-{bars.height}-{every}.parquet"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        found = features.compute(bars, interval="5m", calendar=Calendar.of("24/7"))
        names = [c for c in found.columns if c not in datasets.KEYS]
        found.select(*datasets.KEYS, *names[::every]).write_parquet(file)
    return pl.read_parquet(file)


def dataset_of(
    bars: pl.DataFrame, computed: pl.DataFrame, horizon: int, *, labels_config: Any = None, stride: int = 0
) -> Any:
    """Rows `stride` bars apart (a horizon when 0: outcomes do not overlap), the same moments for all symbols."""
    from barcast import datasets, labels
    from barcast.models import regime

    outcomes = labels.make(bars, horizon_bars=horizon, config=labels_config)
    dataset = datasets.build(computed, outcomes, lookback_bars=60, regimes=regime.rules(bars))
    bar = dataset.rows["event_timestamp"].dt.epoch("s").to_numpy() // 300
    return dataset.take(np.flatnonzero(bar % (stride or horizon) == 0))


def last_bars(dataset: Any, rows: np.ndarray) -> np.ndarray:
    """(n, F) features of each row's last bar."""
    return np.asarray(dataset.features[dataset.window_end[rows]])


LIGHTGBM = {"learning_rate": 0.03, "num_leaves": 31, "min_data_in_leaf": 200, "feature_fraction": 0.5}
LIGHTGBM |= {"seed": 7, "num_threads": int(os.environ.get("OMP_NUM_THREADS", "2")), "verbose": -1}


def lightgbm_answers(dataset: Any, fold: Any, label: np.ndarray, columns: Any = slice(None)) -> np.ndarray:
    """(n, 3) of the test rows: trees on the last bar's features, stopped early on the validation rows."""
    import lightgbm as lgb

    def x(rows: np.ndarray) -> np.ndarray:
        return last_bars(dataset, rows)[:, columns]

    train = lgb.Dataset(x(fold.train), label[fold.train])
    stop = lgb.Dataset(x(fold.validation), label[fold.validation])
    params = {**LIGHTGBM, "objective": "multiclass", "num_class": 3}
    quiet = [lgb.early_stopping(30, verbose=False)]
    model = lgb.train(params, train, 300, valid_sets=[stop], callbacks=quiet)
    return np.asarray(model.predict(x(fold.test)))


def accuracy(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    """Share of rows whose likeliest class came true."""
    return float((p.argmax(axis=1) == label).mean())


def mcc(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    """Matthews correlation of the likeliest class with the true one."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(label, p.argmax(axis=1)))


def rank_ic(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    """Spearman correlation of P(BUY) - P(SELL) with the outcome."""
    from scipy.stats import rankdata

    score = p[:, 2] - p[:, 0]
    return float(np.corrcoef(rankdata(score), rankdata(outcome))[0, 1]) if np.ptp(score) > 0 else 0.0


def ece(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    """Expected calibration error of the top class over ten equal-count bands."""
    top, right = p.max(axis=1), p.argmax(axis=1) == label
    bands = np.array_split(np.argsort(top), 10)
    return float(sum(len(b) * abs(top[b].mean() - right[b].mean()) for b in bands) / len(top))


MEASURES = (accuracy, mcc, rank_ic, ece)


def resampled(blocks: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Row positions of `samples` draws of whole blocks, all symbols together."""
    random = np.random.default_rng(7)
    order = np.argsort(blocks, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)
    for _ in range(samples):
        yield np.concatenate([parts[i] for i in random.integers(0, len(parts), len(parts))])


def with_interval(
    measure: Callable[..., float], blocks: np.ndarray, *columns: np.ndarray, samples: int = 300
) -> tuple[float, float, float]:
    """The measure, and its 95% interval over resampled blocks."""
    found = [measure(*(c[at] for c in columns)) for at in resampled(blocks, samples)]
    low, high = np.quantile(found, [0.025, 0.975])
    return measure(*columns), float(low), float(high)


def book(
    position: np.ndarray, outcome: np.ndarray, times: np.ndarray, cost_bps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Net return of the equal-weighted book at each decision time, and the times.

    Each decision opens its position and closes it a horizon later, so both sides pay.
    """
    net = position * np.expm1(outcome) - 2 * np.abs(position) * cost_bps * 1e-4
    moments, index = np.unique(times, return_inverse=True)
    return np.bincount(index, net) / np.bincount(index), moments


def sharpe(returns: np.ndarray, per_year: float) -> float:
    """Yearly Sharpe ratio; 0 without any variation."""
    spread = returns.std()
    return float(returns.mean() / spread * np.sqrt(per_year)) if spread > 0 else 0.0


def microseconds(dataset: Any, rows: np.ndarray) -> np.ndarray:
    """Times of rows as whole microseconds."""
    return np.asarray(dataset.rows["event_timestamp"].dt.timestamp("us").to_numpy()[rows])

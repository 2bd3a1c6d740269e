"""What the models are worth on real 5-minute bars: purged walk-forward, after costs, with confidence intervals.

Network, ensemble, linear and LightGBM on the same rows and classes; MCC, rank IC, ECE, net Sharpe at 0, 2, 5 and
10 bps a side. Intervals come from resampling whole days of all symbols together. Decisions are `horizon` bars apart,
so that their outcomes do not overlap. Needs the shared crypto bars; usage:
`python benchmarks/honest.py [--bars 12000] [--horizon 12] [--folds 2] [--features 60]`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, os.path.dirname(__file__))
from _common import report, row, shared_data

COSTS_BPS = (0.0, 2.0, 5.0, 10.0)


def load_bars(folder: Path, last: int) -> pl.DataFrame:
    """The last bars of every symbol, stamped at their close."""
    parts = []
    for file in sorted(folder.glob("*.parquet")):
        frame = pl.read_parquet(file).tail(last)
        close = (pl.col("timestamp").cast(pl.Datetime("us", "UTC")) + timedelta(minutes=5)).alias(
            "event_timestamp"
        )
        parts.append(
            frame.select(
                pl.lit(file.stem).alias("symbol"),
                close,
                close.alias("created_timestamp"),
                "open",
                "high",
                "low",
                "close",
                "volume",
                pl.lit(1.0).alias("price_factor"),
                pl.lit(1.0).alias("volume_factor"),
            )
        )
    return pl.concat(parts)


def dataset_of(bars: pl.DataFrame, horizon: int, stride: int, width: int) -> Any:
    """Rows `stride` bars apart, with the first `width` of the computed features of each category in turn."""
    from barcast import datasets, features, labels
    from barcast.bars import Calendar
    from barcast.models import regime

    computed = features.compute(bars, interval="5m", calendar=Calendar.of("24/7"))
    names = [c for c in computed.columns if c not in ("symbol", "event_timestamp", "created_timestamp")]
    kept = names[:: max(1, len(names) // width)]
    computed = computed.select("symbol", "event_timestamp", "created_timestamp", *kept)
    outcomes = labels.make(bars, horizon_bars=horizon)
    dataset = datasets.build(computed, outcomes, lookback_bars=60, regimes=regime.rules(bars))
    minute = dataset.rows["event_timestamp"].dt.epoch("s").to_numpy() // 300
    return dataset.take(np.flatnonzero(minute % stride == 0))


def lightgbm_answers(dataset: Any, fold: Any, label: np.ndarray) -> np.ndarray:
    """(n, 3) of the test rows: trees on the last bar's features, stopped early on the validation rows."""
    import lightgbm as lgb

    def x(rows: np.ndarray) -> np.ndarray:
        return np.asarray(dataset.features[dataset.window_end[rows]])

    params = {
        "objective": "multiclass",
        "num_class": 3,
        "learning_rate": 0.03,
        "num_leaves": 31,
        "verbose": -1,
    }
    params |= {"min_data_in_leaf": 200, "feature_fraction": 0.5, "seed": 7, "num_threads": 2}
    train = lgb.Dataset(x(fold.train), label[fold.train])
    stop = lgb.Dataset(x(fold.validation), label[fold.validation])
    model = lgb.train(
        params, train, 300, valid_sets=[stop], callbacks=[lgb.early_stopping(30, verbose=False)]
    )
    return np.asarray(model.predict(x(fold.test)))


def mcc(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(label, p.argmax(axis=1)))


def rank_ic(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(p[:, 2] - p[:, 0]), rankdata(outcome))[0, 1])


def ece(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    """Expected calibration error of the top class over ten equal-count bands."""
    top, right = p.max(axis=1), p.argmax(axis=1) == label
    bands = np.array_split(np.argsort(top), 10)
    return float(sum(len(b) * abs(top[b].mean() - right[b].mean()) for b in bands) / len(top))


def accuracy(p: np.ndarray, label: np.ndarray, outcome: np.ndarray) -> float:
    return float((p.argmax(axis=1) == label).mean())


def with_interval(
    measure: Callable[..., float], days: np.ndarray, *columns: np.ndarray, samples: int = 200
) -> tuple[float, float, float]:
    """The measure, and its 95% interval over resampled days."""
    random = np.random.default_rng(7)
    whole = measure(*columns)
    parts = [np.flatnonzero(days == d) for d in np.unique(days)]
    found = []
    for _ in range(samples):
        at = np.concatenate([parts[i] for i in random.integers(0, len(parts), len(parts))])
        found.append(measure(*(c[at] for c in columns)))
    low, high = np.quantile(found, [0.025, 0.975])
    return whole, float(low), float(high)


def net_sharpe(
    position: np.ndarray, outcome: np.ndarray, times: np.ndarray, cost_bps: float, per_year: float
) -> tuple[float, float, float]:
    """Yearly Sharpe of the equal-weighted book with its interval; each decision opens and closes its position."""
    net = position * np.expm1(outcome) - 2 * np.abs(position) * cost_bps * 1e-4
    _, index = np.unique(times, return_inverse=True)
    book = np.bincount(index, net) / np.bincount(index)
    days = np.unique(times) // 86_400_000_000

    def sharpe(returns: np.ndarray) -> float:
        return float(returns.mean() / (returns.std() + 1e-12) * np.sqrt(per_year))

    return with_interval(sharpe, days, book)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=12_000, help="Last bars of each symbol.")
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--features", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    data = shared_data()
    if data is None:
        raise SystemExit("The shared crypto bars are not here; set BARCAST_SHARED_DATA.")
    from barcast import splits
    from barcast.config.models import SplitsConfig, TrainingConfig
    from barcast.training import PlainSettings, train_ensemble, train_linear, train_universal

    bars = load_bars(data / "crypto_5m", args.bars)
    dataset = dataset_of(bars, args.horizon, args.horizon, args.features)
    settings = PlainSettings(
        training=TrainingConfig(max_epochs=args.epochs),
        horizon_bars=args.horizon,
        splits=SplitsConfig(folds=args.folds),
    )
    answers: dict[str, list[np.ndarray]] = {
        name: [] for name in ("network", "ensemble", "linear", "lightgbm")
    }
    tested, labels = [], []
    for fold in splits.walk_forward(dataset.rows, settings.splits):
        with tempfile.TemporaryDirectory() as folder:
            linear = train_linear(dataset, fold, settings)
            network = train_universal(
                dataset, fold, settings, Path(folder), thresholds=linear.info.thresholds
            )
        ensemble = train_ensemble(network, linear, dataset, fold, settings)
        label = dataset.classes(linear.info.thresholds).astype(int)
        for name, model in (("network", network), ("ensemble", ensemble), ("linear", linear)):
            answers[name].append(model.answers(dataset, fold.test)["probabilities"])
        answers["lightgbm"].append(lightgbm_answers(dataset, fold, label))
        tested.append(fold.test)
        labels.append(label[fold.test])
        print(
            f"fold {fold.index}: {len(fold.train)} training rows, {len(fold.test)} test rows", file=sys.stderr
        )
    rows, label = np.concatenate(tested), np.concatenate(labels)
    outcome = dataset.column("forward_log_return")[rows]
    times = dataset.rows["event_timestamp"].dt.timestamp("us").to_numpy()[rows]
    days = times // 86_400_000_000
    per_year = 365 * 288 / args.horizon
    results = []
    majority = float(np.bincount(label, minlength=3).max() / len(label))
    print(f"\n{len(rows)} test rows, {len(np.unique(days))} days, majority class {majority:.3f}")
    print(f"{'':10} {'measure':>14} {'value':>8}   95% interval")
    for name, parts in answers.items():
        p = np.concatenate(parts)
        for measure in (accuracy, mcc, rank_ic, ece):
            value, low, high = with_interval(measure, days, p, label, outcome)
            print(f"{name:10} {measure.__name__:>14} {value:8.4f}   [{low:.4f}, {high:.4f}]")
            results.append(row(f"{name} {measure.__name__} [{low:.3f}, {high:.3f}]", value, None, ""))
        position = (p.argmax(axis=1) == 2).astype(float) - (p.argmax(axis=1) == 0)
        for cost in COSTS_BPS:
            value, low, high = net_sharpe(position, outcome, times, cost, per_year)
            print(f"{name:10} {f'sharpe {cost:g} bps':>14} {value:8.2f}   [{low:.2f}, {high:.2f}]")
            results.append(
                row(f"{name} net Sharpe {cost:g} bps [{low:.1f}, {high:.1f}]", value, None, "a year")
            )
    report("honest", results)


if __name__ == "__main__":
    main()

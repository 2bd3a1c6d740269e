"""Trying to do better on real 5-minute bars, in the open: every variant tried is a line, and all are counted.

Horizons, label schemes, features, one model for all symbols or one for each, rules of acting, and costs in the
network's loss. Each trial is judged on the same walk-forward test months as `honest.py`, decisions a horizon apart, at
2 basis points a side; training rows are an hour apart at most and weighted by uniqueness. The best one's Sharpe ratio
is then deflated by the number of trials. Needs the shared crypto bars; finished trials are kept in `--cache`. Usage:
`python benchmarks/trials.py [--bars 52416] [--folds 4] [--every 3]`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from _common import report, row, shared_data
from _crypto import (
    BARS_A_YEAR,
    DAY,
    LIGHTGBM,
    book,
    dataset_of,
    features_of,
    last_bars,
    load_bars,
    mcc,
    microseconds,
    rank_ic,
    sharpe,
    with_interval,
)

COST_BPS = 2.0
# Coarser than in the honest report: four folds of many trials must fit into minutes.
QUICK = {**LIGHTGBM, "objective": "multiclass", "num_class": 3, "learning_rate": 0.06, "max_bin": 63}


@dataclass(frozen=True)
class Trial:
    """One thing tried.

    Attributes:
        rule: how probabilities become a position: `class` (the likeliest one), `confident` (it, where the validation
            rows' most decided tenth begins), `neutral` (each moment's symbols against their mean).
    """

    name: str
    horizon: int = 12
    labels: dict[str, Any] = field(default_factory=dict)
    model: str = "lightgbm"
    categories: tuple[str, ...] = ()
    rule: str = "class"
    loss: dict[str, Any] = field(default_factory=dict)


# In the order in which they were tried; the last ones cost most.
TRIALS = (
    Trial("LightGBM, 1 hour (where we start)"),
    Trial("horizon 4 hours", horizon=48),
    Trial("horizon 1 day", horizon=288),
    Trial("symbols against each other, 4 hours", horizon=48, rule="neutral"),
    Trial("act on the most decided tenth, 4 hours", horizon=48, rule="confident"),
    Trial("triple barrier, 4 hours at most", horizon=48, labels={"scheme": "triple_barrier"}),
    Trial("price and volume features only, 4 hours", horizon=48, categories=("ohlcv", "price_action")),
    Trial("one model for each symbol, 4 hours", horizon=48, model="per symbol"),
    Trial("HOLD for 60% of rows, 4 hours", horizon=48, labels={"hold_share": 0.6}),
    Trial("symbols against each other, 1 hour", rule="neutral"),
    Trial("act on the most decided tenth, 1 hour", rule="confident"),
    Trial("linear, 4 hours", horizon=48, model="linear"),
    Trial("network, 4 hours", horizon=48, model="network"),
    Trial(
        "network, costs first in the loss, 4 hours",
        horizon=48,
        model="network",
        loss={"class_weight": 0.3, "profit_weight": 1.0, "cost_bps": COST_BPS},
    ),
    Trial("horizon 15 minutes", horizon=3),
)


def trees(dataset: Any, fold: Any, label: np.ndarray, weight: np.ndarray, columns: Any) -> Any:
    """A function that answers rows, fitted on the fold's training rows and stopped early on its validation rows."""
    import lightgbm as lgb

    def x(rows: np.ndarray) -> np.ndarray:
        return last_bars(dataset, rows)[:, columns]

    train = lgb.Dataset(x(fold.train), label[fold.train], weight=weight)
    stop = lgb.Dataset(x(fold.validation), label[fold.validation])
    quiet = [lgb.early_stopping(20, verbose=False)]
    params = QUICK if len(fold.train) > 5000 else {**QUICK, "min_data_in_leaf": 50, "num_leaves": 15}
    model = lgb.train(params, train, 150, valid_sets=[stop], callbacks=quiet)
    return lambda rows: np.asarray(model.predict(x(rows)))


def fitted(trial: Trial, dataset: Any, fold: Any, settings: Any) -> tuple[Any, np.ndarray]:
    """A function from rows to probabilities, and every row's class."""
    from barcast import datasets, features, labels
    from barcast.training import common, train_linear, train_universal

    thresholds = labels.fit_thresholds(dataset.rows[fold.train], settings.labels)
    label = dataset.classes(thresholds).astype(int)
    if trial.model == "linear":
        linear = train_linear(dataset, fold, settings, thresholds=thresholds)
        return lambda rows: linear.answers(dataset, rows)["probabilities"], label
    if trial.model == "network":
        with tempfile.TemporaryDirectory() as folder:
            network = train_universal(dataset, fold, settings, Path(folder), thresholds=thresholds)
        return lambda rows: network.answers(dataset, rows)["probabilities"], label
    wanted = {
        s.name for s in features.catalogue("5m") if not trial.categories or s.category in trial.categories
    }
    columns = np.flatnonzero([name in wanted for name in dataset.feature_names])
    if trial.model == "lightgbm":
        return trees(dataset, fold, label, datasets.uniqueness(dataset, fold.train), columns), label
    each = {}
    for number, symbol in enumerate(dataset.symbols, 1):
        mine = common.of_symbol(dataset, fold, symbol)
        each[number] = trees(dataset, mine, label, datasets.uniqueness(dataset, mine.train), columns)

    def answer(rows: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), 3))
        for number, model in each.items():
            own = dataset.symbol_id[rows] == number
            if own.any():
                found[own] = model(rows[own])
        return found

    return answer, label


def position_of(rule: str, p: np.ndarray, times: np.ndarray, limit: float) -> np.ndarray:
    """Positions in [-1, 1] of rows with these probabilities."""
    score = p[:, 2] - p[:, 0]
    if rule == "neutral":
        _, index = np.unique(times, return_inverse=True)
        off = score - (np.bincount(index, score) / np.bincount(index))[index]
        size = (np.bincount(index, np.abs(off)) / np.bincount(index))[index]
        return np.asarray(np.clip(off / np.maximum(size, 1e-12), -2, 2) / 2)
    if rule == "confident":
        return np.sign(score) * (np.abs(score) >= limit)
    return (p.argmax(axis=1) == 2).astype(float) - (p.argmax(axis=1) == 0)


def run(trial: Trial, bars: Any, computed: Any, folds: int) -> dict[str, Any]:
    """One trial over all folds: measures, and the net return of each day of its book."""
    from barcast import splits
    from barcast.config.models import LabelsConfig, LossConfig, SelectionConfig, SplitsConfig, TrainingConfig
    from barcast.training import PlainSettings

    began = time.perf_counter()
    settings = PlainSettings(
        labels=LabelsConfig(**trial.labels),
        training=TrainingConfig(
            max_epochs=6,
            max_epoch_rows=5000,
            loss=LossConfig(**trial.loss),
            selection=SelectionConfig(enabled=False),
        ),
        splits=SplitsConfig(folds=folds),
        horizon_bars=trial.horizon,
    )
    stride = min(12, trial.horizon)
    dataset = dataset_of(bars, computed, trial.horizon, labels_config=settings.labels, stride=stride)
    bar = microseconds(dataset, np.arange(len(dataset))) // 300_000_000
    parts: dict[str, list[np.ndarray]] = {k: [] for k in ("p", "label", "outcome", "times", "position")}
    for fold in splits.walk_forward(dataset.rows, settings.splits):
        answer, label = fitted(trial, dataset, fold, settings)
        rows = fold.test[bar[fold.test] % trial.horizon == 0]
        before = answer(fold.validation)
        limit = float(np.quantile(np.abs(before[:, 2] - before[:, 0]), 0.9))
        p, times = answer(rows), microseconds(dataset, rows)
        found = (p, label[rows], dataset.column("forward_log_return")[rows], times)
        for name, values in zip(parts, (*found, position_of(trial.rule, p, times, limit)), strict=True):
            parts[name].append(values)
    p, label, outcome, times, position = (np.concatenate(values) for values in parts.values())
    days = times // DAY
    per_year = BARS_A_YEAR / trial.horizon
    returns, moments = book(position, outcome, times, COST_BPS)
    net, low, high = with_interval(lambda r: sharpe(r, per_year), moments // DAY, returns)
    gross = float((position * np.expm1(outcome)).sum() / max(np.abs(position).sum(), 1e-12) * 1e4)
    _, day = np.unique(moments // DAY, return_inverse=True)
    return {
        "name": trial.name,
        "rows": len(p),
        "mcc": mcc(p, label, outcome),
        "rank_ic": list(with_interval(rank_ic, days, p, label, outcome)),
        "acted": float(np.abs(position).mean()),
        "gross_bps": gross,
        "net_sharpe": [net, low, high],
        "daily": np.bincount(day, returns).tolist(),
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=52_416, help="Last bars of each symbol.")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--every", type=int, default=3, help="Use every n-th of the computed features.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "barcast-honest")
    parser.add_argument("--only", default="", help="Run trials whose name holds this text; the rest as kept.")
    args = parser.parse_args()
    data = shared_data()
    if data is None:
        raise SystemExit("The shared crypto bars are not here; set BARCAST_SHARED_DATA.")
    from barcast.evaluation.sharpe import deflated_sharpe, probabilistic_sharpe

    bars = load_bars(data / "crypto_5m", args.bars)
    computed = features_of(bars, args.cache, args.every)
    args.cache.mkdir(parents=True, exist_ok=True)
    found = []
    for number, trial in enumerate(TRIALS):
        file = args.cache / f"trial-{args.bars}-{args.folds}-{args.every}-{number}.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        if kept.get("name") != trial.name and args.only in trial.name:
            kept = run(trial, bars, computed, args.folds)
            file.write_text(json.dumps(kept))
            print(f"{trial.name}: {kept['seconds']:.0f} s", file=sys.stderr, flush=True)
        if kept.get("name") == trial.name:
            found.append(kept)
    print(
        "\n| tried | rank IC | MCC | acts on | gross, bps a trade | net Sharpe at 2 bps |\n|---|---|---|---|---|---|"
    )
    for f in found:
        ic, net = f["rank_ic"], f["net_sharpe"]
        print(
            f"| {f['name']} | {ic[0]:+.3f} ({ic[1]:+.3f} to {ic[2]:+.3f}) | {f['mcc']:+.3f} | {f['acted']:.0%} "
            f"| {f['gross_bps']:+.1f} | {net[0]:+.1f} ({net[1]:+.1f} to {net[2]:+.1f}) |"
        )
    best = max(found, key=lambda f: f["net_sharpe"][0])
    daily = np.array(best["daily"])
    each = np.array([np.mean(f["daily"]) / max(np.std(f["daily"], ddof=1), 1e-12) for f in found])
    alone = probabilistic_sharpe(daily)
    deflated = deflated_sharpe(daily, num_trials=len(found), trial_sharpes=each)
    print(
        f"\nBest of {len(found)}: {best['name']}. Chance that its true Sharpe ratio is above zero: {alone:.2f} "
    )
    print(f"if it had been the only one tried, {deflated:.2f} knowing that it is the best of {len(found)}.")
    results = [row(f"{f['name']}: net Sharpe at 2 bps", f["net_sharpe"][0], None, "a year") for f in found]
    results += [row(f"{f['name']}: rank IC", f["rank_ic"][0], None, "") for f in found]
    results += [
        row("trials counted", float(len(found)), None, ""),
        row("deflated Sharpe of the best", deflated, None, "probability"),
    ]
    report("trials", results)


if __name__ == "__main__":
    main()

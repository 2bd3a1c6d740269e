"""What the models are worth on real 5-minute bars: purged walk-forward, after costs, with confidence intervals.

Network, ensemble, linear and LightGBM on the same rows and classes; accuracy, MCC, rank IC (of the classes, and of the
expected return), ECE, net Sharpe at 0, 2, 5 and 10 bps a side. Intervals come from resampling whole days of all symbols
together. Decisions are `horizon` bars apart, so that their outcomes do not overlap. To be affordable, all models read
every third feature (no selection) and the network draws `--epoch-rows` training rows an epoch. Needs the shared crypto
bars. Answers of a finished fold are kept in `--cache`, so that a broken run goes on. Usage:
`python benchmarks/honest.py [--bars 52416] [--horizon 12] [--folds 4] [--epoch-rows 5000] [--every 3]`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from _common import report, row, shared_data
from _crypto import (
    BARS_A_YEAR,
    COSTS_BPS,
    DAY,
    MEASURES,
    book,
    dataset_of,
    features_of,
    lightgbm_answers,
    load_bars,
    microseconds,
    sharpe,
    with_interval,
)

MODELS = ("network", "ensemble", "linear", "lightgbm")


def answers_of(dataset: Any, fold: Any, settings: Any, file: Path) -> dict[str, np.ndarray]:
    """Each model's (n, 3) of the fold's test rows, the returns that "MODEL return" expects, and their `label`.

    From `file` where it is there.
    """
    if file.exists():
        with np.load(file) as stored:
            return dict(stored)
    from barcast.training import train_ensemble, train_linear, train_universal

    began = time.perf_counter()
    linear = train_linear(dataset, fold, settings)
    label = dataset.classes(linear.info.thresholds).astype(int)
    found = {"lightgbm": lightgbm_answers(dataset, fold, label), "label": label[fold.test]}
    with tempfile.TemporaryDirectory() as folder:
        network = train_universal(
            dataset, fold, settings, Path(folder), thresholds=linear.info.thresholds, progress=say
        )
    models = {"network": network, "linear": linear}
    models["ensemble"] = train_ensemble(network, linear, dataset, fold, settings)
    for name, model in models.items():
        said = model.answers(dataset, fold.test)
        found[name], found[f"{name} return"] = said["probabilities"], said["expected_return"]
    counts = f"{len(fold.train)} training rows, {len(fold.test)} test rows"
    say(f"fold {fold.index}: {counts}, {time.perf_counter() - began:.0f} s")
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **found)
    return found


def order(expected: np.ndarray, outcome: np.ndarray) -> float:
    """Spearman correlation of expected returns with outcomes."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(expected), rankdata(outcome))[0, 1])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=52_416, help="Last bars of each symbol.")
    parser.add_argument("--horizon", type=int, default=12, help="Bars.")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--epoch-rows", type=int, default=5000, help="Rows the network draws an epoch.")
    parser.add_argument("--every", type=int, default=3, help="Use every n-th of the computed features.")
    parser.add_argument("--kept", action="store_true", help="Report the folds that are kept; train none.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "barcast-honest")
    args = parser.parse_args()
    data = shared_data()
    if data is None:
        raise SystemExit("The shared crypto bars are not here; set BARCAST_SHARED_DATA.")
    from barcast import splits
    from barcast.config.models import SelectionConfig, SplitsConfig, TrainingConfig
    from barcast.training import PlainSettings

    bars = load_bars(data / "crypto_5m", args.bars)
    dataset = dataset_of(bars, features_of(bars, args.cache, args.every), args.horizon)
    settings = PlainSettings(
        training=TrainingConfig(
            max_epochs=args.epochs,
            max_epoch_rows=args.epoch_rows,
            selection=SelectionConfig(enabled=False),
        ),
        horizon_bars=args.horizon,
        splits=SplitsConfig(folds=args.folds),
    )
    say(f"{len(dataset)} rows of {len(dataset.symbols)} symbols, {dataset.num_features} features")
    answers: dict[str, list[np.ndarray]] = defaultdict(list)
    tested = []
    for fold in splits.walk_forward(dataset.rows, settings.splits):
        key = f"{args.bars}-{args.horizon}-{args.folds}-{args.epochs}-{args.epoch_rows}-{args.every}-{fold.index}"
        file = args.cache / f"fold-{key}.npz"
        if args.kept and not file.exists():
            continue
        for name, values in answers_of(dataset, fold, settings, file).items():
            answers[name].append(values)
        tested.append(fold.test)
    rows, label = np.concatenate(tested), np.concatenate(answers.pop("label"))
    outcome, times = dataset.column("forward_log_return")[rows], microseconds(dataset, rows)
    days = times // DAY
    per_year = BARS_A_YEAR / args.horizon
    results = []
    majority = float(np.bincount(label, minlength=3).max() / len(label))
    print(f"\n{len(rows)} test rows, {len(np.unique(days))} days, commonest class {majority:.3f}\n")
    print("| | " + " | ".join(MODELS) + " |\n|---|" + "---|" * len(MODELS))
    whole = {name: np.concatenate(parts) for name, parts in answers.items()}
    for measure in MEASURES:
        cells = []
        for name in MODELS:
            value, low, high = with_interval(measure, days, whole[name], label, outcome)
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
            results.append(row(f"{name} {measure.__name__} [{low:.3f}, {high:.3f}]", value, None, ""))
        print(f"| {measure.__name__} | " + " | ".join(cells) + " |")
    cells = []
    for name in MODELS:
        if f"{name} return" not in whole:  # of classes alone
            cells.append("")
            continue
        value, low, high = with_interval(order, days, whole[f"{name} return"], outcome)
        cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        results.append(row(f"{name} rank IC of expected return [{low:.3f}, {high:.3f}]", value, None, ""))
    print("| rank IC of the expected return | " + " | ".join(cells) + " |")
    for cost in COSTS_BPS:
        cells = []
        for name in MODELS:
            p = whole[name]
            position = (p.argmax(axis=1) == 2).astype(float) - (p.argmax(axis=1) == 0)
            returns, moments = book(position, outcome, times, cost)
            value, low, high = with_interval(lambda r: sharpe(r, per_year), moments // DAY, returns)
            cells.append(f"{value:.1f} ({low:.1f} to {high:.1f})")
            label_of = f"{name} net Sharpe {cost:g} bps [{low:.1f}, {high:.1f}]"
            results.append(row(label_of, value, None, "a year"))
        print(f"| net Sharpe, {cost:g} bps a side | " + " | ".join(cells) + " |")
    report("honest", results)


if __name__ == "__main__":
    main()

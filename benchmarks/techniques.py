"""Techniques on top of the laptop network, each with its effect: masked pre-training, a distilled student, INT8.

Log loss and accuracy on held-out rows, size of the weights and of the exported folder, latency of one window. The peer
is the plain network in the same run. Uses the packaged daily sample with the computed features. Usage:
`python benchmarks/techniques.py [--features 60]`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from _common import report, row


def sample(width: int) -> Any:
    """The packaged daily stocks as a dataset with about `width` features, spread over the categories."""
    from barcast import datasets, features, labels
    from barcast.bars import Calendar, adjusted
    from barcast.bars.sources import open_source
    from barcast.config import Config
    from barcast.models import regime

    config = Config()
    calendar = Calendar.of(config.universe.calendar)
    source = open_source(config.source, interval=config.interval, calendar=config.universe.calendar)
    bars = adjusted(source.fetch(None))
    computed = features.compute(bars, interval=config.interval, calendar=calendar)
    names = [c for c in computed.columns if c not in datasets.KEYS]
    computed = computed.select(*datasets.KEYS, *names[:: max(1, len(names) // width)])
    times = bars["event_timestamp"]
    expected = calendar.close_times(times.min(), times.max(), config.interval)
    outcomes = labels.make(bars, horizon_bars=config.horizon_bars, expected_times=expected)
    return datasets.build(
        computed, outcomes, lookback_bars=60, regimes=regime.rules(bars), expected_times=expected
    )


def folder_bytes(path: Path) -> int:
    """Bytes of the graph and its variables."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and "assets.extra" not in f.parts)


def latency_ms(path: Path, window: np.ndarray) -> float:
    """Median time of one window's answer through the exported signature."""
    from barcast.models import savedmodel

    ids = np.zeros(1, np.int32)
    for _ in range(10):
        savedmodel.predict(path, window, ids)
    found = []
    for _ in range(100):
        began = time.perf_counter()
        savedmodel.predict(path, window, ids)
        found.append(time.perf_counter() - began)
    return float(np.median(found) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    from barcast import splits
    from barcast.config.models import TrainingConfig
    from barcast.training import PlainSettings, compression, train_universal
    from barcast.training.compare import scores

    dataset = sample(args.features)
    fold = splits.holdout(dataset.rows)
    plain = PlainSettings(training=TrainingConfig(max_epochs=args.epochs))
    pretrained = PlainSettings(training=TrainingConfig(max_epochs=args.epochs, pretrain_epochs=4))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = train_universal(dataset, fold, plain, folder / "plain")
        models = {
            "network": network,
            "masked pre-training": train_universal(dataset, fold, pretrained, folder / "pretrained"),
            "distilled student": compression.distil(network, dataset, fold, plain),
            "INT8 weights": compression.quantise_int8(network),
        }
        label = dataset.classes(network.info.thresholds)
        lines = {}
        for title, model in models.items():
            path = model.export(folder / title.replace(" ", "-"))
            lines[title] = {
                **scores(model, dataset, fold.test, label),
                "weights_bytes": compression.weight_bytes(model),
                "export_bytes": folder_bytes(path),
                "latency_ms": latency_ms(path, dataset.windows(fold.test[:1])),
            }
    columns = list(lines["network"])
    print(f"{'':20} " + " ".join(f"{c:>13}" for c in columns))
    for title, line in lines.items():
        print(f"{title:20} " + " ".join(f"{line[c]:13.5g}" for c in columns))
    units = {"log_loss": "nats", "accuracy": "", "weights_bytes": "bytes", "latency_ms": "ms"}
    report(
        "techniques",
        [
            row(f"{title}: {c}", line[c], lines["network"][c], unit, higher_is_better=c == "accuracy")
            for title, line in lines.items()
            for c, unit in units.items()
        ],
    )


if __name__ == "__main__":
    main()

"""Techniques on top of the laptop network, each with its effect on skill, size and latency.

Masked pre-training, curriculum and adversarial training; a distilled student, INT8 weights, and both. Log loss and
accuracy on held-out rows, the gain in log loss over the plain network of the same run with its 95% interval from blocks
of calendar time, size of the weights and of the exported folder, latency of one window. On the packaged daily sample,
where there is next to nothing to know, or with `--crypto` on the shared 5-minute bars a quarter of an hour ahead, where
there is a little. Usage: `python benchmarks/techniques.py [--crypto] [--features 40] [--epochs 6] [--epoch-rows 4000]
[--every 3]`.
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
from _common import report, row, shared_data


def sample(width: int) -> Any:
    """The packaged daily stocks as a dataset with about `width` features, spread over the categories."""
    from barcast import datasets, features, labels
    from barcast.bars import adjusted, calendars_of
    from barcast.bars.calendars import expected_closes
    from barcast.bars.sources import open_source
    from barcast.config import Config
    from barcast.models import regime

    config = Config()
    calendars = calendars_of(config)
    source = open_source(config.source, interval=config.interval, calendar=config.universe.calendar)
    bars = adjusted(source.fetch(None))
    computed = features.compute(bars, interval=config.interval, calendar=calendars)
    names = [c for c in computed.columns if c not in datasets.KEYS]
    computed = computed.select(*datasets.KEYS, *names[:: max(1, len(names) // width)])
    expected = expected_closes(bars, config.interval, calendars)
    outcomes = labels.make(bars, horizon_bars=config.horizon_bars, expected_times=expected)
    return datasets.build(
        computed, outcomes, lookback_bars=60, regimes=regime.rules(bars), expected_times=expected
    )


def crypto(every: int, cache: Path) -> Any:
    """The shared 5-minute bars, 15 minutes ahead, decisions an hour apart, every n-th computed feature."""
    from _crypto import dataset_of, features_of, load_bars

    data = shared_data()
    if data is None:
        raise SystemExit("The shared crypto bars are not here; set BARCAST_SHARED_DATA.")
    bars = load_bars(data / "crypto_5m", 52_416)
    return dataset_of(bars, features_of(bars, cache, every), 3, stride=12)


def folder_bytes(path: Path) -> int:
    """Bytes of the graph and its variables."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and "assets.extra" not in f.parts)


def latencies_ms(paths: dict[str, Path], window: np.ndarray) -> dict[str, float]:
    """Median time of one window's answer through each exported signature, asked in turn."""
    from barcast.models import savedmodel

    ids = np.zeros(1, np.int32)
    found: dict[str, list[float]] = {title: [] for title in paths}
    for _ in range(110):
        for title, path in paths.items():
            began = time.perf_counter()
            savedmodel.predict(path, window, ids)
            found[title].append(time.perf_counter() - began)
    return {title: float(np.median(times[10:]) * 1e3) for title, times in found.items()}


def row_losses(model: Any, dataset: Any, rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log loss of each row."""
    p = model.answers(dataset, rows)["probabilities"]
    return np.asarray(-np.log(np.clip(p[np.arange(len(p)), label[rows].astype(int)], 1e-12, None)))


def trained(dataset: Any, fold: Any, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The plain network and each technique's model."""
    from barcast.config.models import SelectionConfig, TrainingConfig
    from barcast.training import PlainSettings, compression, quantise, train_universal

    selection = SelectionConfig(enabled=False)
    plain = {"max_epochs": args.epochs, "max_epoch_rows": args.epoch_rows, "selection": selection}
    ways: dict[str, dict[str, Any]] = {
        "network": {},
        "masked pre-training": {"pretrain_epochs": 3},
        "curriculum": {"curriculum_epochs": args.epochs // 2},
        "adversarial training": {"adversarial_size": 0.05},
    }
    models = {}
    for title, options in ways.items():
        began = time.perf_counter()
        settings = PlainSettings(training=TrainingConfig(**plain, **options))
        models[title] = train_universal(dataset, fold, settings, folder / title)
        print(f"{title}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    network = models["network"]
    student = compression.distil(network, dataset, fold, PlainSettings(training=TrainingConfig(**plain)))
    models |= {"distilled student": student, "INT8 weights": quantise.quantise_int8(network)}
    models["student in INT8"] = quantise.quantise_int8(student)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--epoch-rows", type=int, default=4000, help="Training rows drawn each epoch.")
    parser.add_argument("--every", type=int, default=3, help="Every n-th decision, or with --crypto feature.")
    parser.add_argument("--crypto", action="store_true", help="The shared 5-minute bars.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "barcast-honest")
    args = parser.parse_args()
    from barcast import splits
    from barcast.evaluation import bootstrap
    from barcast.training.compare import scores
    from barcast.training.quantise import weight_bytes

    if args.crypto:
        dataset = crypto(args.every, args.cache)
    else:
        dataset = sample(args.features)
        # Decisions of the same days for all symbols, so that every span is thinned alike.
        days = dataset.rows["event_timestamp"].dt.date().rank("dense").to_numpy()
        dataset = dataset.take(np.flatnonzero(days % args.every == 0))
    fold = splits.holdout(dataset.rows)
    block_days = bootstrap.block_length_days(dataset.rows[fold.test], 5)
    times = dataset.rows["event_timestamp"].dt.timestamp("us").to_numpy()[fold.test]
    lines: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = trained(dataset, fold, args, folder)
        label = dataset.classes(models["network"].info.thresholds)
        plain = row_losses(models["network"], dataset, fold.test, label)
        paths = {title: model.export(folder / f"export {title}") for title, model in models.items()}
        latencies = latencies_ms(paths, dataset.windows(fold.test[:1]))
        for title, model in models.items():
            gain = bootstrap.paired(
                plain - row_losses(model, dataset, fold.test, label), times, block_days=block_days
            )
            lines[title] = {
                **scores(model, dataset, fold.test, label),
                "gain": gain.mean,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "weights_bytes": weight_bytes(model),
                "export_bytes": folder_bytes(paths[title]),
                "latency_ms": latencies[title],
            }
    print(f"\n{len(fold.train)} training and {len(fold.test)} test rows\n")
    print(
        "| | log loss | gain over the network | accuracy | rank IC | weights, KiB | export, KiB | one window, ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for title, f in lines.items():
        gained = (
            "" if title == "network" else f"{f['gain']:+.4f} ({f['gain_low']:+.4f} to {f['gain_high']:+.4f})"
        )
        print(
            f"| {title} | {f['log_loss']:.4f} | {gained} | {f['accuracy']:.3f} | {f['rank_ic']:+.3f} "
            f"| {f['weights_bytes'] / 1024:.0f} | {f['export_bytes'] / 1024:.0f} | {f['latency_ms']:.2f} |"
        )
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

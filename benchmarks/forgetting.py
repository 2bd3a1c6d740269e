"""Forgetting: accuracy on an old regime before and after learning a new one, by each continual method.

A simulated market in which the meaning of a signal turns round makes forgetting visible; plain fine-tuning is the peer.
The commonest class is the accuracy of knowing nothing. Usage: `python benchmarks/forgetting.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, os.path.dirname(__file__))
from _common import report, row

LOOKBACK, HORIZON = 20, 3


def market(bars: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars and features of three symbols in which a signal drives the price: the same way first, the other way later.

    Both halves have the same volatility and the same share of each class; one feature tells which half it is.
    """
    rng = np.random.default_rng(seed)
    prices, features = [], []
    for number in range(3):
        signal = np.repeat(rng.choice([-1.0, 1.0], bars // 15 + 1), 15)[:bars]
        sense = np.where(np.arange(bars) < bars // 2, 1.0, -1.0)
        returns = np.roll(0.006 * sense * signal, 1) + rng.normal(size=bars) * 0.009
        close = 100 * np.exp(np.cumsum(returns))
        start = datetime(2020, 1, 1, tzinfo=UTC)
        times = pl.Series([start + timedelta(hours=i) for i in range(bars)]).cast(pl.Datetime("us", "UTC"))
        keys = {"symbol": [f"S{number}"] * bars, "event_timestamp": times}
        same = dict.fromkeys(("open", "high", "low", "close"), close)
        prices.append(pl.DataFrame({**keys, **same, "volume": np.ones(bars)}))
        noise = rng.normal(size=(3, bars)) * 0.3
        seen = {
            "signal": signal + noise[0],
            "sense": sense + noise[1],
            "nothing": noise[2],
            "r": returns * 100,
        }
        floats = {name: values.astype(np.float32) for name, values in seen.items()}
        features.append(pl.DataFrame({**keys, "created_timestamp": times, **floats}))
    return pl.concat(prices), pl.concat(features)


def accuracy(model: Any, dataset: Any, rows: np.ndarray) -> float:
    p = model.answers(dataset, rows)["probabilities"]
    return float((p.argmax(axis=1) == dataset.classes(model.info.thresholds)[rows]).mean())


def main() -> None:
    from barcast import datasets, labels
    from barcast.config.models import ModelConfig, TrainingConfig
    from barcast.splits import Fold
    from barcast.training import PlainSettings, continual, train_universal

    bars, features = market(3000, seed=3)
    dataset = datasets.build(features, labels.make(bars, horizon_bars=HORIZON), lookback_bars=LOOKBACK)
    times = dataset.rows["event_timestamp"].rank("dense").to_numpy()
    edges = np.quantile(times, [0.35, 0.4, 0.45, 0.5, 0.85, 0.9, 0.95])
    spans = np.digitize(times, edges)
    span = [np.flatnonzero(spans == i) for i in range(8)]
    old = Fold(0, span[0], span[1], span[2], span[3])
    new = Fold(1, span[4], span[5], span[6], span[7])
    settings = PlainSettings(
        model=ModelConfig(lstm_units=(24, 16), attention_heads=2, attention_key_dim=8, dense_units=(16, 8)),
        training=TrainingConfig(
            max_epochs=12, batch_size=128, learning_rate=3e-3, transfer_learning_rate=3e-3
        ),
        horizon_bars=HORIZON,
        lookback_bars=LOOKBACK,
    )
    with tempfile.TemporaryDirectory() as folder:
        model = train_universal(dataset, old, settings, Path(folder))
    before_old, before_new = accuracy(model, dataset, old.test), accuracy(model, dataset, new.test)
    print(f"{'method':14} {'old before':>10} {'old after':>10} {'new before':>10} {'new after':>10}")
    found = {}
    for method in continual.METHODS:
        after = continual.update(model, dataset, new, settings, old_rows=old.train, method=method, epochs=8)
        found[method] = (accuracy(after, dataset, old.test), accuracy(after, dataset, new.test))
        print(
            f"{method:14} {before_old:10.3f} {found[method][0]:10.3f} {before_new:10.3f} {found[method][1]:10.3f}"
        )
    label = dataset.classes(model.info.thresholds).astype(int)
    commonest = [float(np.bincount(label[rows]).max() / len(rows)) for rows in (old.test, new.test)]
    print(f"{'commonest class':25} {commonest[0]:10.3f} {'':10} {commonest[1]:10.3f}")
    plain = found["plain"]
    report(
        "forgetting",
        [
            row(f"{what} after learning the new, {method}", values[i], plain[i], "accuracy")
            for method, values in found.items()
            for i, what in enumerate(("old regime", "new regime"))
        ]
        + [
            row(f"commonest class, {what} regime", commonest[i], None, "share")
            for i, what in enumerate(("old", "new"))
        ],
    )


if __name__ == "__main__":
    main()

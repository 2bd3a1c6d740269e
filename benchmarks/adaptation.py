"""A regime change, simulated: how soon the learning shadow follows, and what learning can cost when nothing changes.

    python benchmarks/adaptation.py [--outcomes 1500]

A small network (the real one, tiny sizes) is trained where a feature's drift predicts the class. Then outcomes
come in one by one. `change`: the sign turns round after a third. `no change`: it never does. The frozen champion is the
peer; both answer each outcome before learning from it. Reaction time is the number of outcomes after the change until
the shadow's accuracy over the last 100 is above the champion's by ten points. The bound: a batch of unseen outcomes on
which the shadow is worse by more than `revert_margin` sends it back, so its mean log loss may exceed the champion's by
little more than that.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _common import report, row

from barcast.config.decisions import LearningConfig
from barcast.serving.online import Samples, Shadow

T, F, BATCH = 8, 6, 50


def outcomes(rng: np.random.Generator, count: int, sign: float) -> Samples:
    """Windows whose first feature drifts with a hidden state; the class follows it by `sign`, with noise."""
    windows = rng.standard_normal((count, T, F)).astype(np.float32)
    state = rng.standard_normal(count)
    windows[:, :, 0] += state[:, None].astype(np.float32)
    score = sign * state + rng.normal(0, 0.5, count)
    labels = np.digitize(score, (-0.4, 0.4)).astype(np.int64)
    return Samples(windows, np.zeros(count, np.int32), labels, np.ones(count))


def joined(parts: list[Samples]) -> Samples:
    """One after the other."""
    return Samples(
        *(
            np.concatenate([getattr(p, n) for p in parts])
            for n in ("windows", "symbol_ids", "labels", "weights")
        )
    )


def champion(rng: np.random.Generator) -> tuple[Any, Samples]:
    """A trained model (as `training` makes it) and its training rows."""
    import keras
    import tensorflow as tf

    from barcast.config.models import ModelConfig
    from barcast.labels import Thresholds
    from barcast.models.network import Network
    from barcast.models.presets import architecture
    from barcast.training import ModelInfo, TrainedModel

    keras.utils.set_random_seed(1)
    shape = architecture(ModelConfig(preset="laptop"), num_features=F, lookback_bars=T)
    network = Network(shape, seed=1).build_once()
    train = outcomes(rng, 3000, 1.0)
    optimiser = keras.optimizers.Adam(3e-3)
    variables = network.trainable_variables

    @tf.function
    def step(windows: Any, ids: Any, labels: Any) -> None:
        with tf.GradientTape() as tape:
            logits = network(windows, ids, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        optimiser.apply_gradients([(g, v) for g, v in pairs if g is not None])

    for _ in range(12):
        order = rng.permutation(len(train))
        for start in range(0, len(order) - 63, 64):
            part = train.take(order[start : start + 64])
            step(part.windows, part.symbol_ids, part.labels)
    names = tuple(f"f{i}" for i in range(F))
    info = ModelInfo("network", None, names, (), T, 5, Thresholds(-0.5, 0.5), 1, "2020-01-01T00:00:00")
    return TrainedModel(network, info, {"mean": np.zeros(F), "scale": np.ones(F)}), train


def run(
    model: Any, train: Samples, stream: list[Samples], folder: Path, config: LearningConfig
) -> tuple[Any, Any]:
    """(N, 3) probabilities of frozen champion and guarded shadow, each given before its outcome is learnt."""
    from barcast.training import TrainedModel

    model.save(folder / "champion")
    shadow = Shadow(
        folder / "shadow", "bench.universal/1", lambda: TrainedModel.load(folder / "champion"), config
    )
    frozen, guarded, seen = [], [], []
    for part in stream:
        frozen.append(shadow.probabilities(part, of_champion=True))
        guarded.append(shadow.probabilities(part))
        seen.append(part)
        so_far = joined(seen)
        shadow.learn(so_far, pl.Series("key", [str(i) for i in range(len(so_far))]), train)
    return np.concatenate(frozen), np.concatenate(guarded)


def reaction(frozen: Any, guarded: Any, labels: Any, change: int) -> int | None:
    """Outcomes after the change until the shadow leads by ten points over 100."""
    better = (guarded.argmax(1) == labels).astype(float) - (frozen.argmax(1) == labels)
    for end in range(change + 100, len(labels) + 1):
        if better[end - 100 : end].mean() >= 0.10:
            return end - change
    return None


def loss(p: Any, labels: Any) -> float:
    """Mean log loss, nats."""
    return float(-np.log(np.clip(p[np.arange(len(labels)), labels], 1e-9, 1)).mean())


def main() -> None:
    """Both worlds, frozen and guarded in the same run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=int, default=1500)
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    config = LearningConfig(learning_rate=2e-3, drift_bound=0.5)
    model, train = champion(rng)
    results, change = [], options.outcomes // 3 // BATCH * BATCH
    for world in ("change", "no change"):
        stream = [
            outcomes(rng, BATCH, -1.0 if world == "change" and at >= change else 1.0)
            for at in range(0, options.outcomes, BATCH)
        ]
        labels = joined(stream).labels
        with tempfile.TemporaryDirectory() as folder:
            frozen, guarded = run(model, train, stream, Path(folder), config)
        after = slice(change, None)
        ours, peer = loss(guarded[after], labels[after]), loss(frozen[after], labels[after])
        results.append(
            row(f"{world}: log loss (shadow / frozen)", ours, peer, "nats", higher_is_better=False)
        )
        hit = [float((p[after].argmax(1) == labels[after]).mean()) for p in (guarded, frozen)]
        results.append(row(f"{world}: accuracy (shadow / frozen)", *hit, "share"))
        worst = max(
            loss(guarded[:n], labels[:n]) - loss(frozen[:n], labels[:n]) for n in range(200, len(labels), 50)
        )
        results.append(
            row(
                f"{world}: worst excess of mean log loss (margin {config.revert_margin})", worst, None, "nats"
            )
        )
        if world == "change":
            found = reaction(frozen, guarded, labels, change)
            results.append(row("outcomes until the shadow leads", found, None, "outcomes"))
    report("adaptation", results)


if __name__ == "__main__":
    main()

"""Curriculum and adversarial training: each an option of the one trainer that does what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from barcast.labels import Thresholds
from barcast.training import train_universal
from barcast.training.adversarial import attacked
from barcast.training.curriculum import curriculum_rows


def test_curriculum_begins_with_the_clearest_half_of_each_class() -> None:
    z = np.array([-3.0, -1.1, -2.0, -1.2, 0.0, 0.9, 0.5, -0.8, 4.0, 1.01])
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    arrays = {"forward_log_return": z * 0.02, "volatility": np.full(10, 0.02), "label": label}
    targets: Any = SimpleNamespace(arrays=arrays)
    rows = curriculum_rows(np.arange(10), targets, Thresholds(-1.0, 1.0), 4)
    random = np.random.default_rng(0)
    assert sorted(rows(0, random)) == [0, 2, 4, 6, 8]
    assert sorted(rows(2, random)) == [0, 2, 3, 4, 6, 7, 8, 9]
    assert sorted(rows(4, random)) == sorted(rows(9, random)) == list(range(10))
    assert list(rows(4, random)) != list(rows(4, random))


def test_an_attack_raises_the_loss_more_than_noise_of_its_size(
    universal: Any, dataset: Any, fold: Any
) -> None:
    import tensorflow as tf

    rows = fold.test[:200]
    window, ids = tf.constant(dataset.windows(rows)), tf.constant(universal.symbol_ids(dataset)[rows])
    label = tf.constant(dataset.classes(universal.info.thresholds)[rows].astype(np.int32))
    size = 0.1 * universal.reference["scale"].astype(np.float32)

    def loss(moved: Any) -> float:
        p = universal.network.answer(moved, ids)["probabilities"].numpy()
        return float(-np.log(p[np.arange(len(p)), label.numpy()]).mean())

    moved = attacked(universal.network, window, ids, label, tf.constant(size))
    assert np.abs((moved - window).numpy() / size).max() < 1.01
    noise = np.random.default_rng(0).choice([-1, 1], window.shape).astype(np.float32) * size
    rise = loss(moved) - loss(window)
    assert rise > 5 * abs(loss(window + noise) - loss(window))


def test_both_train_when_configured(dataset: Any, fold: Any, small: Any, tmp_path: Path) -> None:
    config = small.training.model_copy(
        update={"max_epochs": 2, "curriculum_epochs": 2, "adversarial_size": 0.05}
    )
    model = train_universal(dataset, fold, replace(small, training=config), tmp_path)
    first, second = model.info.facts["epochs"]
    assert first["term"] > 0
    assert second["val_class"] < 1.2

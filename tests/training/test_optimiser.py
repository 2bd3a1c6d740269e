"""The optimiser's step on joined variables against Keras' own, one variable at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from barcast.config.models import TrainingConfig
from barcast.training.optimiser import JoinedUpdate, adamw


def variables() -> list[Any]:
    import keras

    random = np.random.default_rng(3)
    shapes = {"kernel": (4, 3), "bias": (3,), "embeddings": (5, 2), "gamma": (3,), "recurrent_kernel": (3, 6)}
    return [keras.Variable(random.normal(size=shape), name=name) for name, shape in shapes.items()]


@pytest.mark.parametrize(
    "changes", [{}, {"clip_norm": 0.01}, {"weight_decay": 0.5}, {"accumulate_steps": 2}], ids=str
)
def test_joined_step_equals_keras_own_for_each_variable(changes: dict[str, Any]) -> None:
    config = TrainingConfig(learning_rate=0.05, **changes)
    ours, theirs = variables(), variables()
    joined, plain = JoinedUpdate(adamw(config), ours), adamw(config)
    plain.build(theirs)
    random = np.random.default_rng(4)
    before = [np.array(v) for v in ours]
    for _ in range(6):
        gradients = [random.normal(size=v.shape).astype(np.float32) for v in ours]
        joined.apply(gradients)
        plain.apply_gradients(list(zip(gradients, theirs, strict=True)))
    for mine, other, start in zip(ours, theirs, before, strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(other), rtol=2e-5, atol=1e-6, err_msg=mine.name)
        assert not np.allclose(np.array(mine), start)


def test_a_variable_without_gradient_only_decays() -> None:
    config = TrainingConfig(learning_rate=0.05, weight_decay=0.1)
    ours = variables()
    before = [np.array(v) for v in ours]
    JoinedUpdate(adamw(config), ours).apply([None] * len(ours))
    for variable, start in zip(ours, before, strict=True):
        shrunk = 0.995 if "kernel" in variable.name else 1.0
        np.testing.assert_allclose(np.array(variable), shrunk * start, rtol=1e-5, err_msg=variable.name)

"""Learning rate over the steps of a run, and the optimiser itself."""

from __future__ import annotations

import math
from typing import Any

from barcast.config.models import TrainingConfig

# Variables with one of these in their name do not shrink towards zero.
KEEPS = ("bias", "gamma", "beta", "embeddings")


def learning_rate(
    step: int, total_steps: int, *, peak: float, warmup_share: float, last_share: float
) -> float:
    """Linear warm-up to `peak`, then a half cosine down to `last_share` of it (Loshchilov and Hutter, 2017)."""
    warmup = max(1, round(total_steps * warmup_share))
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return peak * (last_share + (1 - last_share) * 0.5 * (1 + math.cos(math.pi * done)))


def adamw(config: TrainingConfig) -> Any:
    """AdamW with decoupled decay on kernels only (Loshchilov and Hutter, 2019)."""
    import keras

    optimiser = keras.optimizers.AdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        gradient_accumulation_steps=config.accumulate_steps if config.accumulate_steps > 1 else None,
    )
    optimiser.exclude_from_weight_decay(var_names=list(KEEPS))
    if config.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimiser)
    return optimiser


class JoinedUpdate:
    """The optimiser's step on variables laid end to end (TensorFlow).

    Keras updates one variable at a time, with some fifty operations each; here it sees two vectors, one that its weight
    decay reaches and one that it does not.
    """

    def __init__(self, optimiser: Any, variables: list[Any]) -> None:
        self.optimiser, self.variables = optimiser, variables
        split: dict[str, list[int]] = {"decays": [], KEEPS[0]: []}
        for at, variable in enumerate(variables):
            split[KEEPS[0] if any(word in variable.name for word in KEEPS) else "decays"].append(at)
        self._vectors = [_Vector(at, variables, name=name) for name, at in split.items() if at]
        optimiser.build([vector.value for vector in self._vectors])

    def apply(self, gradients: list[Any]) -> None:
        """One step. A variable without a gradient (a head switched off by a zero weight) counts as one of zeros."""
        for vector in self._vectors:
            vector.value.assign(vector.joined(self.variables))
        self.optimiser.apply_gradients([(vector.joined(gradients), vector.value) for vector in self._vectors])
        for vector in self._vectors:
            vector.give_back(self.variables)


class _Vector:
    """The variables at some positions, end to end in one."""

    def __init__(self, positions: list[int], variables: list[Any], *, name: str) -> None:
        import keras
        import numpy as np

        self.positions = positions
        self.sizes = [int(np.prod(variables[at].shape)) for at in positions]
        self.value = keras.Variable(np.zeros(sum(self.sizes), np.float32), name=name)

    def joined(self, tensors: list[Any]) -> Any:
        """One vector of the tensors at the positions; zeros for None."""
        import tensorflow as tf

        parts = [
            tf.zeros([size]) if tensors[at] is None else tf.reshape(tf.convert_to_tensor(tensors[at]), [-1])
            for at, size in zip(self.positions, self.sizes, strict=True)
        ]
        return tf.concat(parts, axis=0)

    def give_back(self, variables: list[Any]) -> None:
        """Assign each variable its part."""
        import tensorflow as tf

        for at, part in zip(self.positions, tf.split(self.value.value, self.sizes), strict=True):
            variables[at].assign(tf.reshape(part, variables[at].shape))

"""One training step and one evaluation step on TensorFlow: gather windows, loss, gradient, update.

Normalised features and targets are put on the device once; a step receives row numbers only and gathers its windows
there, so that memory stays near the raw features. `training.steps_jax` does the same on JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from barcast.config.models import LossConfig
from barcast.datasets import Dataset
from barcast.models import losses
from barcast.training.optimiser import JoinedUpdate
from barcast.training.targets import Targets

# An extra term of the loss: (network, window, symbol_id, outputs, batch, rows) to a scalar.
Term = Callable[[Any, Any, Any, dict[str, Any], dict[str, Any], Any], Any]


def kernels(network: Any) -> list[Any]:
    """Trainable matrices, the only variables the L2 penalty reads."""
    return [v for v in network.trainable_variables if len(v.shape) > 1 and "embedding" not in v.path]


class TensorFlowSteps:
    """Compiled steps over one dataset; `begin` before `train`.

    Args:
        network: built model with `call(window, symbol_id, training)`.
        term: optional extra loss.
    """

    def __init__(
        self,
        network: Any,
        dataset: Dataset,
        targets: Targets,
        config: LossConfig,
        *,
        term: Term | None = None,
    ) -> None:
        import tensorflow as tf

        self.network, self.config, self.term = network, config, term
        # Normalised once, not once for each of the windows that read a bar.
        self.features = tf.constant(network.normalise.matrix(dataset.features))
        # Extra terms ask other networks, which normalise in their own way.
        self.raw = None if term is None else tf.constant(dataset.features)
        self.window_end = tf.constant(dataset.window_end.astype(np.int32))
        self.symbol_id = tf.constant(dataset.symbol_id)
        self.targets = {name: tf.constant(values) for name, values in targets.arrays.items()}
        self.offsets = tf.range(1 - dataset.lookback_bars, 1)
        self._spec = [tf.TensorSpec([None], tf.int32)]
        self._evaluate = tf.function(self._evaluate_step, input_signature=self._spec, autograph=False)

    def begin(self, optimiser: Any) -> None:
        """Train what is trainable now, with this optimiser; `evaluate` stays as it was compiled."""
        import tensorflow as tf

        self.optimiser, self.variables = optimiser, list(self.network.trainable_variables)
        self._update = JoinedUpdate(optimiser, self.variables)
        self._train = tf.function(self._train_step, input_signature=self._spec, autograph=False)

    def windows(self, features: Any, rows: Any) -> Any:
        """(B, T, F) of the given rows, gathered time first, as the recurrent layers read them."""
        import tensorflow as tf

        at = tf.gather(self.window_end, rows)[None, :] + self.offsets[:, None]
        return tf.transpose(tf.gather(features, at), (1, 0, 2))

    def _loss(self, rows: Any, training: bool) -> tuple[Any, dict[str, Any]]:
        import tensorflow as tf

        batch = {name: tf.gather(values, rows) for name, values in self.targets.items()}
        symbol_id = tf.gather(self.symbol_id, rows)
        outputs = self.network(
            self.windows(self.features, rows), symbol_id, training=training, normalised=True
        )
        found = losses.parts(outputs, batch, self.config)
        total = losses.combine(found, self.config)
        if training:
            total = total + self.config.l2 * losses.l2(kernels(self.network))
            if self.term is not None:
                window = self.windows(self.raw, rows)
                extra = self.term(self.network, window, symbol_id, outputs, batch, rows)
                found, total = {**found, "term": extra}, total + extra
        return total, found

    def _train_step(self, rows: Any) -> dict[str, Any]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total, found = self._loss(rows, training=True)
            scaled = self.optimiser.scale_loss(total)
        self._update.apply(tape.gradient(scaled, self.variables))
        return {"loss": total, **found}

    def _evaluate_step(self, rows: Any) -> dict[str, Any]:
        total, found = self._loss(rows, training=False)
        return {"loss": total, **found}

    def train(self, rows: np.ndarray) -> dict[str, Any]:
        """One update on these rows; scalars of the loss and its parts."""
        return dict(self._train(rows.astype(np.int32)))

    def epoch(self, batches: np.ndarray, rates: np.ndarray) -> dict[str, float]:
        """One update for each row of `batches` (n, B) at the learning rates (n,); mean loss and parts."""
        sums: dict[str, Any] = {}
        for rows, rate in zip(batches, rates, strict=True):
            self.optimiser.learning_rate.assign(rate)
            for name, value in self.train(rows).items():
                sums[name] = value if name not in sums else sums[name] + value
        return {name: float(value) / len(batches) for name, value in sums.items()}

    def evaluate(self, rows: np.ndarray, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss and parts over rows, without dropout."""
        sums: dict[str, float] = {}
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            for name, value in self._evaluate(part.astype(np.int32)).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {name: value / max(1, len(rows)) for name, value in sums.items()}

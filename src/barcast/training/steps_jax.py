"""The trainer's steps on JAX (KERAS_BACKEND=jax): the same loss and updates as on TensorFlow, for GPUs and TPUs.

Features and targets lie on the device; a step receives row numbers and gathers its windows there. After training,
`TrainedModel.save` writes the weights, which TensorFlow loads to export the served form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from barcast.config.models import LossConfig
from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.models import losses
from barcast.training.targets import Targets


class JaxSteps:
    """Compiled steps over one dataset; the same calls as `steps.TensorFlowSteps`, of which `begin` compiles all."""

    def __init__(
        self,
        network: Any,
        dataset: Dataset,
        targets: Targets,
        config: LossConfig,
        *,
        term: Any = None,
    ) -> None:

        if term is not None:
            raise ModelError(
                "Extra terms of the loss need the TensorFlow backend.", hint="Set KERAS_BACKEND=tensorflow."
            )
        self.network, self.dataset, self.targets, self.config = network, dataset, targets, config

    def begin(self, optimiser: Any) -> None:
        """Compile for what is trainable now, with this optimiser."""
        import jax
        import jax.numpy as jnp

        self.optimiser = optimiser
        network, dataset, targets, config = self.network, self.dataset, self.targets, self.config
        features = jnp.asarray(network.normalise.matrix(dataset.features))
        window_end = jnp.asarray(dataset.window_end)
        symbol_id = jnp.asarray(dataset.symbol_id)
        arrays = {name: jnp.asarray(values) for name, values in targets.arrays.items()}
        offsets = jnp.arange(1 - dataset.lookback_bars, 1)
        penalised = [
            i
            for i, v in enumerate(network.trainable_variables)
            if len(v.shape) > 1 and "embedding" not in v.path
        ]

        def loss(trained: Any, fixed: Any, rows: Any, training: bool) -> Any:
            window = features[window_end[rows][:, None] + offsets]
            batch = {name: values[rows] for name, values in arrays.items()}
            outputs, fixed = network.stateless_call(
                trained, fixed, window, symbol_id[rows], training=training, normalised=True
            )
            found = losses.parts(outputs, batch, config)
            total = losses.combine(found, config)
            if training:
                total = total + config.l2 * sum(jnp.sum(jnp.square(trained[i])) for i in penalised)
            return total, (found, fixed)

        def update(trained: Any, fixed: Any, state: Any, rows: Any) -> Any:
            (total, (found, fixed)), gradients = jax.value_and_grad(
                lambda t: loss(t, fixed, rows, True), has_aux=True
            )(trained)
            trained, state = optimiser.stateless_apply(state, gradients, trained)
            return trained, fixed, state, {"loss": total, **found}

        def evaluate(trained: Any, fixed: Any, rows: Any) -> Any:
            total, (found, _) = loss(trained, fixed, rows, False)
            return {"loss": total, **found}

        self._update, self._evaluate = jax.jit(update), jax.jit(evaluate)

    def _state(self) -> tuple[list[Any], list[Any]]:
        network = self.network
        return (
            [v.value for v in network.trainable_variables],
            [v.value for v in network.non_trainable_variables],
        )

    def train(self, rows: np.ndarray) -> dict[str, Any]:
        """One update on these rows; scalars of the loss and its parts."""
        trained, fixed = self._state()
        state = [v.value for v in self.optimiser.variables]
        trained, fixed, state, found = self._update(trained, fixed, state, rows)
        for variables, values in (
            (self.network.trainable_variables, trained),
            (self.network.non_trainable_variables, fixed),
            (self.optimiser.variables, state),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return dict(found)

    def evaluate(self, rows: np.ndarray, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss and parts over rows, without dropout."""
        sums: dict[str, float] = {}
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            for name, value in self._evaluate(*self._state(), part).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {name: value / max(1, len(rows)) for name, value in sums.items()}

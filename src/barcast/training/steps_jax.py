"""The trainer's steps on JAX (KERAS_BACKEND=jax): the same loss and updates as on TensorFlow, for GPUs and TPUs.

Features and targets lie on the device; an epoch receives row numbers, gathers its windows there and runs as one call,
since a step of a GPU is shorter than Python needs to ask for it. After training, `TrainedModel.save` writes the
weights, which TensorFlow loads to export the served form.
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
        optimiser.build(self.network.trainable_variables)
        network, dataset, config = self.network, self.dataset, self.config
        self.network_variables = network.trainable_variables, network.non_trainable_variables
        # Arguments of the compiled functions: as constants they would be copied into them.
        self.data = {
            "features": jnp.asarray(network.normalise.matrix(dataset.features)),
            "window_end": jnp.asarray(dataset.window_end.astype(np.int32)),
            "symbol_id": jnp.asarray(dataset.symbol_id),
            "targets": {name: jnp.asarray(values) for name, values in self.targets.arrays.items()},
        }
        offsets = np.arange(1 - dataset.lookback_bars, 1, dtype=np.int32)
        penalised = [
            i
            for i, v in enumerate(network.trainable_variables)
            if len(v.shape) > 1 and "embedding" not in v.path
        ]
        rate_at = next(i for i, v in enumerate(optimiser.variables) if v is optimiser.learning_rate)

        def loss(trained: Any, fixed: Any, data: Any, rows: Any, training: bool) -> Any:
            window = data["features"][data["window_end"][rows][:, None] + offsets]
            batch = {name: values[rows] for name, values in data["targets"].items()}
            outputs, fixed = network.stateless_call(
                trained, fixed, window, data["symbol_id"][rows], training=training, normalised=True
            )
            found = losses.parts(outputs, batch, config)
            total = losses.combine(found, config)
            if training:
                total = total + config.l2 * sum(jnp.sum(jnp.square(trained[i])) for i in penalised)
            return total, (found, fixed)

        def update(carried: Any, data: Any, rows: Any, rate: Any) -> Any:
            trained, fixed, state = carried
            (total, (found, fixed)), gradients = jax.value_and_grad(
                lambda t: loss(t, fixed, data, rows, True), has_aux=True
            )(trained)
            state = [*state[:rate_at], rate, *state[rate_at + 1 :]]
            trained, state = optimiser.stateless_apply(state, gradients, trained)
            return [trained, fixed, state], {"loss": total, **found}

        def updates(carried: Any, data: Any, batches: Any, rates: Any) -> Any:
            carried, found = jax.lax.scan(lambda c, at: update(c, data, *at), carried, (batches, rates))
            return carried, {name: jnp.mean(values) for name, values in found.items()}

        def evaluate(trained: Any, fixed: Any, data: Any, rows: Any) -> Any:
            total, (found, _) = loss(trained, fixed, data, rows, False)
            return {"loss": total, **found}

        self._updates, self._evaluate = jax.jit(updates), jax.jit(evaluate)

    def _state(self) -> list[list[Any]]:
        return [[v.value for v in variables] for variables in self.network_variables]

    def epoch(self, batches: np.ndarray, rates: np.ndarray) -> dict[str, float]:
        """One update for each row of `batches` (n, B) at the learning rates (n,), all in one call of the device.

        Gives the mean loss and parts.
        """
        carried = [*self._state(), [v.value for v in self.optimiser.variables]]
        carried, found = self._updates(carried, self.data, batches.astype(np.int32), rates.astype(np.float32))
        for variables, values in zip(
            (*self.network_variables, self.optimiser.variables), carried, strict=True
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return {name: float(value) for name, value in found.items()}

    def evaluate(self, rows: np.ndarray, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss and parts over rows, without dropout."""
        parts = [
            rows[start : start + batch_size].astype(np.int32) for start in range(0, len(rows), batch_size)
        ]
        state = self._state()
        # All asked for before the first is read, so that the device never waits.
        found = [self._evaluate(*state, self.data, part) for part in parts]
        sums: dict[str, float] = {}
        for part, values in zip(parts, found, strict=True):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {name: value / max(1, len(rows)) for name, value in sums.items()}

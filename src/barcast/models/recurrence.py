"""The LSTM as it is trained on TensorFlow and JAX: its steps have a gradient of their own.

Going back, each step only finds the gradient of its gates; that of the recurrent matrix is one product over all steps
afterwards, where automatic differentiation adds up a product of each step.

Axes: B batch, T time, F features, U units. Gates i, g, f, o.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def lstm(x: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
    """States (B, T, U) of an LSTM that starts from zeros, all in the type of x.

    Args:
        x: (B, T, F).
        kernel, recurrent, bias: (F, 4U), (U, 4U), (4U,).
    """
    # tanh(x) = 2 sigmoid(2x) - 1: with g doubled, one sigmoid does for all four gates.
    factors = np.repeat(np.array([1.0, 2.0, 1.0, 1.0], np.float32), int(recurrent.shape[0]))
    kernel, recurrent, bias = (v * ops.cast(factors, x.dtype) for v in (kernel, recurrent, bias))
    # Time first, so that each step is a contiguous slice.
    projected = ops.matmul(ops.transpose(x, (1, 0, 2)), kernel) + bias
    return ops.transpose(_steps(projected, recurrent), (1, 0, 2))


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _steps(projected: Any, recurrent: Any) -> Any:
    """(T, B, 4U) and (U, 4U), g doubled in both, to the states (T, B, U)."""
    units = int(recurrent.shape[0])
    zero = ops.zeros_like(projected[0, :, :units])

    def forward(carried: tuple[Any, ...], at: tuple[Any, ...]) -> Any:
        state, memory = carried
        gates = ops.sigmoid(at[0] + ops.matmul(state, recurrent))
        i, g, f, o = ops.split(gates, 4, axis=-1)
        memory = f * memory + i * (2 * g - 1)
        state = o * ops.tanh(memory)
        return (state, memory), (state, memory, gates)

    states, memories, gates = _over_time(forward, (zero, zero), (projected,))

    def gradient(*given: Any, upstream: Any = None) -> tuple[Any, Any]:
        wanted = given[0] if upstream is None else upstream
        back = ops.transpose(recurrent)

        def backward(carried: tuple[Any, ...], at: tuple[Any, ...]) -> Any:
            d_state, d_memory = carried
            gates, memory, before, d_answer = at
            i, g, f, o = ops.split(gates, 4, axis=-1)
            d_state, bent = d_state + d_answer, ops.tanh(memory)
            d_memory = d_memory + d_state * o * (1 - bent * bent)
            parts = [d_memory * (2 * g - 1), 2 * d_memory * i, d_memory * before, d_state * bent]
            d_projected = ops.concatenate(parts, axis=-1) * gates * (1 - gates)
            return (ops.matmul(d_projected, back), d_memory * f), (d_projected,)

        read = (gates, memories, _before(memories), wanted)
        (d_projected,) = _over_time(backward, (zero, zero), read, reverse=True)
        given_states, d_projected = _stacked(_before(states)), _stacked(d_projected)
        flat = ops.reshape(given_states, (-1, units)), ops.reshape(d_projected, (-1, 4 * units))
        return d_projected, ops.matmul(ops.transpose(flat[0]), flat[1])

    return _stacked(states), gradient


def _before(values: Any) -> Any:
    """Values of each time moved one step later, zeros first."""
    if isinstance(values, list):
        return [ops.zeros_like(values[0]), *values[:-1]]
    return ops.concatenate([ops.zeros_like(values[:1]), values[:-1]], axis=0)


def _stacked(values: Any) -> Any:
    """(T, ...) of the values of each time."""
    return ops.stack(values) if isinstance(values, list) else values


def _over_time(
    step: Callable[[tuple[Any, ...], tuple[Any, ...]], Any],
    carried: tuple[Any, ...],
    read: tuple[Any, ...],
    *,
    reverse: bool = False,
) -> Any:
    """What `step(carried, values of one time)` gives at each time: scanned and stacked on JAX, lists elsewhere."""
    if keras.backend.backend() == "jax":
        # On an H100 a training step took half as long as with cuDNN's LSTM (docs: performance).
        import jax

        return jax.lax.scan(step, carried, read, reverse=reverse)[1]
    times = list(zip(*(v if isinstance(v, list) else ops.unstack(v, axis=0) for v in read), strict=True))
    given = []
    for at in reversed(times) if reverse else times:
        carried, written = step(carried, at)
        given.append(written)
    return [list(values) for values in zip(*(given[::-1] if reverse else given), strict=True)]

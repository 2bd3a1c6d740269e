"""The network's own layers: normalisation of raw features, the quick LSTM, positions, saved dropout masks.

Axes: B batch, T time, F features, U units, N dropout samples. Everything is keras.ops, hence trains on any
Keras backend; the LSTM also has quicker forms on TensorFlow and JAX (see `Recurrent`), which give the same numbers.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from barcast.models import recurrence

# Normalised features beyond this many standard deviations say no more than "extreme".
CLIP = 5.0
# An LSTM that remembers from the start learns long spans (Gers et al., 2000).
FORGET_BIAS = 1.0


class Normalise(keras.layers.Layer):
    """Raw (B, T, F) to the selected features (B, T, F'), standardised and clipped to ± CLIP.

    `mean` and `scale` are fitted on training rows (`adapt`) and travel with the model.
    """

    def __init__(self, selected: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.selected = tuple(selected)

    def build(self, input_shape: tuple[int, ...]) -> None:
        size = (len(self.selected),)
        self.mean = self.add_weight(name="mean", shape=size, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=size, initializer="ones", trainable=False)
        self.identity = self.selected == tuple(range(int(input_shape[-1])))
        super().build(input_shape)

    def adapt(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Set the statistics of the selected features, (F',) each."""
        self.mean.assign(mean)
        self.scale.assign(scale)

    def call(self, window: Any) -> Any:
        if not self.identity:
            window = ops.take(window, np.array(self.selected, dtype="int32"), axis=-1)
        return ops.clip((window - self.mean) / self.scale, -CLIP, CLIP)

    def matrix(self, features: np.ndarray) -> np.ndarray:
        """As `call` for all bars at once, (N, F) to (N, F') float32: what training gathers its windows from."""
        mean, scale = (np.asarray(v, dtype=np.float32) for v in (self.mean, self.scale))
        found = np.empty((len(features), len(self.selected)), dtype=np.float32)
        at: Any = slice(None) if self.identity else list(self.selected)
        for start in range(0, len(features), 8192):
            piece = slice(start, start + 8192)
            found[piece] = np.clip((features[piece][:, at] - mean) / scale, -CLIP, CLIP)
        return found


class Recurrent(keras.layers.Layer):
    """LSTM over (B, T, F) giving every state (B, T, U).

    The input projection is one product for all steps; the steps are unrolled, or see `fused`. Gate
    order i, g, f, o; forget bias 1 (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    Args:
        units: U.
        recurrent_dropout: share of the recurrent weights dropped, one mask for a batch and all its steps (Merity et
            al., 2018): unlike a mask of each sample's state it leaves the steps fused.
        int8: hold the matrices as codes and scales of eight bits (for answering; they are not trained).
        fused: run as TensorFlow's BlockLSTM, in float32, where it is the backend: a small graph, quick to compile;
            on JAX as `models.recurrence`.
        own_gradient: train through `models.recurrence` on TensorFlow too: slow to compile, but BlockLSTM's gradient
            keeps to one core.
    """

    def __init__(
        self,
        units: int,
        *,
        recurrent_dropout: float = 0.0,
        fused: bool = False,
        own_gradient: bool = False,
        int8: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.recurrent_dropout, self.fused, self.int8 = units, recurrent_dropout, fused, int8
        self.own_gradient = own_gradient
        self.seeds = keras.random.SeedGenerator(seed)
        self.seed = seed

    def build(self, input_shape: tuple[int, ...]) -> None:
        units = self.units
        uniform = keras.initializers.GlorotUniform(seed=self.seed)
        orthogonal = keras.initializers.Orthogonal(seed=self.seed + 1)
        shapes = {"kernel": (input_shape[-1], 4 * units), "recurrent_kernel": (units, 4 * units)}
        if self.int8:
            for name, shape in shapes.items():
                codes = self.add_weight(
                    name=f"{name}_codes", shape=shape, dtype="int8", initializer="zeros", trainable=False
                )
                scale = self.add_weight(
                    name=f"{name}_scale", shape=(1, 4 * units), initializer="ones", trainable=False
                )
                setattr(self, f"{name}_codes", codes)
                setattr(self, f"{name}_scale", scale)
        else:
            self.kernel = self.add_weight(name="kernel", shape=shapes["kernel"], initializer=uniform)
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel", shape=shapes["recurrent_kernel"], initializer=orthogonal
            )
        self.bias = self.add_weight(name="bias", shape=(4 * units,), initializer="zeros")
        super().build(input_shape)

    def matrix(self, name: str) -> Any:
        """The float32 `kernel` or `recurrent_kernel`, unpacked where it is stored in eight bits."""
        if not self.int8:
            return getattr(self, name)
        return ops.cast(getattr(self, f"{name}_codes"), "float32") * getattr(self, f"{name}_scale")

    def call(self, x: Any, training: bool = False) -> Any:
        recurrent = self.matrix("recurrent_kernel")
        if training and self.recurrent_dropout > 0:
            keep = 1 - self.recurrent_dropout
            draw = keras.random.uniform(recurrent.shape, seed=self.seeds, dtype="float32")
            recurrent = recurrent * ops.cast(draw < keep, recurrent.dtype) / keep
        backend = keras.backend.backend()
        if not self.fused or backend not in ("tensorflow", "jax"):
            return self._unrolled(x, recurrent)
        if backend == "tensorflow" and not (training and self.own_gradient):
            return self._fused(x, recurrent)
        kernel, bias = ops.convert_to_tensor(self.matrix("kernel")), self._bias()
        return recurrence.lstm(x, *(ops.cast(v, x.dtype) for v in (kernel, recurrent, bias)))

    def _bias(self) -> Any:
        """(4U,) with the forget gate's 1 added."""
        forget = np.repeat([0.0, 0.0, FORGET_BIAS, 0.0], self.units)
        return self.bias + ops.convert_to_tensor(forget, dtype=self.bias.dtype)

    def _unrolled(self, x: Any, recurrent: Any) -> Any:
        units, steps = self.units, int(x.shape[1])
        recurrent = ops.cast(recurrent, x.dtype)
        # Time first, so that each step is a contiguous slice; the forget gate's 1 is added once for all steps.
        kernel, bias = self.matrix("kernel"), self._bias()
        projected = ops.matmul(ops.transpose(x, (1, 0, 2)), ops.cast(kernel, x.dtype)) + ops.cast(
            bias, x.dtype
        )
        state = memory = ops.zeros_like(projected[0, :, :units])
        states = []
        for z in ops.unstack(projected, num=steps, axis=0):
            i, g, f, o = ops.split(z + ops.matmul(state, recurrent), 4, axis=-1)
            memory = ops.sigmoid(f) * memory + ops.sigmoid(i) * ops.tanh(g)
            state = ops.sigmoid(o) * ops.tanh(memory)
            states.append(state)
        return ops.stack(states, axis=1)

    def _fused(self, x: Any, recurrent: Any) -> Any:
        import tensorflow as tf

        start = tf.zeros((tf.shape(x)[0], self.units))
        none = tf.zeros((self.units,))
        result = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.constant(int(x.shape[1]), tf.int64),
            x=tf.transpose(tf.cast(x, tf.float32), (1, 0, 2)),
            cs_prev=start,
            h_prev=start,
            w=tf.concat([ops.cast(m, "float32") for m in (self.matrix("kernel"), recurrent)], axis=0),
            wci=none,
            wcf=none,
            wco=none,
            b=ops.cast(self.bias, "float32"),
            forget_bias=FORGET_BIAS,
            cell_clip=-1.0,
            use_peephole=False,
        )
        found = tf.transpose(result.h, (1, 0, 2))
        found.set_shape((None, x.shape[1], self.units))
        return tf.cast(found, x.dtype)


class Positions(keras.layers.Layer):
    """Adds the sinusoidal position of each bar to (B, T, U) (Vaswani et al., 2017), scaled to be small."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        steps, units = int(input_shape[1]), int(input_shape[2])
        angle = np.arange(steps)[:, None] / 10000 ** (2 * (np.arange(units)[None, :] // 2) / units)
        table = np.where(np.arange(units)[None, :] % 2 == 0, np.sin(angle), np.cos(angle))
        self.table = 0.1 * table.astype("float32")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        return x + ops.cast(ops.convert_to_tensor(self.table), x.dtype)


class SavedMasks(keras.layers.Layer):
    """Bayesian dropout whose masks are drawn once and saved as weights.

    Training drops at random as usual; an answer multiplies (N or 1, B, U) by the N saved masks, so that it
    depends neither on batch size nor on the compiler (Gal and Ghahramani, 2016).
    """

    def __init__(self, rate: float, samples: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.samples, self.seed = rate, samples, seed
        self.dropout = keras.layers.Dropout(rate, seed=seed)

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.masks = self.add_weight(
            name="masks", shape=(self.samples, int(input_shape[-1])), initializer="ones", trainable=False
        )
        kept = np.random.default_rng(self.seed).random(self.masks.shape) >= self.rate
        self.masks.assign(kept / (1 - self.rate))
        super().build(input_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dropout(x, training=training)

    def sampled(self, x: Any) -> Any:
        """(1 or N, B, U) under each saved mask, (N, B, U)."""
        return x * ops.cast(self.masks[:, None, :], x.dtype)

"""The network: LSTM layers, attention over their states, regime heads, decision layers, answer heads; the heads add
to what a linear baseline reads off the last bar.

A raw window (B, T, F) and a symbol id (B,) go in. Training reads `call` (logits and raw heads); serving reads
`answer`, the outputs of the SavedModel contract, in which N saved dropout masks are averaged over one encoder pass.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from barcast.models.columns import COLUMNS, UNFITTED, by_name
from barcast.models.layers import Normalise, Positions, Recurrent, SavedMasks
from barcast.models.presets import WIDE, Architecture

# Share of training rows shown under the unknown symbol, so that id 0 can answer for one never seen.
UNKNOWN_SHARE = 0.1
# The baseline's trend strength may be 0 or 1, whose logit has no bounds.
TREND_EDGE = 0.02


class Network(keras.Model):
    """C1 of the requirements. Axes: B batch, T time, F features, U last LSTM's units, N dropout samples."""

    def __init__(self, architecture: Architecture, *, seed: int = 0, **kwargs: Any) -> None:
        dtype = None if architecture.precision == "float32" else architecture.precision
        super().__init__(dtype=dtype, **kwargs)
        self.architecture = a = architecture
        self.seed = seed
        self.seeds = keras.random.SeedGenerator(seed)
        fresh = iter(range(seed + 1, seed + 1000))

        def dense(units: int, name: str, activation: str | None = None, **options: Any) -> Any:
            initial = keras.initializers.GlorotUniform(seed=next(fresh))
            options = {"kernel_initializer": initial, "dtype": dtype, **options}
            return keras.layers.Dense(units, activation=activation, name=name, **options)

        self.normalise = Normalise(a.selected, name="normalise", dtype="float32")
        self.symbol_embedding = keras.layers.Embedding(
            a.symbol_capacity,
            a.symbol_embedding_dim,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.05, seed=next(fresh)),
            name="symbol_embedding",
            dtype=dtype,
        )
        # Fitted in closed form and fixed: everything below learns what it leaves over (see `start_from`).
        self.baseline = keras.layers.Dense(
            COLUMNS,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(UNFITTED),
            trainable=False,
            name="baseline",
            dtype="float32",
        )
        fused = a.recurrence in ("auto", "fused")
        self.recurrent = [
            Recurrent(
                units,
                recurrent_dropout=a.recurrent_dropout,
                fused=fused,
                own_gradient=a.recurrence == "auto" and max(a.lstm_units) >= WIDE,
                int8=a.int8,
                seed=next(fresh),
                name=f"lstm_{i}",
                dtype=dtype,
            )
            for i, units in enumerate(a.lstm_units)
        ]
        self.recurrent_drop = [
            keras.layers.Dropout(a.lstm_dropout, seed=next(fresh), dtype=dtype) for _ in a.lstm_units
        ]
        self.positions = Positions(name="positions", dtype=dtype)
        self.attention = keras.layers.MultiHeadAttention(
            a.attention_heads,
            a.attention_key_dim,
            dropout=a.attention_dropout,
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(fresh)),
            seed=next(fresh),
            flash_attention=False,
            name="attention",
            dtype=dtype,
        )
        self.attention_norm = keras.layers.LayerNormalization(name="attention_norm", dtype=dtype)
        self.regime = dense(3, "regime", dtype="float32")
        self.volatility_regime = dense(3, "volatility_regime", dtype="float32")
        self.trend = dense(1, "trend", dtype="float32")
        self.decision = [dense(units, f"decision_{i}", "relu") for i, units in enumerate(a.dense_units)]
        self.masks = [
            SavedMasks(a.dense_dropout, a.bayesian_samples, seed=next(fresh), name=f"masks_{i}", dtype=dtype)
            for i, _ in enumerate(a.dense_units)
        ]
        self.logits = dense(3, "logits", dtype="float32")
        self.confidence = dense(1, "confidence", dtype="float32")
        self.expected_return = dense(1, "expected_return", dtype="float32", kernel_initializer="zeros")
        self.expected_volatility = dense(
            1, "expected_volatility", dtype="float32", kernel_initializer="zeros"
        )
        self.position_size = dense(1, "position_size", dtype="float32")
        self.statistics = Statistics(name="statistics", dtype="float32")
        # Progressive columns: small encoders over features and the frozen column's states.
        self.columns = [
            Recurrent(a.lstm_units[-1], fused=fused, seed=next(fresh), name=f"column_{i}", dtype=dtype)
            for i in range(a.columns)
        ]

    def build_once(self) -> Network:
        """Create every variable, by one call on zeros."""
        a = self.architecture
        self(ops.zeros((1, a.lookback_bars, a.num_features)), ops.zeros((1,), dtype="int32"))
        return self

    def start_from(self, weights: list[np.ndarray]) -> None:
        """Answer as the linear baseline of the same selected features does; training then adds to it.

        Args:
            weights: its kernel (F', COLUMNS) and bias (COLUMNS,).
        """
        self.baseline.set_weights(weights)
        for head in (self.logits, self.regime, self.volatility_regime, self.trend):
            head.kernel.assign(np.zeros(head.kernel.shape))

    def encode(
        self, window: Any, symbol_id: Any, training: bool = False, *, normalised: bool = False
    ) -> dict[str, Any]:
        """Window to context: `context` (B, C), `embedding` (B, U), `attention` (B, T) and the regime heads.

        With `normalised` the window is (B, T, F'), what `self.normalise` makes of a raw one.
        """
        if training:
            shown = keras.random.uniform(ops.shape(symbol_id), seed=self.seeds) >= UNKNOWN_SHARE
            symbol_id = symbol_id * ops.cast(shown, symbol_id.dtype)
        # An id from a newer universe than this model's table is unknown to it.
        known = ops.logical_and(symbol_id >= 0, symbol_id < self.architecture.symbol_capacity)
        symbol_id = ops.where(known, symbol_id, ops.zeros_like(symbol_id))
        x = window if normalised else self.normalise(window)
        states = self.states(x, training)
        added: list[Any] = []
        for column in self.columns:
            read = ops.concatenate([ops.cast(x, states.dtype), states, *added], axis=-1)
            added.append(column(read, training=training))
        last = states[:, -1:]
        # Only the last bar's row of the attention is read, so only that row is computed.
        attended, scores = self.attention(last, states, return_attention_scores=True, training=training)
        embedding = self.attention_norm(last + attended)[:, 0]
        base = by_name(self.baseline(x[:, -1]))
        trend = ops.clip(base["trend"], TREND_EDGE, 1 - TREND_EDGE)
        context = ops.concatenate([embedding, last[:, 0], self.symbol_embedding(symbol_id)], axis=-1)
        return {
            "context": context,
            "baseline": base,
            "columns": [states[:, -1] for states in added],
            "embedding": ops.cast(embedding, "float32"),
            "attention": ops.cast(ops.mean(scores[:, :, 0], axis=1), "float32"),
            "regime_logits": self.regime(context) + base["regime_logits"],
            "volatility_regime_logits": self.volatility_regime(context) + base["volatility_regime_logits"],
            "trend_strength": ops.sigmoid(self.trend(context)[:, 0] + ops.log(trend / (1 - trend))),
        }

    def states(self, x: Any, training: bool = False) -> Any:
        """Normalised (B, T, F') to the last LSTM layer's states with positions (B, T, U)."""
        for layer, drop in zip(self.recurrent, self.recurrent_drop, strict=True):
            x = drop(layer(x, training=training), training=training)
        return self.positions(x)

    def decision_input(self, encoded: dict[str, Any]) -> Any:
        """What the decision layers read: the context, the regimes found, added columns, (B, C + 7 + ...)."""
        parts = [
            encoded["context"],
            ops.softmax(encoded["regime_logits"]),
            ops.softmax(encoded["volatility_regime_logits"]),
            encoded["trend_strength"][:, None],
            *encoded["columns"],
        ]
        return ops.concatenate([ops.cast(part, encoded["context"].dtype) for part in parts], axis=-1)

    def heads(self, hidden: Any, base: dict[str, Any]) -> dict[str, Any]:
        """Decision features (..., B, D) and what the baseline said to raw heads; scalars lose their last axis."""
        returns = self.expected_return(hidden)[..., 0] * self.statistics.return_scale
        volatility = ops.softplus(self.expected_volatility(hidden)[..., 0] + 0.5413)
        return {
            "logits": self.logits(hidden) + base["logits"],
            "confidence_logit": self.confidence(hidden)[..., 0],
            # Bounded to [-1, 1] as specified; near zero tanh changes nothing.
            "expected_return": ops.tanh(returns + base["expected_return"]),
            "expected_volatility": volatility * ops.exp(base["log_volatility"]),
            "position_size": ops.sigmoid(self.position_size(hidden)[..., 0]),
        }

    def call(
        self, window: Any, symbol_id: Any, training: bool = False, normalised: bool = False
    ) -> dict[str, Any]:
        """Raw heads for the loss: logits (B, 3), regime logits, scalars (B,)."""
        encoded = self.encode(window, symbol_id, training, normalised=normalised)
        hidden = self.decision_input(encoded)
        for layer, mask in zip(self.decision, self.masks, strict=True):
            hidden = mask(layer(hidden), training=training)
        self.statistics(hidden)
        kept = {name: value for name, value in encoded.items() if name not in ("baseline", "columns")}
        return {**kept, **self.heads(hidden, encoded["baseline"])}

    def answer(self, window: Any, symbol_id: Any) -> dict[str, Any]:
        """The outputs of the SavedModel contract (docs: models), averaged over the saved masks."""
        encoded = self.encode(window, symbol_id)
        return self.answer_encoded(encoded)

    def sampled_heads(self, encoded: dict[str, Any]) -> dict[str, Any]:
        """Raw heads under each saved mask: logits (N, B, 3), scalars (N, B)."""
        hidden = self.decision_input(encoded)[None]
        for layer, mask in zip(self.decision, self.masks, strict=True):
            hidden = mask.sampled(layer(hidden))
        return self.heads(hidden, encoded["baseline"])

    def answer_encoded(self, encoded: dict[str, Any]) -> dict[str, Any]:
        """As `answer`, from an encoder pass."""
        heads = self.sampled_heads(encoded)
        each = ops.softmax(heads["logits"] / self.statistics.temperature)
        probabilities = ops.mean(each, axis=0)
        top = ops.one_hot(ops.argmax(probabilities, axis=-1), 3)
        chosen = ops.sum(each * top[None], axis=-1)
        confidence_logit = ops.mean(heads["confidence_logit"], axis=0)
        return {
            "probabilities": probabilities,
            "confidence": self.statistics.calibrated(ops.max(probabilities, axis=-1), confidence_logit),
            "uncertainty": ops.std(chosen, axis=0),
            "entropy": entropy(probabilities),
            "expected_return": ops.mean(heads["expected_return"], axis=0),
            "expected_volatility": ops.mean(heads["expected_volatility"], axis=0),
            "position_size": ops.mean(heads["position_size"], axis=0),
            "regime": ops.softmax(encoded["regime_logits"]),
            "volatility_regime": ops.softmax(encoded["volatility_regime_logits"]),
            "trend_strength": encoded["trend_strength"],
            "attention": encoded["attention"],
            "embedding": encoded["embedding"],
            "confidence_logit": confidence_logit,
        }


class Statistics(keras.layers.Layer):
    """Numbers fitted outside the gradient: scale of returns, temperature, calibration of the confidence."""

    def build(self, input_shape: Any) -> None:
        def number(name: str, value: float) -> Any:
            start = keras.initializers.Constant(value)
            return self.add_weight(name=name, shape=(), initializer=start, trainable=False)

        self.return_scale = number("return_scale", 0.01)
        self.temperature = number("temperature", 1.0)
        self.confidence_slope = number("confidence_slope", 1.0)
        self.confidence_head = number("confidence_head", 0.0)
        self.confidence_bias = number("confidence_bias", 0.0)
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        return x

    def calibrated(self, top: Any, confidence_logit: Any) -> Any:
        """Chance that the answered class is right, from the top probability and the confidence head, (B,)."""
        top = ops.clip(top, 1e-6, 1 - 1e-6)
        logit = ops.log(top) - ops.log(1 - top)
        return ops.sigmoid(
            self.confidence_slope * logit + self.confidence_head * confidence_logit + self.confidence_bias
        )


def entropy(probabilities: Any) -> Any:
    """Entropy over the last axis as a share of its maximum: 0 certain, 1 no idea."""
    p = ops.clip(probabilities, 1e-7, 1.0)
    return -ops.sum(p * ops.log(p), axis=-1) / ops.log(ops.cast(p.shape[-1], p.dtype))

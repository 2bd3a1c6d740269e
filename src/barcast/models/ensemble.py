"""The ensemble: the network, the linear baseline and small specialists, joined by voting and a meta model.

Everything is one Keras model with `answer`, hence one SavedModel with the same signatures. Axes: B batch, M members,
R volatility regimes (low, medium, high). Members are weighted by confidence, recent performance and regime; a member
that is missing has weight 0 and the others share its say.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from barcast.models.linear import LinearNetwork
from barcast.models.network import Network, Statistics, entropy
from barcast.models.presets import Architecture


class Ensemble(keras.Model):
    """Members: "network", "linear", then the architecture's specialists in their order.

    Weights beside the members' own: `table` (R, M) of performance weights, `available` (M,) 0 or 1, `share` () of
    the meta model against the vote.
    """

    def __init__(self, architecture: Architecture, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.architecture, self.seed = architecture, seed
        self.network = Network(architecture, seed=seed, name="member_network")
        self.linear = LinearNetwork(architecture, seed=seed, name="member_linear")
        self.names = ("network", "linear", *(name for name, _ in architecture.specialists))
        self.specialists = [
            keras.layers.Dense(3, name=f"specialist_{name}", kernel_initializer="zeros")
            for name, _ in architecture.specialists
        ]
        self.meta = keras.layers.Dense(3, name="meta", kernel_initializer="zeros")
        self.voting = Voting(len(self.names), name="voting")
        self.statistics = Statistics(name="statistics")

    def build_once(self) -> Ensemble:
        """Create every variable, by one call on zeros."""
        a = self.architecture
        self.network.build_once()
        self.linear.build_once()
        self(ops.zeros((1, a.lookback_bars, a.num_features)), ops.zeros((1,), dtype="int32"))
        return self

    def specialist_inputs(self, window: Any) -> list[Any]:
        """What each specialist reads, (B, 2 f): its features at the last bar and their mean over the window."""
        found = []
        for _, positions in self.architecture.specialists:
            x = ops.take(window, np.array(positions, dtype="int32"), axis=-1)
            mean = ops.take(self.linear.normalise.mean, self._selected(positions))
            scale = ops.take(self.linear.normalise.scale, self._selected(positions))
            x = ops.clip((x - mean) / scale, -5.0, 5.0)
            found.append(ops.concatenate([x[:, -1], ops.mean(x, axis=1)], axis=-1))
        return found

    def _selected(self, positions: tuple[int, ...]) -> Any:
        """Positions inside the selected features; specialists read selected features only."""
        at = {feature: i for i, feature in enumerate(self.architecture.selected)}
        return np.array([at[p] for p in positions], dtype="int32")

    def members(self, window: Any, symbol_id: Any) -> tuple[dict[str, Any], Any]:
        """The network's whole answer, and every member's probabilities (B, M, 3)."""
        base = self.network.answer(window, symbol_id)
        found = [base["probabilities"], self.linear.answer(window, symbol_id)["probabilities"]]
        for layer, x in zip(self.specialists, self.specialist_inputs(window), strict=True):
            found.append(ops.softmax(layer(x)))
        return base, ops.stack(found, axis=1)

    def meta_input(self, base: dict[str, Any], each: Any) -> Any:
        """What the meta model reads: members' log probabilities (0 where missing) and the regimes, (B, 3 M + 6)."""
        logs = ops.log(ops.clip(each, 1e-6, 1.0)) * self.voting.available[None, :, None]
        flat = ops.reshape(logs, (-1, 3 * len(self.names)))
        return ops.concatenate([flat, base["regime"], base["volatility_regime"]], axis=-1)

    def join(self, base: dict[str, Any], each: Any) -> tuple[Any, Any]:
        """Joined probabilities (B, 3) and the members' weights (B, M)."""
        weight = self.voting(each, base["volatility_regime"])
        vote = ops.sum(each * weight[:, :, None], axis=1)
        meta = ops.softmax(self.meta(self.meta_input(base, each)))
        share = self.voting.share
        return share * meta + (1 - share) * vote, weight

    def call(self, window: Any, symbol_id: Any, training: bool = False) -> dict[str, Any]:
        """Logits (log of the joined probabilities) and what calibration reads."""
        base, each = self.members(window, symbol_id)
        joined, _ = self.join(base, each)
        logits = ops.log(ops.clip(joined, 1e-6, 1.0))
        self.statistics(logits)
        return {"logits": logits, "expected_return": base["expected_return"]}

    def votes(self, window: Any, symbol_id: Any) -> dict[str, Any]:
        """Each member's own `member_probabilities` (B, M, 3) and the `member_weights` (B, M) of its vote."""
        base, each = self.members(window, symbol_id)
        return {"member_probabilities": each, "member_weights": self.voting(each, base["volatility_regime"])}

    def answer(self, window: Any, symbol_id: Any) -> dict[str, Any]:
        """Contract outputs. `uncertainty` joins the network's own with the members' disagreement."""
        base, each = self.members(window, symbol_id)
        joined, weight = self.join(base, each)
        p = ops.softmax(ops.log(ops.clip(joined, 1e-6, 1.0)) / self.statistics.temperature)
        top = ops.one_hot(ops.argmax(p, axis=-1), 3)
        chosen = ops.sum(each * top[:, None, :], axis=-1)
        mean = ops.sum(weight * chosen, axis=1, keepdims=True)
        spread = ops.sqrt(ops.sum(weight * ops.square(chosen - mean), axis=1) + 1e-12)
        highest = ops.max(p, axis=-1)
        return {
            **base,
            "probabilities": p,
            "confidence": self.statistics.calibrated(highest, ops.zeros_like(highest)),
            "uncertainty": ops.sqrt(ops.square(base["uncertainty"]) + ops.square(spread)),
            "entropy": entropy(p),
        }


class Voting(keras.layers.Layer):
    """Weights of the members' votes, (B, M): availability x performance in the regime x own confidence."""

    def __init__(self, members: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = members

    def build(self, *_: Any) -> None:
        self.table = self.add_weight(
            name="table",
            shape=(3, self.size),
            initializer=keras.initializers.Constant(1 / self.size),
            trainable=False,
        )
        self.available = self.add_weight(
            name="available", shape=(self.size,), initializer="ones", trainable=False
        )
        self.share = self.add_weight(name="share", shape=(), initializer="zeros", trainable=False)
        self.built = True

    def call(self, each: Any, volatility_regime: Any) -> Any:
        performance = ops.matmul(volatility_regime, self.table)
        # Confidence above chance; a member at chance still keeps a little of its say.
        confidence = ops.max(each, axis=-1) - 1 / 3 + 0.05
        weight = performance * confidence * self.available[None, :]
        return weight / (ops.sum(weight, axis=1, keepdims=True) + 1e-12)

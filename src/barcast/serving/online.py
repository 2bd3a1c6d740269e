"""Learning from outcomes: a shadow copy of the served model is updated, bounded, judged, and offered as a candidate.

outcomes of logged predictions + replayed training rows → reward-weighted update of the decision layers → distance bound
→ shadow kept beside the workspace. The champion is never touched: the shadow becomes a challenger only when it is
registered and passes the gate like any other candidate. It goes back to the champion when it is worse on outcomes that
no update has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barcast.config.decisions import LearningConfig
from barcast.decisions.learning import LearningState, bounded, learning_rate, revert_due, update_due
from barcast.durable import write_atomic
from barcast.errors import ServingError
from barcast.wording import count

_STATE, _MODEL, _SEEN = "learning.json", "model", "seen.parquet"


@dataclass(frozen=True)
class Samples:
    """Outcomes to learn from.

    Attributes:
        windows: (N, T, F) float32.
        symbol_ids: (N,) int32, as the model numbers them.
        labels: (N,) 0 SELL, 1 HOLD, 2 BUY.
        weights: (N,) 0 or more.
    """

    windows: NDArray[np.float32]
    symbol_ids: NDArray[np.int32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """These rows."""
        return Samples(self.windows[rows], self.symbol_ids[rows], self.labels[rows], self.weights[rows])


@dataclass(frozen=True)
class Update:
    """What one look at the outcomes did.

    Attributes:
        done: updated, reverted, or waiting.
        fresh: positions of the n outcomes that no update had seen.
        distance: the shadow's relative distance from its champion before the bound was applied.
        judged: (n, 3) probabilities of the shadow and of its champion for the fresh outcomes, given before either had
            learnt from them; None while the shadow is still the champion's copy.
    """

    done: str
    reason: str
    fresh: NDArray[np.int64]
    distance: float = 0.0
    judged: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def weights_of(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each outcome from its reward: 1 at zero, more for what was very right or very wrong, at most 3.

    The label is what happened, so a punished decision teaches as much as a rewarded one.
    """
    return np.clip(1.0 + np.abs(np.nan_to_num(rewards)) / 2.0, 1.0, 3.0)


class Shadow:
    """The learning copy of one served model.

    Args:
        folder: where the copy and its state are kept.
        parent: name and version of the champion, e.g. "daily.universal/3".
        load: gives a fresh copy of the champion (`training.TrainedModel.load` of its directory).
    """

    def __init__(
        self, folder: Path, parent: str, load: Callable[[], Any], config: LearningConfig, *, seed: int = 7
    ) -> None:
        self.folder, self.config, self._load, self._seed = folder, config, load, seed
        self.state = self._read(parent)
        self.champion = load()
        self.model = self._kept() if self.state.updates else load()

    def probabilities(self, samples: Samples, *, of_champion: bool = False) -> NDArray[np.float64]:
        """(N, 3) calibrated probabilities of the shadow, or of its champion."""
        import tensorflow as tf

        network = (self.champion if of_champion else self.model).network
        found = network.answer(tf.constant(samples.windows), tf.constant(samples.symbol_ids))
        return np.asarray(found["probabilities"], dtype=np.float64)

    def learn(self, outcomes: Samples, keys: pl.Series, replay: Samples) -> Update:
        """Look at all outcomes so far; update, go back, or wait.

        Outcomes that no update has seen judge the shadow first and teach it afterwards.

        Args:
            outcomes: every outcome of this parent, oldest first.
            keys: (N,) text that tells each outcome from all others: one that becomes known late takes nobody's place.
            replay: rows of the training set, so that the new does not wash out the old.
        """
        new = ~keys.is_in(self._seen().implode())
        rows = np.flatnonzero(new.to_numpy())
        fresh, known = outcomes.take(rows), self.state.trades_seen + len(rows)
        if not update_due(self.state, known, self.config):
            return Update("waiting", f"{len(fresh)} new outcomes, {len(outcomes)} in all", rows)
        judged = None
        if self.state.updates:
            champion, shadow = self.probabilities(fresh, of_champion=True), self.probabilities(fresh)
            judged = (shadow, champion)
            if revert_due(champion, shadow, fresh.labels, self.config):
                self.model = self._load()
                self._remember_seen(keys.filter(new))
                self._write(updates=0, trades_seen=known, reverts=self.state.reverts + 1)
                return Update("reverted", "worse than its champion on outcomes it had not seen", rows)
        distance = self._step(fresh, replay)
        self._remember_seen(keys.filter(new))
        self._write(updates=self.state.updates + 1, trades_seen=known)
        reason = f"{count(len(fresh), 'outcome')}, update {self.state.updates}"
        return Update("updated", reason, rows, distance, judged)

    def export(self, path: Path) -> Path:
        """The shadow as a SavedModel, ready to be registered and judged by the gate."""
        exported: Path = self.model.export(path)
        return exported

    def remember(self, **changes: Any) -> None:
        """Keep facts about the learning (when a retraining was asked for) beside the shadow."""
        self._write(**changes)

    def _step(self, fresh: Samples, replay: Samples, *, epochs: int = 4, batch: int = 32) -> float:
        """One reward-weighted update of the decision layers; the distance before the bound."""
        import keras
        import tensorflow as tf

        rng = np.random.default_rng(self._seed + self.state.updates)
        count = int(len(fresh) * self.config.replay_share / max(1e-9, 1 - self.config.replay_share))
        mixed = fresh
        if len(replay) and count:
            picked = replay.take(rng.choice(len(replay), size=min(count, len(replay)), replace=False))
            mixed = Samples(
                np.concatenate([fresh.windows, picked.windows]),
                np.concatenate([fresh.symbol_ids, picked.symbol_ids]),
                np.concatenate([fresh.labels, picked.labels]),
                np.concatenate([fresh.weights, picked.weights]),
            )
        network = self.model.network
        variables = _decision_variables(network)
        optimiser = keras.optimizers.Adam(learning_rate(self.state, self.config), clipnorm=1.0)
        for _ in range(epochs):
            order = rng.permutation(len(mixed))
            for start in range(0, len(order), batch):
                part = mixed.take(order[start : start + batch])
                with tf.GradientTape() as tape:
                    out = network(tf.constant(part.windows), tf.constant(part.symbol_ids), training=False)
                    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(part.labels, out["logits"])
                    weight = tf.constant(part.weights, losses.dtype)
                    loss = tf.reduce_sum(losses * weight) / tf.reduce_sum(weight)
                gradients = tape.gradient(loss, variables)
                pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
                optimiser.apply_gradients(pairs)
        theirs = [np.asarray(v) for v in _decision_variables(self.champion.network)]
        ours = [np.asarray(v) for v in variables]
        kept, distance = bounded(theirs, ours, self.config.drift_bound)
        if any(not np.isfinite(w).all() for w in kept):
            self.model = self._load()
            raise ServingError(
                "An update made the shadow's weights infinite; it is the champion's copy again."
            )
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
        return distance

    def _kept(self) -> Any:
        """The stored shadow; a damaged or absent one starts again from the champion."""
        from barcast.errors import ModelError
        from barcast.training import TrainedModel

        try:
            return TrainedModel.load(self.folder / _MODEL)
        except ModelError:
            self.state = LearningState(parent=self.state.parent, trades_seen=self.state.trades_seen)
            return self._load()

    def _seen(self) -> pl.Series:
        """Keys of the outcomes that were part of an update or led back to the champion."""
        path = self.folder / _SEEN
        if not self.state.trades_seen or not path.exists():  # what lies there belongs to another parent
            return pl.Series("key", [], dtype=pl.Utf8)
        return pl.read_parquet(path)["key"]

    def _remember_seen(self, keys: pl.Series) -> None:
        """Written before the state: a crash between the two costs these outcomes, and teaches none of them twice."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{_SEEN}"
        pl.concat([self._seen(), keys.alias("key")]).to_frame().write_parquet(temporary)
        temporary.replace(self.folder / _SEEN)

    def _read(self, parent: str) -> LearningState:
        path = self.folder / _STATE
        if path.exists():
            try:
                state = LearningState.model_validate_json(path.read_text(encoding="utf-8"))
                if state.parent == parent:  # a new champion starts a new shadow
                    return state
            except ValueError:
                pass
        return LearningState(parent=parent)

    def _write(self, **changes: Any) -> None:
        self.model.save(self.folder / _MODEL)
        self.state = self.state.model_copy(update=changes)
        write_atomic(self.folder / _STATE, self.state.model_dump_json())


def _decision_variables(network: Any) -> list[Any]:
    """Trainable variables after the encoder: decision layers and the class head; all, where a model has none."""
    layers = [*getattr(network, "decision", []), getattr(network, "logits", None)]
    found = [v for layer in layers if layer is not None for v in getattr(layer, "trainable_variables", [])]
    return found or list(network.trainable_variables)

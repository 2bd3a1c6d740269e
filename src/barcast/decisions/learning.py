"""When the shadow copy learns, when it goes back, and when a model is worth a retraining. Pure;
`serving.online` acts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from barcast.config.decisions import LearningConfig


class LearningState(BaseModel):
    """How far the learning of one model has come; kept beside the shadow.

    Attributes:
        updates: updates made.
        trades_seen: outcomes that were part of an update or of the wait before it.
        retrain_asked_at, retrain_accuracy: the last request for a retraining.
        parent: name and version the shadow was copied from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parent: str
    updates: int = 0
    trades_seen: int = 0
    reverts: int = 0
    retrain_asked_at: datetime | None = None
    retrain_accuracy: float | None = None


@dataclass(frozen=True)
class Retrain:
    """Whether to ask for a retraining, with the reason either way."""

    ask: bool
    reason: str
    accuracy: float | None


def update_due(state: LearningState, outcomes: int, config: LearningConfig) -> bool:
    """Whether an update is due: `min_samples` outcomes in all, and `update_every_trades` of them new since the last
    update or return to the champion."""
    return (
        config.enabled
        and outcomes >= config.min_samples
        and (state.trades_seen == 0 or outcomes - state.trades_seen >= config.update_every_trades)
    )


def learning_rate(state: LearningState, config: LearningConfig) -> float:
    """Learning rate of the next update: the first one's, times the decay for each update made."""
    return config.learning_rate * config.learning_rate_decay**state.updates


def retrain(
    correct: NDArray[np.bool_], at: datetime, state: LearningState, config: LearningConfig
) -> Retrain:
    """Judge the newest acted decisions.

    Args:
        correct: of each acted decision, oldest first, whether the price went its way.

    A model that stays at one level below the threshold is asked for once: a further request needs
    `retrain_min_hours` since the last AND an accuracy lower than then by `retrain_min_drop`. The state is
    reset by a new version.
    """
    window = correct[-config.retrain_window_trades :]
    if window.size < config.retrain_window_trades:
        return Retrain(
            False, f"{window.size} of {config.retrain_window_trades} acted decisions are known", None
        )
    accuracy = float(window.mean())
    if accuracy >= config.retrain_accuracy:
        return Retrain(False, f"accuracy {accuracy:.1%} is at least {config.retrain_accuracy:.0%}", accuracy)
    below = (
        f"accuracy {accuracy:.1%} of the last {window.size} acted decisions is below "
        f"{config.retrain_accuracy:.0%}"
    )
    asked, then = state.retrain_asked_at, state.retrain_accuracy
    if asked is not None and then is not None:
        if at < asked + timedelta(hours=config.retrain_min_hours):
            return Retrain(False, f"{below}; asked at {asked:%Y-%m-%d %H:%M} already", accuracy)
        if accuracy > then - config.retrain_min_drop:
            return Retrain(False, f"{below}, but no lower than the {then:.1%} already asked for", accuracy)
    return Retrain(True, below, accuracy)


def bounded(
    champion: list[NDArray[np.float32]], shadow: list[NDArray[np.float32]], bound: float
) -> tuple[list[NDArray[np.float32]], float]:
    """The shadow's weights, drawn back to within `bound` relative distance of the champion's; and the
    distance before.

    Distance is ||shadow - champion|| / ||champion|| over all weights together.
    """
    difference = float(
        np.sqrt(sum(float(np.sum((s - c) ** 2)) for c, s in zip(champion, shadow, strict=True)))
    )
    size = float(np.sqrt(sum(float(np.sum(np.asarray(c, dtype=np.float64) ** 2)) for c in champion)))
    distance = difference / size if size > 0 else 0.0
    if distance <= bound:
        return shadow, distance
    keep = bound / distance
    return [(c + keep * (s - c)).astype(c.dtype) for c, s in zip(champion, shadow, strict=True)], distance


def log_loss(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean negative log probability of the label, nats."""
    p = np.clip(probabilities[np.arange(len(labels)), labels], 1e-9, 1.0)
    return float(-np.log(p).mean())


def revert_due(
    champion: NDArray[np.floating],
    shadow: NDArray[np.floating],
    labels: NDArray[np.integer],
    config: LearningConfig,
) -> bool:
    """Whether the shadow has become worse than its champion on the same outcomes by more than the margin.

    Args:
        champion, shadow: (N, 3) probabilities for the newest outcomes, none of them part of an update yet.
    """
    if len(labels) == 0:
        return False
    return log_loss(shadow, labels) > log_loss(champion, labels) + config.revert_margin

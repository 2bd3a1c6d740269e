"""Detectors on known outcomes: is a model worse than constant class shares, badly calibrated, or changed?

answers with outcomes → blocks of horizon + 1 bars → one number a block → CUSUM of log likelihood ratios, ADWIN.

Each number a block is the mean over its rows of log(q(y) / p(y)): what another forecaster q would have gained over
the model's own probabilities p. Were p honest, E[q(y)/p(y)] = 1 for every row; the mean in a block is the log of
a geometric mean, whose expectation is at most 1 however its rows depend on one another (Hölder). Labels of a block
end within the next one, so every second block is a test martingale, and half the sum over all of them stays below
log(2 N) except once in N blocks or more on average, by Ville's inequality and the CUSUM e-detector of Shin,
Ramdas and Rinaldo (2023). A weak but honest model is therefore left alone however long it lives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barcast.config.monitoring import MonitoringConfig

FLOOR = 1e-6  # a probability of 0 for what happened counts as this
FLATTER, SHARPER = 0.5, 2.0  # powers of the probabilities: less sure, more sure
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Detected:
    """What one detector saw.

    Attributes:
        level: its statistic; it alarms from `bound` on.
        blocks: blocks since the change it points at; all of them while it points at none.
        gain: mean gain of the other forecaster over those blocks, nats per answer.
    """

    level: float
    bound: float
    blocks: int
    gain: float

    @property
    def sure(self) -> bool:
        """Whether chance is ruled out."""
        return self.level >= self.bound


@dataclass(frozen=True)
class Judged:
    """What the outcomes say of one model.

    Attributes:
        losses: (blocks,) mean log loss.
        harm: constant class shares against the model; `harmful` once sure and beyond the rollback bound.
        tilt: another temperature against the model's; `too_sure` says which way; `tilted` once sure and beyond.
        rise: by how much ADWIN saw the loss rise, 0 where it did not.
    """

    losses: Values
    harm: Detected
    harmful: bool
    tilt: Detected
    tilted: bool
    too_sure: bool
    rise: float


@dataclass(frozen=True)
class Blocks:
    """What the detectors need of each block, (blocks,) each, oldest first.

    Attributes:
        losses: mean log loss.
        prior, flatter, sharper: mean log gain of constant class shares and of the two other temperatures.
    """

    losses: Values
    prior: Values
    flatter: Values
    sharper: Values

    @classmethod
    def of(cls, p: Sequence[Values], y: Sequence[NDArray[np.int64]], prior: Values) -> Blocks:
        """From per block (n, 3) probabilities and (n,) classes, and the (3,) class shares of the training."""

        def mean(other: Callable[[Values], Values]) -> Values:
            return np.array([log_gains(a, other(a), b).mean() for a, b in zip(p, y, strict=True)])

        losses = np.array([log_gains(a, np.ones_like(a), b).mean() for a, b in zip(p, y, strict=True)])
        return cls(
            losses,
            mean(lambda a: np.tile(prior, (len(a), 1))),
            mean(lambda a: tempered(a, FLATTER)),
            mean(lambda a: tempered(a, SHARPER)),
        )

    def first(self, number: int) -> Blocks:
        """The oldest blocks alone."""
        return Blocks(self.losses[:number], self.prior[:number], self.flatter[:number], self.sharper[:number])


def judge(found: Blocks, settings: MonitoringConfig) -> Judged:
    """All detectors."""
    harm = cusum(found.prior, settings.quiet_blocks)
    over, under = (cusum(gains, settings.quiet_blocks) for gains in (found.flatter, found.sharper))
    tilt = max(over, under, key=lambda d: d.level)
    return Judged(
        losses=found.losses,
        harm=harm,
        harmful=harm.sure and harm.gain >= settings.harmful_loss,
        tilt=tilt,
        tilted=tilt.sure and tilt.gain >= settings.calibration_loss,
        too_sure=tilt is over,
        rise=rose(found.losses, settings.concept_delta),
    )


def blocks(frame: pl.DataFrame, num_times: int) -> list[pl.DataFrame]:
    """Rows by block of `num_times` (horizon_bars + 1) successive answered bars, in order of time; the last block,
    while it grows, is left out.

    Args:
        frame: with `feature_us`.
    """
    keyed = frame.with_columns(block=(pl.col("feature_us").rank("dense") - 1) // num_times)
    whole = keyed.filter(pl.col("feature_us").n_unique().over("block") == num_times)
    return whole.sort("feature_us").partition_by("block", maintain_order=True)


def log_gains(p: Values, q: Values, label: NDArray[np.int64]) -> Values:
    """log(q(y) / p(y)) of each row; p and q (n, 3), label (n,)."""
    rows = np.arange(len(label))
    gains: Values = np.log(np.maximum(q[rows, label], FLOOR)) - np.log(np.maximum(p[rows, label], FLOOR))
    return gains


def tempered(p: Values, power: float) -> Values:
    """p to the power, as probabilities again: below 1 less sure, above 1 more sure."""
    raised = np.maximum(p, FLOOR) ** power
    probabilities: Values = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def cusum(block_gains: Values, quiet_blocks: float) -> Detected:
    """The e-detector over the blocks' mean log gains.

    Args:
        quiet_blocks: mean number of blocks until a false alarm, at least.
    """
    bound = math.log(2 * quiet_blocks)
    level, start = 0.0, 0
    for i, gain in enumerate(block_gains):
        if level <= 0:
            level, start = 0.0, i
        level += 0.5 * float(gain)
    since = block_gains[start:] if level > 0 else block_gains
    return Detected(max(level, 0.0), bound, len(since), float(since.mean()) if len(since) else 0.0)


def rose(losses: Values, delta: float) -> float:
    """By how much (nats) ADWIN finds that the blocks' losses rose and did not fall again; 0 where they did not.

    Args:
        losses: (blocks,) mean log loss, oldest first.
        delta: ADWIN's confidence parameter.
    """
    from river.drift import ADWIN

    detector: Any = ADWIN(delta=delta, clock=1)  # type: ignore[no-untyped-call]
    rise = 0.0
    for loss in losses:
        was = detector.estimation
        detector.update(float(loss))
        if detector.drift_detected:
            rise = max(0.0, rise + detector.estimation - was)  # a fall takes back what rose before
    return rise


def calibration_error(p: Values, label: NDArray[np.int64]) -> float:
    """Expected calibration error of the largest probability, ten bands."""
    from barcast.evaluation.metrics_ml import expected_calibration_error

    return expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == label)

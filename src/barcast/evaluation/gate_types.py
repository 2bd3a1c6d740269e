"""What goes into the gate and what comes out: results of a model, the history of its life, checks, the
verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl

Outcome = Literal["promote", "keep", "hold"]


@dataclass(frozen=True)
class Scored:
    """A model's out-of-sample rows, and what it had seen before.

    Attributes:
        name: for the sentences of the verdict.
        rows: predictions frame.
        seen_until: end of the last label that training, calibration or selection of this model saw; rows that
            close earlier are not judged. None where the caller vouches for the whole frame.
        seed_noise: standard deviation between models trained alike with other seeds, of `net_return` (mean
            per row) and `log_loss`; empty when not measured.
    """

    name: str
    rows: pl.DataFrame
    seen_until: datetime | None = None
    seed_noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """One earlier attempt at this gate: when, what it spent of the yearly budget, what came of it."""

    at: datetime
    spent: float
    outcome: Outcome
    sharpe_per_block: float | None = None


@dataclass(frozen=True)
class History:
    """The model's life so far.

    Attributes:
        attempts: earlier gate attempts, any order.
        num_trials: configurations tried in searches for this model (each Optuna trial is one).
        trial_sharpes: their Sharpe ratios per block, where known.
    """

    attempts: Sequence[Attempt] = ()
    num_trials: int = 1
    trial_sharpes: Sequence[float] = ()

    def spent(self, as_of: datetime) -> float:
        """Budget spent in the 365 days before `as_of`."""
        return sum(a.spent for a in self.attempts if as_of - timedelta(days=365) < a.at <= as_of)

    def recent(self, as_of: datetime) -> int:
        """Attempts in the 365 days before `as_of`."""
        return sum(as_of - timedelta(days=365) < a.at <= as_of for a in self.attempts)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `passed` None: it was not done. A failed check leads to `on_failure`."""

    name: str
    passed: bool | None
    detail: str
    on_failure: Outcome = "hold"


@dataclass(frozen=True)
class Verdict:
    """The gate's answer.

    Attributes:
        outcome: promote; keep (the incumbent stays); hold (a person must look).
        reasons: sentences, the deciding one first.
        numbers: figures behind them.
        checks: everything that was looked at.
        decided: False where the evidence is too weak either way.
        days_to_decide: about how many more days of rows would decide it if the measured difference is the
            true one; None when decided, or when no number of days would help.
        spent: part of the yearly false-promotion budget this attempt used.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    numbers: dict[str, float]
    checks: tuple[Check, ...]
    decided: bool
    days_to_decide: float | None
    spent: float
    candidate: str
    incumbent: str | None

    def attempt(self, at: datetime) -> Attempt:
        """The record to keep in the history for the next attempt."""
        ratio = self.numbers.get("candidate_sharpe_per_block", math.nan)
        # A candidate that never traded has no Sharpe ratio; NaN would spoil the variance of all others.
        return Attempt(at, self.spent, self.outcome, ratio if math.isfinite(ratio) else None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; NaN and infinity become None."""
        data = asdict(self)
        data["numbers"] = {
            k: (v if v == v and abs(v) != float("inf") else None) for k, v in self.numbers.items()
        }
        return data

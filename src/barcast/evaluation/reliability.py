"""The reliability index (D10): one number in 0..1 that says how far a model's answers can be relied on now.

Six parts, each in 0..1, joined by a weighted geometric mean, so that one broken part cannot hide behind the others:

    index = product over parts of part ** weight        (weights sum to 1)

| part         | weight | value                                                                                     |
|--------------|--------|-------------------------------------------------------------------------------------------|
| calibration  | 0.25   | max(0, 1 - ECE / 0.20): perfect at no calibration error, nothing left at 20%             |
| skill        | 0.25   | chance that the out-of-sample log loss is below the class shares', from its block error:  |
|              |        | Phi((log_loss_prior - log_loss) / standard error)                                         |
| stability    | 0.15   | max(0, 1 - 2 x (best - worst period accuracy)): a spread of 50 points leaves nothing      |
| evidence     | 0.10   | blocks / (blocks + 12): half at twelve independent blocks of calendar time                |
| data quality | 0.15   | share of critical expectations passed, times 1 - share of missing bars                    |
| freshness    | 0.10   | 0.5 ** (age / half-life): age since the last label seen, half-life 90 days by default     |

A part that is not known counts as 0.5 and is named in `unknown`. An index below 0.3 is called weak, above 0.6 good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from barcast.evaluation.results import Evaluation

WEIGHTS = {
    "calibration": 0.25,
    "skill": 0.25,
    "stability": 0.15,
    "evidence": 0.10,
    "data_quality": 0.15,
    "freshness": 0.10,
}
_FLOOR = (
    1e-3  # a part of zero makes the index nearly, not exactly, zero: the order of bad models stays visible
)


@dataclass(frozen=True)
class Reliability:
    """The index, its parts, and the names of parts that were not known."""

    index: float
    parts: dict[str, float]
    unknown: tuple[str, ...]

    @property
    def word(self) -> str:
        """weak, fair or good."""
        return "weak" if self.index < 0.3 else ("fair" if self.index < 0.6 else "good")

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "index": self.index,
            "word": self.word,
            "parts": dict(self.parts),
            "unknown": list(self.unknown),
        }


def combine(parts: dict[str, float | None]) -> Reliability:
    """The index of the given parts (each in 0..1; None or NaN where not known)."""
    known: dict[str, float] = {}
    unknown = []
    for name in WEIGHTS:
        value = parts.get(name)
        if value is None or math.isnan(value):
            unknown.append(name)
            known[name] = 0.5
        else:
            known[name] = min(1.0, max(0.0, value))
    log = sum(WEIGHTS[n] * math.log(max(v, _FLOOR)) for n, v in known.items())
    return Reliability(math.exp(log), known, tuple(unknown))


def index(
    evaluation: Evaluation,
    model: str | None = None,
    *,
    data_quality: float | None = None,
    trained_until: datetime | None = None,
    as_of: datetime | None = None,
    half_life_days: float = 90.0,
) -> Reliability:
    """The reliability of one evaluated model.

    Args:
        data_quality: share of critical expectations passed x (1 - share of missing bars).
        trained_until: end of the last label the model saw; the start of the evaluation window where absent.
        as_of: the moment it is asked for; the end of the evaluation window where absent.
    """
    name = model or evaluation.candidate
    return measured(
        evaluation.metrics[name]["ml"],
        evaluation.intervals[name]["log_loss"],
        accuracy_spread=evaluation.metrics[name]["learning"]["accuracy_spread"],
        window=evaluation.window,
        block_days=evaluation.block_days,
        data_quality=data_quality,
        trained_until=trained_until,
        as_of=as_of,
        half_life_days=half_life_days,
    )


def measured(
    ml: Mapping[str, float],
    log_loss_interval: tuple[float, float],
    *,
    accuracy_spread: float,
    window: tuple[datetime, datetime],
    block_days: float,
    data_quality: float | None = None,
    trained_until: datetime | None = None,
    as_of: datetime | None = None,
    half_life_days: float = 90.0,
) -> Reliability:
    """The reliability from a model's numbers: its ML metrics (`ece`, `log_loss`, `log_loss_prior`), the 95% interval of
    its log loss, and the spread of its accuracy between periods; the rest as in `index`."""
    from scipy import stats

    low, high = log_loss_interval
    error = (high - low) / (2 * 1.96)
    gain = ml["log_loss_prior"] - ml["log_loss"]
    blocks = max(1.0, (window[1] - window[0]).total_seconds() / 86400 / block_days)
    age = ((as_of or window[1]) - (trained_until or window[0])).total_seconds() / 86400
    return combine(
        {
            "calibration": 1.0 - ml["ece"] / 0.20,
            "skill": float(stats.norm.cdf(gain / error)) if error > 0 else None,
            "stability": 1.0 - 2.0 * accuracy_spread,
            "evidence": blocks / (blocks + 12.0),
            "data_quality": data_quality,
            "freshness": 0.5 ** (max(0.0, age) / half_life_days),
        }
    )

"""The automatic priority of a training: what is known of a symbol in, a number from 0 to 100 out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from barcast.config.operations import PriorityConfig


@dataclass(frozen=True)
class Facts:
    """What is known of a symbol; None = not known, and then it does not count.

    Attributes:
        traded_value: mean of price times volume over a day.
        volatility: annualised standard deviation of log returns.
        opportunity: mean absolute expected log return of recent predictions.
        model_age_days: days since the last bar that the answering model of its own was trained on; infinite
            where the symbol has no model of its own.
        reliability: reliability index of its model, 0 to 1.
        drift: population stability index of its features.
        answers_per_day: how often it is asked for.
    """

    traded_value: float | None = None
    volatility: float | None = None
    opportunity: float | None = None
    model_age_days: float | None = None
    reliability: float | None = None
    drift: float | None = None
    answers_per_day: float | None = None


def factors(facts: Facts, config: PriorityConfig) -> dict[str, float]:
    """Each known fact as a number from 0 (nothing presses) to 1."""
    found = {
        "traded_value": _saturated(facts.traded_value, config.traded_value_half),
        "volatility": _saturated(facts.volatility, config.volatility_half),
        "opportunity": _saturated(facts.opportunity, config.opportunity_half),
        "model_age": _saturated(facts.model_age_days, config.model_age_half_days),
        "unreliability": _unreliability(facts.reliability),
        "drift": _saturated(facts.drift, config.drift_half),
        "use": _saturated(facts.answers_per_day, config.use_half_per_day),
    }
    return {name: value for name, value in found.items() if value is not None}


def automatic_priority(facts: Facts, config: PriorityConfig) -> float:
    """100 · Σ weight · factor / Σ weight over the known factors; 50 where nothing is known.

    It rises with every fact but reliability, with which it falls.
    """
    known = factors(facts, config)
    weights = {name: float(getattr(config, f"{name}_weight")) for name in known}
    total = sum(weights.values())
    if total <= 0:
        return 50.0
    return 100.0 * sum(weights[name] * known[name] for name in known) / total


def _saturated(value: float | None, half: float) -> float | None:
    if value is None or math.isnan(value):
        return None
    value = max(0.0, value)
    return 1.0 if math.isinf(value) else value / (value + half)


def _unreliability(reliability: float | None) -> float | None:
    if reliability is None or math.isnan(reliability):
        return None
    return 1.0 - min(1.0, max(0.0, reliability))

"""How large: Kelly, then volatility, then confidence. The account's room is applied by the limits
(`limits.py`).

Kelly for a bet that wins `b` per unit lost with probability `p` is f = p - (1 - p) / b (Kelly, 1956). A
bar's bet has no fixed stakes, so the continuous form is used beside it: f = mean / variance of the return,
and the smaller of the two counts. Both rest on estimated numbers, hence the fraction and the cap.
"""

from __future__ import annotations

import math

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.types import Band


def kelly_binary(p_win: float, payoff: float) -> float:
    """Kelly share of a bet that pays `payoff` per unit with probability `p_win`, else loses the unit; 0
    without an edge.

    >>> kelly_binary(0.6, 1.0)
    0.2
    """
    if payoff <= 0:
        return 0.0
    return max(0.0, round(p_win - (1.0 - p_win) / payoff, 12))


def kelly_continuous(mean: float, volatility: float) -> float:
    """Kelly share mean / variance for a return with this mean and standard deviation; 0 without an edge."""
    if mean <= 0 or volatility <= 0:
        return 0.0
    return mean / max(volatility**2, 1e-300)  # the square of a tiny number is zero


def kelly_size(side_confidence: float, edge: float, volatility: float, config: DecisionsConfig) -> float:
    """Fractional, capped Kelly share.

    Args:
        side_confidence: probability of the side against the opposite.
        edge: expected log return of the side after costs.
        volatility: standard deviation of the return over the horizon.
    """
    full = min(kelly_binary(side_confidence, 1.0), kelly_continuous(edge, volatility))
    return min(config.kelly_fraction * full, config.kelly_cap)


def volatility_adjusted(size: float, volatility: float, config: DecisionsConfig) -> float:
    """`size`, reduced so that its volatility over the horizon stays within the target; never raised."""
    if volatility <= 0 or not math.isfinite(volatility):
        return 0.0
    return min(size, config.target_volatility / volatility)


def confidence_factor(band: Band, config: DecisionsConfig) -> float:
    """Factor of the confidence band: 0 below the threshold, then the documented x0.5, 1, x1.5."""
    return {
        "below": 0.0,
        "low": config.low_confidence_size,
        "normal": 1.0,
        "high": config.high_confidence_size,
    }[band]

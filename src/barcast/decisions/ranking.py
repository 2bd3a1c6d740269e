"""Which symbols deserve attention first. (Their shares of the workers' time: `operations.queue.shares`.)"""

from __future__ import annotations

from collections.abc import Sequence

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.confidence import side_confidence, side_of
from barcast.decisions.decide import edge
from barcast.decisions.types import Signal


def opportunity(signal: Signal, config: DecisionsConfig) -> float:
    """Expected gain after costs per unit of volatility, times how one-sided the probabilities are.

    0 without an edge or a side: (side * expected_return - cost) / expected_volatility * (2 *
    side_confidence - 1).
    """
    side = side_of(signal.p_sell, signal.p_buy)
    gain = edge(signal, side, config)
    if side == 0 or gain <= 0 or signal.expected_volatility <= 0:
        return 0.0
    return gain / signal.expected_volatility * (2 * side_confidence(signal.p_sell, signal.p_buy) - 1)


def ranked(signals: Sequence[Signal], config: DecisionsConfig) -> list[tuple[Signal, float]]:
    """Signals with their opportunity, largest first; ties by name."""
    scored = [(s, opportunity(s, config)) for s in signals]
    return sorted(scored, key=lambda item: (-item[1], item[0].symbol))

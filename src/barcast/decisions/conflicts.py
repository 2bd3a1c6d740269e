"""Signals of correlated symbols that contradict one another: the stronger stays, the weaker goes, both are
told why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.confidence import side_of
from barcast.decisions.ranking import ranked
from barcast.decisions.types import Market, RuleRefusal, Signal


@dataclass(frozen=True)
class Conflict:
    """Two signals that cannot both be right often: their symbols move together, their sides do not (or the
    reverse)."""

    kept: str
    dropped: str
    correlation: float
    kept_score: float
    dropped_score: float

    def refusal(self) -> RuleRefusal:
        """What the dropped symbol's advice says."""
        return RuleRefusal(
            "conflict",
            f"Contradicts {self.kept} (correlation {self.correlation:+.2f}), whose opportunity is larger "
            f"({self.kept_score:.3f} against {self.dropped_score:.3f}).",
            self.correlation,
        )


def resolve(signals: Sequence[Signal], market: Market, config: DecisionsConfig) -> list[Conflict]:
    """Conflicts among signals, strongest first; a signal dropped once drops nobody else.

    Two signals contradict when |correlation| is at least `max_correlation` and side x side x
    sign(correlation) is -1.
    """
    kept: list[tuple[Signal, float]] = []
    found: list[Conflict] = []
    for signal, score in ranked(signals, config):
        side = side_of(signal.p_sell, signal.p_buy)
        against = None
        for other, other_score in kept:
            correlation = market.correlated(signal.symbol, other.symbol)
            other_side = side_of(other.p_sell, other.p_buy)
            sign = 1 if correlation > 0 else -1
            if abs(correlation) >= config.max_correlation and side * other_side * sign < 0:
                against = Conflict(other.symbol, signal.symbol, correlation, other_score, score)
                break
        if against is not None:
            found.append(against)
        else:
            kept.append((signal, score))
    return found

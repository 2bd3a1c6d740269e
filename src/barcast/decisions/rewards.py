"""What a finished trade, or a trade not made, is worth to learning: the documented schedule, each part
shown."""

from __future__ import annotations

from dataclasses import dataclass

from barcast.config.decisions import DecisionsConfig


@dataclass(frozen=True)
class TradeOutcome:
    """What is known of a finished trade.

    Attributes:
        net_return: simple return of the entry value after costs.
        duration_hours: from entry to exit.
        risk_level: 1..5 at entry; None when it is not known.
        side_confidence: at entry; None when it is not known.
        size: share of equity.
        expected_volatility: over the horizon, at entry.
        volatility_regime: low, medium, high or unknown, at entry.
        profits_before: net profits in a row directly before this trade.
        stopped_early: closed before its horizon.
        held_net_return: what it would have brought if held to its horizon; None when not known.
    """

    net_return: float
    duration_hours: float
    risk_level: int | None = None
    side_confidence: float | None = None
    size: float = 0.0
    expected_volatility: float = 0.0
    volatility_regime: str = "unknown"
    profits_before: int = 0
    stopped_early: bool = False
    held_net_return: float | None = None


@dataclass(frozen=True)
class Reward:
    """Points and where they come from."""

    total: float
    parts: tuple[tuple[str, float], ...]


def reward(trade: TradeOutcome, config: DecisionsConfig) -> Reward:
    """Reward of a finished trade. A trade that ends at exactly zero is neither profit nor loss."""
    r = config.reward
    parts: list[tuple[str, float]] = []
    if trade.net_return > 0:
        parts.append(("profitable", r.profitable))
        if trade.net_return > r.high_profit_return:
            parts.append(("high_profit", r.high_profit))
        if trade.duration_hours < r.quick_profit_hours:
            parts.append(("quick_profit", r.quick_profit))
        if trade.risk_level is not None and trade.risk_level <= r.low_risk_level:
            parts.append(("low_risk", r.low_risk))
        if trade.profits_before >= r.consistency_trades:
            parts.append(("consistency", r.consistency))
        within = trade.size * trade.expected_volatility <= config.target_volatility * (1 + 1e-9)
        if trade.volatility_regime == "high" and trade.size > 0 and within:
            parts.append(("volatility_adaptation", r.volatility_adaptation))
    elif trade.net_return < 0:
        parts.append(("losing", r.losing))
        if trade.net_return < -r.big_loss_return:
            parts.append(("big_loss", r.big_loss))
        if trade.side_confidence is not None and trade.side_confidence >= config.high_threshold:
            parts.append(("overconfidence", r.overconfidence))
    held = trade.held_net_return
    if trade.stopped_early and held is not None and held > trade.net_return:
        parts.append(("early_stop", r.early_stop))
    return _sum(parts)


def missed(side: int, forward_log_return: float, config: DecisionsConfig) -> Reward:
    """Reward of NOT trading: a light penalty when the predicted side would have earned more than its
    costs."""
    gain = side * forward_log_return - config.cost_bps / 1e4
    return _sum([("missed", config.reward.missed)] if side != 0 and gain > 0 else [])


def _sum(parts: list[tuple[str, float]]) -> Reward:
    return Reward(round(sum(points for _, points in parts), 10), tuple(parts))

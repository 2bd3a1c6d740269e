"""One signal, one account, one market: one advice. Pure: the same three always give the same answer.

signal → side and confidence → refusals (all of them, not only the first) → size step by step → advice.
"""

from __future__ import annotations

from dataclasses import replace

from barcast.config.decisions import DecisionsConfig
from barcast.decisions import limits, sanity, sizing
from barcast.decisions.confidence import band, side_confidence, side_of
from barcast.decisions.types import Account, Advice, Market, RuleRefusal, Signal, SizeSteps


def decide(signal: Signal, account: Account, market: Market, config: DecisionsConfig) -> Advice:
    """Advice for one symbol.

    The rules that guard new risk (drawdown, trade rate, cool-down, volatility) never refuse to get out of an
    opposite position; they only keep the trade from going on beyond it. The emergency stop refuses everything.
    """
    side = side_of(signal.p_sell, signal.p_buy)
    confidence = side_confidence(signal.p_sell, signal.p_buy)
    held = account.share(signal.symbol)
    reducing = side != 0 and held * side < 0
    refusals = [
        *limits.emergency(account, config),
        *_conviction(signal, side, confidence, config),
        *sanity.check(signal, side, config),
        *limits.consensus(signal, side, config),
    ]
    against_new_risk = [
        *limits.drawdown(account, config),
        *limits.trade_rate(signal, account, market, config),
        *limits.cooldown(account, market, config),
        *limits.volatility(signal, market, config),
    ]
    if side < 0 and not config.allow_short:
        against_new_risk.append(
            RuleRefusal("long_only", "SELL would open a short position; shorts are not allowed.")
        )
    if not reducing:
        refusals += against_new_risk
    steps, notes = _size(signal, side, confidence, account, market, config)
    only_closes = reducing and bool(against_new_risk)
    if only_closes and steps.portfolio_adjusted > abs(held):
        notes.append(f"{against_new_risk[0].rule}: reduced to the held {abs(held):.4f}")
        steps = _with(steps, portfolio_adjusted=abs(held))
    if not refusals and steps.portfolio_adjusted < config.min_size_share:
        refusals.append(
            RuleRefusal(
                "size_too_small",
                f"What is left of the size, {steps.portfolio_adjusted:.5f} of equity, is not worth a trade.",
                steps.portfolio_adjusted,
                config.min_size_share,
            )
        )
    final = 0.0 if refusals else steps.portfolio_adjusted
    return Advice(
        symbol=signal.symbol,
        side=0 if refusals else side,
        size=final,
        wanted_side=side,
        side_confidence=confidence,
        band=band(confidence, config),
        sizes=_with(steps, suggested=final),
        refusals=tuple(refusals),
        notes=tuple(notes),
        only_closes=only_closes and not refusals,
    )


def edge(signal: Signal, side: int, config: DecisionsConfig) -> float:
    """Expected log return of the side after the round-trip cost."""
    return side * signal.expected_return - config.cost_bps / 1e4


def _conviction(signal: Signal, side: int, confidence: float, config: DecisionsConfig) -> list[RuleRefusal]:
    if side == 0:
        return [RuleRefusal("no_side", "SELL and BUY are equally likely.")]
    found = []
    if confidence < config.act_threshold:
        found.append(
            RuleRefusal(
                "confidence",
                f"Side confidence {confidence:.1%} is below {config.act_threshold:.0%}.",
                confidence,
                config.act_threshold,
            )
        )
    move = signal.p_sell + signal.p_buy
    if move < config.min_move_probability:
        found.append(
            RuleRefusal(
                "move_probability",
                f"A move either way has probability {move:.1%}; at least "
                f"{config.min_move_probability:.0%} is asked.",
                move,
                config.min_move_probability,
            )
        )
    gain = edge(signal, side, config) * 1e4
    if gain <= config.min_edge_bps:
        found.append(
            RuleRefusal(
                "edge",
                f"Expected gain after costs is {gain:.1f} bps; more than {config.min_edge_bps:g} is asked.",
                gain,
                config.min_edge_bps,
            )
        )
    return found


def _size(
    signal: Signal, side: int, confidence: float, account: Account, market: Market, config: DecisionsConfig
) -> tuple[SizeSteps, list[str]]:
    kelly = sizing.kelly_size(confidence, edge(signal, side, config), signal.expected_volatility, config)
    calm = sizing.volatility_adjusted(kelly, signal.expected_volatility, config)
    sure = calm * sizing.confidence_factor(band(confidence, config), config)
    final, notes = limits.room(signal, side, sure, account, market, config) if side else (0.0, [])
    return SizeSteps(signal.model_size, kelly, calm, sure, final, 0.0), notes


def _with(steps: SizeSteps, **changes: float) -> SizeSteps:
    return replace(steps, **changes)

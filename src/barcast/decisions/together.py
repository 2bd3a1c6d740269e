"""All symbols at one bar: ranked by opportunity, contradictions resolved, each trade leaving less room for
the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.conflicts import resolve
from barcast.decisions.decide import decide
from barcast.decisions.ranking import ranked
from barcast.decisions.types import Account, Advice, Market, Position, RuleRefusal, Signal, Trade


def decide_together(
    signals: Sequence[Signal],
    account: Account,
    market: Market,
    config: DecisionsConfig,
    weights: Mapping[str, float] | None = None,
) -> dict[str, Advice]:
    """Advice per symbol.

    Every accepted trade counts against the limits of those after it as if it were done: position, capital and
    correlation limits, and trades per hour.

    Args:
        weights: largest share of equity per symbol from the portfolio optimisation (absolute); none: no
        such limit.
    """
    alone = {s.symbol: decide(s, account, market, config) for s in signals}
    acting = [s for s in signals if alone[s.symbol].side != 0]
    dropped = {c.dropped: c.refusal() for c in resolve(acting, market, config)}
    result = dict(alone)
    for signal, _ in ranked(acting, config):
        symbol = signal.symbol
        if symbol in dropped:
            refusals = (*alone[symbol].refusals, dropped[symbol])
            result[symbol] = _without(alone[symbol], refusals)
            continue
        advice = decide(signal, account, market, config)
        if (
            weights is not None
            and advice.side != 0
            and advice.size > (allowed := abs(weights.get(symbol, 0.0)))
        ):
            note = f"portfolio: {advice.size:.4f} reduced to {allowed:.4f}"
            sizes = replace(advice.sizes, portfolio_adjusted=allowed, suggested=allowed)
            side = advice.side if allowed >= config.min_size_share else 0
            advice = replace(
                advice, side=side, size=allowed if side else 0.0, sizes=sizes, notes=(*advice.notes, note)
            )
        result[symbol] = advice
        if advice.side != 0:
            account = _as_done(account, signal, advice, market)
    return result


def _without(advice: Advice, refusals: tuple[RuleRefusal, ...]) -> Advice:
    return replace(advice, side=0, size=0.0, refusals=refusals, sizes=replace(advice.sizes, suggested=0.0))


def _as_done(account: Account, signal: Signal, advice: Advice, market: Market) -> Account:
    quantity = advice.side * advice.size * account.equity / signal.price
    old = [p for p in account.positions if p.symbol == signal.symbol]
    rest = tuple(p for p in account.positions if p.symbol != signal.symbol)
    total = sum(p.quantity for p in old) + quantity
    held = (Position(symbol=signal.symbol, quantity=total, price=signal.price),)
    return account.model_copy(
        update={
            "positions": rest + held,
            "trades": (*account.trades, Trade(symbol=signal.symbol, opened_at=market.as_of)),
        }
    )

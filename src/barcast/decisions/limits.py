"""The rules that refuse (E4), each a pure function that names itself, and the limits that shrink a size.

A refusal never shows in a smaller size and a limit never refuses alone: below `min_size_share` the last
limit says so.
"""

from __future__ import annotations

from datetime import timedelta

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.types import Account, Market, RuleRefusal, Signal


def emergency(account: Account, config: DecisionsConfig) -> list[RuleRefusal]:
    """Everything is stopped, by a person or by the drawdown trigger."""
    if account.emergency_reason:
        return [
            RuleRefusal(
                "emergency_stop", f"Emergency stop: {account.emergency_reason}. Only a person lifts it."
            )
        ]
    if account.drawdown >= config.emergency_drawdown:
        return [
            RuleRefusal(
                "emergency_stop",
                f"Drawdown {account.drawdown:.1%} reached {config.emergency_drawdown:.0%}: the "
                f"emergency stop is due.",
                account.drawdown,
                config.emergency_drawdown,
            )
        ]
    return []


def drawdown(account: Account, config: DecisionsConfig) -> list[RuleRefusal]:
    """No new risk while the account has lost too much."""
    if account.drawdown < config.max_drawdown:
        return []
    return [
        RuleRefusal(
            "drawdown",
            f"Drawdown {account.drawdown:.1%} is at or above {config.max_drawdown:.0%}.",
            account.drawdown,
            config.max_drawdown,
        )
    ]


def trade_rate(
    signal: Signal, account: Account, market: Market, config: DecisionsConfig
) -> list[RuleRefusal]:
    """At most so many trades in the hour that ends at `as_of`, in all and per symbol."""
    since = market.as_of - timedelta(hours=1)
    recent = [t for t in account.trades if since < t.opened_at <= market.as_of]
    own = [t for t in recent if t.symbol == signal.symbol]
    found = []
    for name, count, limit in (
        ("trades_per_hour", len(recent), config.max_trades_per_hour),
        ("trades_per_symbol_hour", len(own), config.max_trades_per_symbol_hour),
    ):
        if count >= limit:
            found.append(
                RuleRefusal(name, f"{count} trades in the last hour; at most {limit}.", count, limit)
            )
    return found


def cooldown(account: Account, market: Market, config: DecisionsConfig) -> list[RuleRefusal]:
    """A pause after several losses in a row, counted from the close of the last one."""
    closed = sorted(
        (t for t in account.trades if t.closed_at is not None and t.closed_at <= market.as_of),
        key=lambda t: t.closed_at or market.as_of,
    )
    losses = 0
    for trade in reversed(closed):
        if trade.net_return is None or trade.net_return >= 0:
            break
        losses += 1
    if losses < config.cooldown_losses:
        return []
    last = closed[-1].closed_at or market.as_of
    pause = timedelta(seconds=config.cooldown_bars * market.interval_seconds)
    if market.as_of >= last + pause:
        return []
    return [
        RuleRefusal(
            "cooldown",
            f"{losses} losses in a row; trading pauses until {(last + pause):%Y-%m-%d %H:%M} UTC.",
            losses,
            config.cooldown_losses,
        )
    ]


def volatility(signal: Signal, market: Market, config: DecisionsConfig) -> list[RuleRefusal]:
    """No new risk in a market that is far wilder than usual."""
    ratio = market.volatility_ratio.get(signal.symbol)
    if ratio is None or ratio <= config.max_volatility_ratio:
        return []
    return [
        RuleRefusal(
            "volatility",
            f"Volatility is {ratio:.1f} times its median; at most {config.max_volatility_ratio:g}.",
            ratio,
            config.max_volatility_ratio,
        )
    ]


def consensus(signal: Signal, side: int, config: DecisionsConfig) -> list[RuleRefusal]:
    """The ensemble's weighted vote must lie on the side; without an ensemble there is nothing to ask."""
    if signal.members is None:
        return [
            RuleRefusal(
                "consensus", "The ensemble's members could not be asked; no trade without their vote."
            )
        ]
    total = sum(weight for _, weight in signal.members)
    if total <= 0:
        return []
    share = sum(weight for vote, weight in signal.members if vote == side) / total
    if share >= config.consensus_share:
        return []
    return [
        RuleRefusal(
            "consensus",
            f"{share:.0%} of the ensemble is on this side; at least {config.consensus_share:.0%} is asked.",
            share,
            config.consensus_share,
        )
    ]


def room(
    signal: Signal, side: int, size: float, account: Account, market: Market, config: DecisionsConfig
) -> tuple[float, list[str]]:
    """`size` after position, capital and correlation limits, and a note for each one that bit.

    What counts is the exposure AFTER the trade; a trade that reduces an opposite position always has room
    for it.
    """
    held = account.share(signal.symbol)
    closing = max(0.0, -side * held)  # share that the trade first closes
    notes: list[str] = []
    limits = [
        (
            "position_limit",
            config.max_position_share + closing - max(0.0, side * held),
            config.max_position_share,
        ),
        ("capital_limit", config.max_capital_share - account.gross + 2 * closing, config.max_capital_share),
        (
            "correlation_limit",
            config.max_correlated_share - side * _group(signal.symbol, account, market, config),
            config.max_correlated_share,
        ),
    ]
    for name, allowed, limit in limits:
        allowed = max(0.0, allowed, min(size, closing))
        if size > allowed:
            notes.append(f"{name}: {size:.4f} reduced to {allowed:.4f} (limit {limit:g} of equity)")
            size = allowed
    return size, notes


def _group(symbol: str, account: Account, market: Market, config: DecisionsConfig) -> float:
    """Net share of equity in symbols that move with `symbol` (opposite movers count with the other sign)."""
    total = 0.0
    for position in account.positions:
        correlation = market.correlated(symbol, position.symbol)
        if abs(correlation) >= config.max_correlation:
            total += position.value / account.equity * (1.0 if correlation > 0 else -1.0)
    return total

"""The trading loop of one symbol, compiled by numba: bars and targets in, equity and round trips out.

Order of events in bar i: (1) financing of the position carried over from close i-1; (2) the decision made at
    close i-1
trades at bar i's open (or close); (3) the account is marked at bar i's close. Nothing of bar i reaches a
decision before its close.
"""

from __future__ import annotations

import numba
import numpy as np

TRADE_COLUMNS = (
    "side",
    "entry",
    "exit",
    "entry_price",
    "exit_price",
    "gross",
    "cost",
    "peak_notional",
    "equity",
)


@numba.njit(cache=True)
def simulate(
    open_: np.ndarray,
    close: np.ndarray,
    days: np.ndarray,
    target: np.ndarray,
    trade_limit: np.ndarray,
    one_way: float,
    funding_per_day: float,
    borrow_per_day: float,
    at_close: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Trade one symbol's account, which starts with equity 1.

    Args:
        open_, close: (N,) adjusted prices.
        days: (N,) calendar days since the previous close (0 for the first bar).
        target: (N,) position wanted after close i, in parts of equity.
        trade_limit: (N,) largest notional that a decision of bar i may trade, in parts of starting equity
            (inf: none).

    Returns:
        (N, 7) equity, position (parts of equity at the close), gross P&L, trading cost, financing, traded
        notional, equity before the trade; all in parts of starting equity. And (M, 9) round trips,
        TRADE_COLUMNS.
    """
    n = open_.shape[0]
    out = np.zeros((n, 7))
    trades = np.zeros((n + 2, 9))
    m = 0
    cash, q, wanted, pending = 1.0, 0.0, 0.0, False
    opened = False
    for i in range(n):
        gross, cost, financing, traded = 0.0, 0.0, 0.0, 0.0
        if i > 0:
            carried = q * close[i - 1]
            financing = carried * funding_per_day * days[i]
            if carried < 0:
                financing -= carried * borrow_per_day * days[i]
            cash -= financing
            if opened:
                trades[m, 6] += financing
        price = close[i] if at_close else open_[i]
        if i > 0:
            move = q * (price - close[i - 1])
            gross += move
            if opened:
                trades[m, 5] += move
        before = cash + q * price
        if i > 0 and before > 0 and (pending or target[i - 1] != wanted):
            wanted = target[i - 1]
            goal = wanted * before / price
            delta = goal - q
            limit = trade_limit[i - 1] / price
            pending = abs(delta) > limit
            if pending:
                delta = limit if delta > 0 else -limit
            new = q + delta
            if wanted == 0.0 and not pending:
                new = 0.0
            traded = abs(delta) * price
            cost = traded * one_way
            cash -= delta * price + cost
            # the closing part of the order belongs to the old round trip, the rest to the new one
            closing = min(abs(delta), abs(q)) if delta * q < 0 else 0.0
            if opened and closing > 0:
                trades[m, 6] += closing * price * one_way
            opening = abs(delta) - closing
            if opened and (new == 0.0 or new * q < 0):
                trades[m, 2] = i
                trades[m, 4] = price
                m += 1
                opened = False
            if new != 0.0 and not opened:
                opened = True
                trades[m, 0] = 1.0 if new > 0 else -1.0
                trades[m, 1] = i
                trades[m, 3] = price
                trades[m, 8] = before
            if opened:
                trades[m, 6] += opening * price * one_way
                trades[m, 7] = max(trades[m, 7], abs(new) * price)
            q = new
        move = q * (close[i] - price)
        if i == 0:
            move = 0.0
        gross += move
        if opened:
            trades[m, 5] += move
        if i == n - 1 and q != 0.0:
            # the account ends flat, so that an open position's exit is paid for
            last = abs(q) * close[i]
            traded += last
            cost += last * one_way
            cash += q * close[i] - last * one_way
            trades[m, 6] += last * one_way
            trades[m, 2] = i
            trades[m, 4] = close[i]
            m += 1
            opened = False
            q = 0.0
        equity = cash + q * close[i]
        if equity <= 0.0:
            # ruin: the account is closed and stays at zero
            if opened:
                trades[m, 2] = i
                trades[m, 4] = close[i]
                m += 1
                opened = False
            cash, q, equity = 0.0, 0.0, 0.0
        out[i, 0] = equity
        out[i, 1] = q * close[i] / equity if equity > 0 else 0.0
        out[i, 2] = gross
        out[i, 3] = cost
        out[i, 4] = financing
        out[i, 5] = traded
        out[i, 6] = before
    return out, trades[:m]

"""The rows of the matrix `x` that every kernel reads, and the kernel that fills the derived rows.

Data passes through it first: the engine writes the bar (O to DAY_CLOSES), `base` derives the rest, then the groups run.
In batch the columns are all bars of a symbol; in the stream they are its last bars.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from barcast.features.kernels import ema, log, mean, std, wilder

# given by the engine
O, H, L, C, V, TIME = 0, 1, 2, 3, 4, 5  # noqa: E741 - prices, volume, close time in seconds since 1970
HOUR, HOUR_CLOSES, DAY, DAY_CLOSES = (
    6,
    7,
    8,
    9,
)  # bucket ids of the two higher intervals; 1 where the bucket ends
ANNUAL = 10  # bars per year of the symbol's calendar
GIVEN = 11
# derived by `base`
LC, R, TR, TP, PV, MFV = (
    11,
    12,
    13,
    14,
    15,
    16,
)  # log close, log return, true range, typical price, x volume, money flow volume
ATR, EMA20, EMA50, VOL20, RVOL, RSI = 17, 18, 19, 20, 21, 22  # lines that several groups read windows of
M5, M20, M60 = 23, 24, 25  # log returns over 5, 20 and 60 bars
AO, GARCH = 26, 27  # written by `oscillators` and `volatility_models`
HL2, RS, NIGHT, DAYTIME = (
    28,
    29,
    30,
    31,
)  # squared log range, Rogers-Satchell term, log open by last close, log close by open
NUM_SERIES = 32

# what other symbols may see of a symbol, in the order of `cross_symbol`'s fields
SHARED = (LC, R, M5, M20, M60, VOL20, RVOL, RSI)

BASE_STATE = 16


def base(x, t, n, s, out):
    """Fill the derived rows of column t; NaN where a line has not begun."""
    o, h, l, c, v = x[O, t], x[H, t], x[L, t], x[C, t], x[V, t]  # noqa: E741
    low, high, body = log(l / o), log(h / o), log(c / o)
    x[HL2, t] = (high - low) ** 2
    x[RS, t] = high * (high - body) + low * (low - body)
    x[DAYTIME, t] = body
    x[NIGHT, t] = log(o / x[C, t - 1]) if n > 1 else float("nan")
    x[LC, t] = log(c)
    tp = (h + l + c) / 3.0
    x[TP, t] = tp
    x[PV, t] = tp * v
    x[MFV, t] = ((c - l) - (h - c)) / (h - l) * v if h - l > 1e-12 * c else 0.0
    if n == 1:
        x[R, t] = float("nan")  # no return yet: a window that reached it would show
        x[TR, t] = h - l
        change = 0.0
    else:
        p = x[C, t - 1]
        x[R, t] = log(c / p)
        x[TR, t] = max(h, p) - min(l, p)
        change = c - p
    x[ATR, t] = x[RSI, t] = x[VOL20, t] = x[RVOL, t] = float("nan")
    if n > 1:
        x[ATR, t] = wilder(s, 0, x[TR, t], 14)
        up = wilder(s, 2, max(change, 0.0), 14)
        down = wilder(s, 4, max(-change, 0.0), 14)
        if n > 14:
            x[RSI, t] = 100.0 * up / (up + down) if up + down > 1e-12 * c else 50.0
    x[EMA20, t] = ema(s, 6, c, 20)
    x[EMA50, t] = ema(s, 8, c, 50)
    if n > 20:
        x[VOL20, t] = std(x, R, t, 20)
    x[M5, t] = log(c / x[C, t - 5]) if n > 5 else float("nan")
    x[M20, t] = log(c / x[C, t - 20]) if n > 20 else float("nan")
    x[M60, t] = log(c / x[C, t - 60]) if n > 60 else float("nan")
    if n >= 20:
        m = mean(x, V, t, 20)
        x[RVOL, t] = v / m if m > 0.0 else 1.0

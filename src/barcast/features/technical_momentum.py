"""B2, momentum and oscillators: RSI, stochastics, Williams %R, CCI, TSI, ultimate, awesome and their kin."""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.compiling import njit
from barcast.features.kernels import TINY, clip, ema, highest, lowest, mean, smooth, total, wilder
from barcast.features.series import AO, ATR, RSI, TP, TR, C, H, L, O
from barcast.features.spec import Category
from barcast.features.warmup import ema_bars, wilder_bars

momentum = Category("technical")

_WILDER = "Wilder, New Concepts in Technical Trading Systems (1978)"
_MURPHY = "Murphy, Technical Analysis of the Financial Markets (1999)"


@momentum.group(
    ("rsi_7", "Wilder's RSI over 7 bars; 50 where nothing moved", wilder_bars(7), "0..100", _WILDER),
    ("rsi_14", "Wilder's RSI over 14 bars; 50 where nothing moved", wilder_bars(14), "0..100", _WILDER),
    ("rsi_21", "Wilder's RSI over 21 bars; 50 where nothing moved", wilder_bars(21), "0..100", _WILDER),
    ("stochastic_rsi_14", "place of RSI 14 within its own 14-bar range; 50 where it has none", wilder_bars(14) + 13, "0..100", "Chande and Kroll, The New Technical Trader (1994)"),
    ("roc_14", "close by the close 14 bars ago, less 1, in percent", 15, "percent", _MURPHY),
    ("momentum_atr_10", "close less the close 10 bars ago, by Wilder's average true range", wilder_bars(14), "true ranges", _MURPHY),
    ("tsi_25_13", "true strength: doubly smoothed change (25, 13) by doubly smoothed absolute change", ema_bars(25, 13), "-100..100", "Blau, Momentum, Direction, and Divergence (1995)"),
    ("tsi_signal_7", "exponential average over 7 bars of the true strength index", ema_bars(25, 13, 7), "-100..100", "Blau (1995)"),
    ("coppock_14_11_10", "weighted average over 10 bars of the 14-bar plus the 11-bar rate of change", 24, "percent", "Coppock, Barron's (1962)"),
    ("kst_10_15_20_30", "Pring's know sure thing: weighted sum of four smoothed rates of change", 46, "percent", "Pring, Stocks & Commodities 10:9 (1992)"),
    state=32,
)  # fmt: skip
def strength(x, t, n, s, out):
    c = x[C, t]
    if n < 2:
        return
    change = c - x[C, t - 1]
    gain, loss = max(change, 0.0), max(-change, 0.0)
    u, d = wilder(s, 0, gain, 7), wilder(s, 2, loss, 7)
    out[0] = 100.0 * u / (u + d) if u + d > TINY * c else (50.0 if u == u else u)
    out[1] = x[RSI, t]
    u, d = wilder(s, 4, gain, 21), wilder(s, 6, loss, 21)
    out[2] = 100.0 * u / (u + d) if u + d > TINY * c else (50.0 if u == u else u)
    if n >= 28:
        top, bottom = highest(x, RSI, t, 14), lowest(x, RSI, t, 14)
        out[3] = 100.0 * (x[RSI, t] - bottom) / (top - bottom) if top - bottom > 1e-9 else 50.0
    if n >= 15:
        out[4] = 100.0 * (c / x[C, t - 14] - 1.0)
        a = x[ATR, t]
        out[5] = (c - x[C, t - 10]) / a if a > TINY * c else (0.0 if a == a else a)
    up = ema(s, 18, change, 25)
    size = ema(s, 20, abs(change), 25)
    if n >= 26:
        up = ema(s, 22, up, 13)
        size = ema(s, 24, size, 13)
        if n >= 38:
            v = 100.0 * up / size if size > TINY * c else 0.0
            out[6] = v
            out[7] = ema(s, 26, v, 7)
    if n >= 24:
        a = 0.0
        for i in range(10):
            p = x[C, t - i]
            a += (10.0 - i) * (p / x[C, t - i - 14] + p / x[C, t - i - 11] - 2.0)
        out[8] = 100.0 * a / 55.0
    if n >= 46:
        a = 0.0
        for i in range(15):
            p = x[C, t - i]
            if i < 10:
                a += (p / x[C, t - i - 10] - 1.0) / 10.0
                a += 2.0 * (p / x[C, t - i - 15] - 1.0) / 10.0
                a += 3.0 * (p / x[C, t - i - 20] - 1.0) / 10.0
            a += 4.0 * (p / x[C, t - i - 30] - 1.0) / 15.0
        out[9] = 100.0 * a


@njit
def fast_stochastic(x, t, w):
    """100 x place of the close within the range of w bars; 50 where there is none."""
    top, bottom = highest(x, H, t, w), lowest(x, L, t, w)
    return 100.0 * (x[C, t] - bottom) / (top - bottom) if top - bottom > TINY * top else 50.0


@njit
def commodity_channel(x, t, w):
    """(typical price - mean) / (0.015 x mean absolute deviation) of w bars; 0 where constant."""
    m = mean(x, TP, t, w)
    a = 0.0
    for i in range(t - w + 1, t + 1):
        a += abs(x[TP, i] - m)
    a /= w
    return (x[TP, t] - m) / (0.015 * a) if a > TINY * m else 0.0


@momentum.group(
    ("stochastic_k_14", "mean over 3 bars of the close's place within its 14-bar range; 50 where none", 18, "0..100", "Lane, Stocks & Commodities 2:3 (1984)"),
    ("stochastic_d_14", "mean over 3 bars of stochastic %K", 18, "0..100", "Lane (1984)"),
    ("williams_r_14", "distance of the close from the 14-bar high, in percent of the range; -50 where none", 14, "-100..0", "Williams, How I Made One Million Dollars (1973)"),
    ("cci_14", "typical price less its 14-bar mean by 0.015 mean absolute deviations; 0 where constant", 14, "deviations", "Lambert, Commodities (1980)"),
    ("cci_20", "typical price less its 20-bar mean by 0.015 mean absolute deviations; 0 where constant", 20, "deviations", "Lambert (1980)"),
    ("ultimate_7_14_28", "4:2:1 weighted buying pressure by true range over 7, 14 and 28 bars; 50 where no range", 29, "0..100", "Williams, Stocks & Commodities 3:4 (1985)"),
    ("awesome_5_34", "mean middle price over 5 bars less that over 34, by the close", 34, "ratio", "Williams, New Trading Dimensions (1998)"),
    ("accelerator_5_34", "awesome oscillator less its 5-bar mean, by the close", 38, "ratio", "Williams (1998)"),
    ("balance_of_power_14", "mean over 14 bars of (close - open) / (high - low), 0 where no range", 14, "-1..1", "Livshin, Stocks & Commodities 19:8 (2001)"),
    ("dpo_20", "close 11 bars ago less the 20-bar mean, by the close (nothing ahead is read)", 20, "ratio", _MURPHY),
    ("intraday_momentum_14", "100 x sum of rising bodies by sum of all bodies over 14 bars; 50 where none", 14, "0..100", "Chande and Kroll (1994)"),
    ("bull_power_13", "high less the exponential average over 13 bars, by the close", ema_bars(13), "ratio", "Elder, Trading for a Living (1993)"),
    ("bear_power_13", "low less the exponential average over 13 bars, by the close", ema_bars(13), "ratio", "Elder (1993)"),
    ("qstick_10", "mean body over 10 bars by Wilder's average true range", wilder_bars(14), "true ranges", "Chande and Kroll (1994)"),
    ("fisher_10", "Fisher transform of the smoothed place of the middle price in its 10-bar range, begun 40 bars back", 50, "transformed", "Ehlers, Stocks & Commodities 20:11 (2002)"),
    ("stochastic_momentum_14", "doubly smoothed distance from the middle of the 14-bar range by doubly smoothed half range", ema_bars(3, 3) + 14, "-100..100", "Blau (1995)"),
    ("relative_vigor_10", "sum of weighted bodies by sum of weighted ranges over 10 bars; 0 where no range", 18, "ratio", "Ehlers, Stocks & Commodities 20:1 (2002)"),
    state=16,
)  # fmt: skip
def oscillators(x, t, n, s, out):
    c = x[C, t]
    x[AO, t] = math.nan
    e13 = ema(s, 0, c, 13)
    out[11] = (x[H, t] - e13) / c
    out[12] = (x[L, t] - e13) / c
    if n >= 14:
        out[2] = fast_stochastic(x, t, 14) - 100.0
        out[3] = commodity_channel(x, t, 14)
        power = rising = bodies = 0.0
        for i in range(t - 13, t + 1):
            body = x[C, i] - x[O, i]
            span = x[H, i] - x[L, i]
            if span > TINY * x[C, i]:
                power += body / span
            rising += max(body, 0.0)
            bodies += abs(body)
        out[8] = power / 14.0
        out[10] = 100.0 * rising / bodies if bodies > TINY * c else 50.0
        top, bottom = highest(x, H, t, 14), lowest(x, L, t, 14)
        d = smooth(s, 4, smooth(s, 2, c - 0.5 * (top + bottom), 1, 0.5), 1, 0.5)
        r = smooth(s, 8, smooth(s, 6, 0.5 * (top - bottom), 1, 0.5), 1, 0.5)
        out[15] = 100.0 * d / r if r > TINY * c else 0.0
        body = 0.0
        for i in range(t - 9, t + 1):
            body += x[C, i] - x[O, i]
        a = x[ATR, t]
        out[13] = body / 10.0 / a if a > TINY * c else (0.0 if a == a else a)
    if n >= 18:
        f0, f1, f2 = fast_stochastic(x, t, 14), fast_stochastic(x, t - 1, 14), fast_stochastic(x, t - 2, 14)
        f3, f4 = fast_stochastic(x, t - 3, 14), fast_stochastic(x, t - 4, 14)
        out[0] = (f0 + f1 + f2) / 3.0
        out[1] = (f0 + 2.0 * f1 + 3.0 * f2 + 2.0 * f3 + f4) / 9.0
        num = den = 0.0
        for i in range(t - 9, t + 1):
            for k in range(4):
                w = 1.0 if k == 0 or k == 3 else 2.0
                num += w * (x[C, i - k] - x[O, i - k])
                den += w * (x[H, i - k] - x[L, i - k])
        out[16] = num / den if den > TINY * c else 0.0
    if n >= 20:
        out[4] = commodity_channel(x, t, 20)
        out[9] = (x[C, t - 11] - mean(x, C, t, 20)) / c
    if n >= 29:
        up7 = up14 = up28 = 0.0
        for i in range(28):
            b = x[C, t - i] - min(x[L, t - i], x[C, t - i - 1])
            if i < 7:
                up7 += b
            if i < 14:
                up14 += b
            up28 += b
        r7, r14, r28 = total(x, TR, t, 7), total(x, TR, t, 14), total(x, TR, t, 28)
        if r7 > TINY * c:
            out[5] = 100.0 * (4.0 * up7 / r7 + 2.0 * up14 / r14 + up28 / r28) / 7.0
        else:
            out[5] = 50.0
    if n >= 34:
        ao = 0.5 * (mean(x, H, t, 5) + mean(x, L, t, 5) - mean(x, H, t, 34) - mean(x, L, t, 34))
        x[AO, t] = ao
        out[6] = ao / c
    if n >= 38:
        out[7] = (x[AO, t] - mean(x, AO, t, 5)) / c
    if n >= 50:
        v = f = 0.0
        for i in range(t - 40, t + 1):
            mid = 0.5 * (x[H, i] + x[L, i])
            top = bottom = mid
            for j in range(i - 9, i):
                q = 0.5 * (x[H, j] + x[L, j])
                top, bottom = max(top, q), min(bottom, q)
            place = (mid - bottom) / (top - bottom) - 0.5 if top - bottom > TINY * top else 0.0
            v = clip(0.66 * place + 0.67 * v, -0.999, 0.999)
            f = 0.5 * math.log((1.0 + v) / (1.0 - v)) + 0.5 * f
        out[14] = f

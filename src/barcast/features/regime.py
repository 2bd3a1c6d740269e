"""B5: regimes by rules on the symbol's own past (no fitted model): volatility, trend, momentum, volume, stress.

A regime is judged against ranks within the last 100 bars, so that a calm symbol has its own "high". Flags are 1 or 0.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.kernels import TINY, clip, highest, mean, rank, slope, std, sum_squares, total
from barcast.features.series import EMA20, EMA50, LC, RSI, RVOL, VOL20, C, R, V
from barcast.features.spec import Category
from barcast.features.warmup import ema_bars, wilder_bars

regime = Category("regime")

_CYCLES = "Pagan and Sossounov, Journal of Applied Econometrics 18 (2003), by rule"
_OWN = "rank rule over the symbol's own past"
_STRESS = "after Whaley, Journal of Portfolio Management 35 (2009), from prices alone"
_VOL = 120


@regime.group(
    ("volatility_rank_100", "rank of the 20-bar volatility among its last 100 values", _VOL, "share", _OWN),
    ("volatility_regime_low", "1 where the volatility rank is below one third", _VOL, "flag", _OWN),
    ("volatility_regime_medium", "1 where the volatility rank is within the middle third", _VOL, "flag", _OWN),
    ("volatility_regime_high", "1 where the volatility rank is above two thirds", _VOL, "flag", _OWN),
    ("volatility_trend_20", "log of the 20-bar volatility by its value 20 bars ago, within +-3; 0 where constant", 41, "log ratio", _OWN),
    ("volatility_of_volatility_50", "deviation of the 20-bar volatility over 50 bars by its mean; 0 where constant", 70, "ratio", _OWN),
    ("volatility_regime_age", "bars in the present volatility third, by 100, at most 2", _VOL + 200, "share", _OWN),
    state=2,
)  # fmt: skip
def volatility_regime(x, t, n, s, out):
    if n >= 41:
        a, b = x[VOL20, t], x[VOL20, t - 20]
        out[4] = clip(math.log(a / b), -3.0, 3.0) if a > TINY and b > TINY else 0.0
    if n >= 70:
        m = mean(x, VOL20, t, 50)
        out[5] = std(x, VOL20, t, 50) / m if m > TINY else 0.0
    if n >= _VOL:
        r = rank(x, VOL20, t, 100)
        third = 0.0 if r < 1.0 / 3.0 else (2.0 if r > 2.0 / 3.0 else 1.0)
        age = min(s[1] + 1.0, 200.0) if s[0] == third else 1.0
        s[0], s[1] = third, age
        out[0] = r
        out[1] = 1.0 if third == 0.0 else 0.0
        out[2] = 1.0 if third == 1.0 else 0.0
        out[3] = 1.0 if third == 2.0 else 0.0
        out[6] = age / 100.0


@regime.group(
    ("trend_score_50", "drift over 50 bars by its standard error: mean log return x sqrt(50) / deviation, within +-10; 0 where constant", 51, "standard errors", _CYCLES),
    ("trend_regime_bull", "1 where the trend score is above 1 and the close above its exponential average over 50 bars", ema_bars(50), "flag", _CYCLES),
    ("trend_regime_bear", "1 where the trend score is below -1 and the close below its exponential average over 50 bars", ema_bars(50), "flag", _CYCLES),
    ("trend_regime_sideways", "1 where neither bull nor bear", ema_bars(50), "flag", _CYCLES),
    ("trend_alignment", "signs of close less average 20, average 20 less average 50, and 50-bar slope, averaged", ema_bars(50), "-1..1", "Murphy (1999)"),
    ("trend_reversal_distance", "share of the rise from the 100-bar low to the 100-bar high of closes that the close kept; 0.5 where constant", 100, "share", _CYCLES),
    state=0,
)  # fmt: skip
def trend_regime(x, t, n, s, out):
    if n < 51:
        return
    c = x[C, t]
    m = mean(x, R, t, 50)
    sd = math.sqrt(sum_squares(x, R, t, 50, m) / 50.0)
    score = clip(m * math.sqrt(50.0) / sd, -10.0, 10.0) if sd > TINY else 0.0
    out[0] = score
    e20, e50 = x[EMA20, t], x[EMA50, t]
    bull = score > 1.0 and c > e50
    bear = score < -1.0 and c < e50
    out[1] = 1.0 if bull else 0.0
    out[2] = 1.0 if bear else 0.0
    out[3] = 0.0 if bull or bear else 1.0
    a = 0.0
    for d in (c / e20 - 1.0, e20 / e50 - 1.0, slope(x, LC, t, 50)):
        a += 1.0 if d > TINY else (-1.0 if d < -TINY else 0.0)
    out[4] = a / 3.0
    if n >= 100:
        top = bottom = c
        for i in range(t - 99, t):
            top, bottom = max(top, x[C, i]), min(bottom, x[C, i])
        out[5] = (c - bottom) / (top - bottom) if top - bottom > TINY * c else 0.5


@regime.group(
    ("momentum_score", "20-bar log return by 20-bar volatility x sqrt(20), within +-10; 0 where constant", 21, "standard errors", "Moskowitz, Ooi and Pedersen, JFE 104 (2012)"),
    ("momentum_regime_strong_up", "1 where the momentum score is above 1 and RSI 14 above 60", wilder_bars(14), "flag", _OWN),
    ("momentum_regime_strong_down", "1 where the momentum score is below -1 and RSI 14 below 40", wilder_bars(14), "flag", _OWN),
    ("momentum_regime_weak", "1 where the momentum score lies within +-0.5", 21, "flag", _OWN),
    ("momentum_persistence_20", "share of the last 20 bars whose 10-bar return had the sign of today's", 31, "share", _OWN),
    ("volume_regime_rank_100", "rank of the 5-bar mean volume among 20 such means, 5 bars apart", 100, "share", _OWN),
    ("volume_regime_high", "1 where volume is above 1.5 times its 20-bar mean", 20, "flag", _OWN),
    ("volume_regime_normal", "1 where volume is within 0.5 to 1.5 times its 20-bar mean", 20, "flag", _OWN),
    ("volume_regime_low", "1 where volume is below half its 20-bar mean", 20, "flag", _OWN),
)  # fmt: skip
def momentum_and_volume(x, t, n, s, out):
    if n < 20:
        return
    v = x[RVOL, t]
    out[6] = 1.0 if v > 1.5 else 0.0
    out[7] = 1.0 if 0.5 <= v <= 1.5 else 0.0
    out[8] = 1.0 if v < 0.5 else 0.0
    if n >= 21:
        sd = x[VOL20, t]
        score = clip(total(x, R, t, 20) / (sd * math.sqrt(20.0)), -10.0, 10.0) if sd > TINY else 0.0
        out[0] = score
        out[1] = 1.0 if score > 1.0 and x[RSI, t] > 60.0 else 0.0
        out[2] = 1.0 if score < -1.0 and x[RSI, t] < 40.0 else 0.0
        out[3] = 1.0 if abs(score) <= 0.5 else 0.0
    if n >= 31:
        same = 0.0
        now = x[C, t] - x[C, t - 10]
        for i in range(t - 19, t + 1):
            if (x[C, i] - x[C, i - 10]) * now > 0.0:
                same += 1.0
        out[4] = same / 20.0
    if n >= 100:
        now = total(x, V, t, 5)
        below = 0.0
        for k in range(20):
            d = total(x, V, t - 5 * k, 5) - now
            below += 1.0 if d < -TINY * now else (0.5 if d <= TINY * now else 0.0)
        out[5] = below / 20.0


@regime.group(
    ("drawdown_stress_100", "log drawdown from the 100-bar high of closes by 20-bar volatility x sqrt(100), at most 10; 0 where constant", 100, "deviations", _STRESS),
    ("tail_share_50", "share of the last 50 log returns beyond twice their deviation", 51, "share", _STRESS),
    ("downside_tail_50", "mean of the 5 worst of the last 50 log returns by their deviation; 0 where constant", 51, "deviations", _STRESS),
    ("leverage_effect_50", "correlation over 50 bars of the log return with the next bar's absolute log return", 52, "-1..1", "Black, Proceedings of the American Statistical Association (1976)"),
    ("stress_index", "mean of volatility rank, 1 - rank of the close in 100 bars, share of falling squared returns over 20 bars, and tail share x 5 (at most 1)", _VOL, "share", _STRESS),
    ("fear", "1 where the stress index is above 0.65", _VOL, "flag", _STRESS),
    ("greed", "1 where the stress index is below 0.35", _VOL, "flag", _STRESS),
    ("greed_index", "mean of RSI 14 / 100, rank of the close in 100 bars, share of 20 rising bars and 1 - volatility rank", _VOL, "share", _STRESS),
    ("panic_volume", "relative volume on a falling bar x its return in 20-bar deviations, within -50..0", 51, "scaled", _STRESS),
)  # fmt: skip
def stress(x, t, n, s, out):
    if n < 51:
        return
    sd20 = x[VOL20, t]
    r = x[R, t]
    out[8] = clip(x[RVOL, t] * r / sd20, -50.0, 0.0) if sd20 > TINY else 0.0
    sd = std(x, R, t, 50)
    tails = 0.0
    w0 = w1 = w2 = w3 = w4 = math.inf
    for i in range(t - 49, t + 1):
        v = x[R, i]
        if abs(v) > 2.0 * sd and sd > TINY:
            tails += 1.0 / 50.0
        if v < w4:  # keep the five smallest in order
            w4 = v
            if w4 < w3:
                w3, w4 = w4, w3
            if w3 < w2:
                w2, w3 = w3, w2
            if w2 < w1:
                w1, w2 = w2, w1
            if w1 < w0:
                w0, w1 = w1, w0
    out[1] = tails
    out[2] = (w0 + w1 + w2 + w3 + w4) / 5.0 / sd if sd > TINY else 0.0
    if n >= 52:
        ma = mean(x, R, t - 1, 50)
        mb = 0.0
        for i in range(t - 49, t + 1):
            mb += abs(x[R, i]) / 50.0
        saa = sbb = sab = 0.0
        for i in range(t - 49, t + 1):
            p, q = x[R, i - 1] - ma, abs(x[R, i]) - mb
            saa += p * p
            sbb += q * q
            sab += p * q
        out[3] = clip(sab / math.sqrt(saa * sbb), -1.0, 1.0) if saa > 1e-24 and sbb > 1e-24 else 0.0
    if n >= 100:
        fall = math.log(highest(x, C, t, 100) / x[C, t])
        out[0] = min(fall / (sd20 * 10.0), 10.0) if sd20 > TINY else 0.0
    if n >= _VOL:
        vr, cr = rank(x, VOL20, t, 100), rank(x, C, t, 100)
        down = square = ups = 0.0
        for i in range(t - 19, t + 1):
            v = x[R, i]
            square += v * v
            if v < 0.0:
                down += v * v
            if v > TINY:
                ups += 0.05
        share = down / square if square > 1e-24 else 0.5
        index = 0.25 * (vr + 1.0 - cr + share + min(5.0 * tails, 1.0))
        out[4] = index
        out[5] = 1.0 if index > 0.65 else 0.0
        out[6] = 1.0 if index < 0.35 else 0.0
        out[7] = 0.25 * (x[RSI, t] / 100.0 + cr + ups + 1.0 - vr)

"""B3: returns, volatility estimates, candle shapes, support and resistance, trend slope and strength."""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.kernels import (
    TINY,
    bars_since_highest,
    bars_since_lowest,
    clip,
    correlation,
    highest,
    lowest,
    mean,
    r_squared,
    slope,
    std,
    sum_squares,
    total,
)
from barcast.features.series import ANNUAL, ATR, DAYTIME, GARCH, HL2, LC, NIGHT, RS, VOL20, C, H, L, O, R
from barcast.features.spec import Category
from barcast.features.warmup import wilder_bars

price_action = Category("price_action")

_CANDLE = "Nison, Japanese Candlestick Charting Techniques (1991)"
_SERIES = "Tsay, Analysis of Financial Time Series (2010)"
_MURPHY = "Murphy, Technical Analysis of the Financial Markets (1999)"


@price_action.group(
    ("log_return_1", "log of the close by the close 1 bar ago", 2, "log return", _SERIES),
    ("log_return_5", "log of the close by the close 5 bars ago", 6, "log return", _SERIES),
    ("log_return_10", "log of the close by the close 10 bars ago", 11, "log return", _SERIES),
    ("log_return_20", "log of the close by the close 20 bars ago", 21, "log return", _SERIES),
    ("log_return_60", "log of the close by the close 60 bars ago", 61, "log return", _SERIES),
    ("return_per_risk_20", "mean log return over 20 bars by their standard deviation; 0 where constant", 21, "ratio", "Sharpe, Journal of Portfolio Management 21 (1994)"),
    ("autocorrelation_1_50", "correlation over 50 bars of the log return with the one before", 52, "-1..1", _SERIES),
    ("up_share_20", "share of the last 20 bars that closed higher", 21, "share", _MURPHY),
    ("streak", "consecutive closes in the same direction, signed, at most 20", 21, "bars", _MURPHY),
    ("largest_gain_20", "largest log return of 20 bars", 21, "log return", "Bali, Cakici and Whitelaw, JFE 99 (2011)"),
    ("largest_loss_20", "smallest log return of 20 bars", 21, "log return", "Bali, Cakici and Whitelaw (2011)"),
)  # fmt: skip
def returns(x, t, n, s, out):
    if n < 21:
        if n >= 2:
            out[0] = x[R, t]
        if n >= 6:
            out[1] = total(x, R, t, 5)
        if n >= 11:
            out[2] = total(x, R, t, 10)
        return
    out[0] = x[R, t]
    out[1] = total(x, R, t, 5)
    out[2] = total(x, R, t, 10)
    m = mean(x, R, t, 20)
    sd = x[VOL20, t]
    out[3] = 20.0 * m
    out[5] = m / sd if sd > TINY else 0.0
    ups = 0
    for i in range(t - 19, t + 1):
        if x[R, i] > TINY:
            ups += 1
    out[7] = ups / 20.0
    run = 0
    up, down = x[R, t] > TINY, x[R, t] < -TINY
    while run < 20 and ((up and x[R, t - run] > TINY) or (down and x[R, t - run] < -TINY)):
        run += 1
    out[8] = float(run if up else -run)
    out[9] = highest(x, R, t, 20)
    out[10] = lowest(x, R, t, 20)
    if n >= 52:
        out[6] = correlation(x, R, R, t, 50, 1)
    if n >= 61:
        out[4] = total(x, R, t, 60)


@price_action.group(
    ("volatility_5", "standard deviation of log returns over 5 bars", 6, "log return", _SERIES),
    ("volatility_10", "standard deviation of log returns over 10 bars", 11, "log return", _SERIES),
    ("volatility_20", "standard deviation of log returns over 20 bars", 21, "log return", _SERIES),
    ("volatility_annual_50", "standard deviation of log returns over 50 bars x square root of the calendar's bars per year", 51, "per year", _SERIES),
    ("volatility_ratio_5_50", "standard deviation over 5 bars by that over 50; 1 where constant", 51, "ratio", _SERIES),
    ("parkinson_20", "Parkinson's high-low volatility over 20 bars", 20, "log return", "Parkinson, Journal of Business 53 (1980)"),
    ("garman_klass_20", "Garman and Klass's open-high-low-close volatility over 20 bars", 20, "log return", "Garman and Klass, Journal of Business 53 (1980)"),
    ("rogers_satchell_20", "Rogers and Satchell's drift-free volatility over 20 bars", 20, "log return", "Rogers and Satchell, Annals of Applied Probability 1 (1991)"),
    ("yang_zhang_20", "Yang and Zhang's volatility over 20 bars (overnight, open-to-close and Rogers-Satchell parts)", 21, "log return", "Yang and Zhang, Journal of Business 73 (2000)"),
    ("downside_share_20", "sum of squared falling returns by that of all over 20 bars; 0.5 where none", 21, "share", "Barndorff-Nielsen, Kinnebrock and Shephard (2010)"),
    ("garch_volatility", "square root of a GARCH(1,1) variance for the next bar: 0.1 r^2 + 0.85 s^2 + 0.05 x variance over 100 bars", 201, "log return", "Bollerslev, Journal of Econometrics 31 (1986), variance targeting of Engle and Mezrich (1996)"),
    ("garch_surprise", "log return by the GARCH deviation forecast one bar earlier, within +-20; 0 where constant", 202, "deviations", "Bollerslev (1986)"),
    ("garch_term", "GARCH deviation by the standard deviation over 100 bars; 1 where constant", 201, "ratio", "Bollerslev (1986)"),
    state=2,
)  # fmt: skip
def volatility_models(x, t, n, s, out):
    x[GARCH, t] = math.nan
    if n < 6:
        return
    sd5 = std(x, R, t, 5)
    out[0] = sd5
    if n >= 11:
        out[1] = std(x, R, t, 10)
    if n >= 20:
        pk, rs = total(x, HL2, t, 20), max(total(x, RS, t, 20), 0.0)
        co = 0.0
        for i in range(t - 19, t + 1):
            co += x[DAYTIME, i] * x[DAYTIME, i]
        gk = 0.5 * pk - (2.0 * math.log(2.0) - 1.0) * co
        out[5] = math.sqrt(pk / (80.0 * math.log(2.0)))
        out[6] = math.sqrt(max(gk, 0.0) / 20.0)
        out[7] = math.sqrt(rs / 20.0)
        if n >= 21:
            out[2] = x[VOL20, t]
            mo, mc = mean(x, NIGHT, t, 20), mean(x, DAYTIME, t, 20)
            vo = vc = down = square = 0.0
            for i in range(t - 19, t + 1):
                vo += (x[NIGHT, i] - mo) ** 2
                vc += (x[DAYTIME, i] - mc) ** 2
                r = x[R, i]
                square += r * r
                if r < 0.0:
                    down += r * r
            k = 0.34 / (1.34 + 21.0 / 19.0)
            out[8] = math.sqrt(vo / 19.0 + k * vc / 19.0 + (1.0 - k) * rs / 20.0)
            out[9] = down / square if square > 1e-24 else 0.5
    if n >= 51:
        sd = std(x, R, t, 50)
        out[3] = sd * math.sqrt(x[ANNUAL, t])
        out[4] = sd5 / sd if sd > TINY else 1.0
    if n >= 101:
        m = mean(x, R, t, 100)
        level = sum_squares(x, R, t, 100, m) / 100.0
        before = s[0] if s[1] > 0.0 else level
        r = x[R, t]
        if s[1] > 0.0:
            out[11] = clip(r / math.sqrt(before), -20.0, 20.0) if before > 1e-24 else 0.0
        s[0] = 0.05 * level + 0.1 * r * r + 0.85 * before
        s[1] = 1.0
        x[GARCH, t] = math.sqrt(s[0])
        out[10] = x[GARCH, t]
        out[12] = math.sqrt(s[0] / level) if level > 1e-24 else 1.0


@price_action.group(
    ("body_ratio", "(close - open) / (high - low); 0 where no range", 1, "-1..1", _CANDLE),
    ("upper_shadow_ratio", "(high - larger of open and close) / (high - low); 0 where no range", 1, "share", _CANDLE),
    ("lower_shadow_ratio", "(smaller of open and close - low) / (high - low); 0 where no range", 1, "share", _CANDLE),
    ("range_ratio", "(high - low) / close", 1, "ratio", _CANDLE),
    ("opening_gap", "log of the open by the previous close", 2, "log return", _CANDLE),
    ("body_atr", "body by Wilder's average true range; 0 where there is none", wilder_bars(14), "true ranges", _CANDLE),
    ("mean_body_ratio_5", "mean body ratio over 5 bars", 5, "-1..1", _CANDLE),
    ("engulfing", "body by the previous body where it is opposite and covers it, signed, within +-5; else 0", 2, "ratio", _CANDLE),
    ("hammer", "lower less upper shadow in bodies of at least a tenth of the range, within +-10; 0 where no range", 1, "ratio", _CANDLE),
    ("inside_bar_depth", "share of the previous range that this bar stays within; negative where it breaks out", 2, "share", _CANDLE),
    ("range_expansion_7", "range by the mean range of the 7 bars before, within 0..20; 1 where none", 8, "ratio", "Crabel, Day Trading with Short Term Price Patterns (1990)"),
)  # fmt: skip
def candles(x, t, n, s, out):
    o, h, l, c = x[O, t], x[H, t], x[L, t], x[C, t]  # noqa: E741
    span = h - l
    wide = span > TINY * c
    out[0] = (c - o) / span if wide else 0.0
    out[1] = (h - max(o, c)) / span if wide else 0.0
    out[2] = (min(o, c) - l) / span if wide else 0.0
    out[3] = span / c
    out[8] = clip((min(o, c) - l - h + max(o, c)) / max(abs(c - o), 0.1 * span), -10.0, 10.0) if wide else 0.0
    if n < 2:
        return
    po, pc = x[O, t - 1], x[C, t - 1]
    out[4] = math.log(o / pc)
    a = x[ATR, t]
    out[5] = (c - o) / a if a > TINY * c else (0.0 if a == a else a)
    body, before = c - o, pc - po
    covers = max(o, c) >= max(po, pc) and min(o, c) <= min(po, pc) and body * before < 0.0
    out[7] = (
        clip(-body / before, -5.0, 5.0) * (1.0 if body > 0.0 else -1.0)
        if covers and abs(before) > TINY * c
        else 0.0
    )
    wide = x[H, t - 1] - x[L, t - 1]
    out[9] = clip(min(x[H, t - 1] - h, l - x[L, t - 1]) / wide, -5.0, 1.0) if wide > TINY * c else 0.0
    if n >= 5:
        b = 0.0
        for i in range(t - 4, t + 1):
            d = x[H, i] - x[L, i]
            b += (x[C, i] - x[O, i]) / d if d > TINY * c else 0.0
        out[6] = b / 5.0
    if n >= 8:
        b = 0.0
        for i in range(t - 7, t):
            b += x[H, i] - x[L, i]
        out[10] = clip(7.0 * span / b, 0.0, 20.0) if b > TINY * c else 1.0


@price_action.group(
    ("resistance_distance_20", "20-bar high by the close, less 1", 20, "ratio", _MURPHY),
    ("support_distance_20", "close by the 20-bar low, less 1", 20, "ratio", _MURPHY),
    ("resistance_distance_100", "100-bar high by the close, less 1", 100, "ratio", _MURPHY),
    ("support_distance_100", "close by the 100-bar low, less 1", 100, "ratio", _MURPHY),
    ("swing_resistance", "nearest swing high (higher than 3 bars each side) above the close in 60 bars, by the close, less 1; the 60-bar high where none", 63, "ratio", _MURPHY),
    ("swing_support", "nearest swing low (lower than 3 bars each side) below the close in 60 bars: 1 less it by the close; the 60-bar low where none", 63, "ratio", _MURPHY),
    ("pivot_distance", "close by the pivot of the 20 bars before this one, (high + low + close) / 3, less 1", 21, "ratio", "Person, A Complete Guide to Technical Trading Tactics (2004)"),
    ("bars_since_high_100", "bars since the 100-bar high, by 100", 100, "share", "George and Hwang, Journal of Finance 59 (2004)"),
    ("bars_since_low_100", "bars since the 100-bar low, by 100", 100, "share", "George and Hwang (2004)"),
    ("drawdown_120", "log of the close by the highest close of 120 bars", 120, "log return", _MURPHY),
    ("trend_slope_20", "least-squares slope of the log close over 20 bars", 20, "log return per bar", _SERIES),
    ("trend_slope_50", "least-squares slope of the log close over 50 bars", 50, "log return per bar", _SERIES),
    ("trend_strength_20", "share of the log close's variance that the 20-bar line explains; 0 where constant", 20, "share", _SERIES),
    ("trend_strength_50", "share of the log close's variance that the 50-bar line explains; 0 where constant", 50, "share", _SERIES),
    ("efficiency_10", "net change of the log close over 10 bars by the sum of its absolute changes; 0 where constant", 11, "share", "Kaufman, Smarter Trading (1995)"),
    ("efficiency_50", "net change of the log close over 50 bars by the sum of its absolute changes; 0 where constant", 51, "share", "Kaufman (1995)"),
    ("slope_acceleration_20", "slope over 10 bars less slope over 20 bars of the log close", 20, "log return per bar", _SERIES),
)  # fmt: skip
def levels(x, t, n, s, out):
    c = x[C, t]
    if n >= 11:
        path = 0.0
        for i in range(t - 9, t + 1):
            path += abs(x[R, i])
        out[14] = min(abs(total(x, R, t, 10)) / path, 1.0) if path > TINY else 0.0
    if n < 20:
        return
    out[0] = highest(x, H, t, 20) / c - 1.0
    out[1] = c / lowest(x, L, t, 20) - 1.0
    b = slope(x, LC, t, 20)
    out[10] = b
    out[12] = r_squared(x, LC, t, 20)
    out[16] = slope(x, LC, t, 10) - b
    if n >= 21:
        out[6] = 3.0 * c / (highest(x, H, t - 1, 20) + lowest(x, L, t - 1, 20) + x[C, t - 1]) - 1.0
    if n >= 50:
        out[11] = slope(x, LC, t, 50)
        out[13] = r_squared(x, LC, t, 50)
    if n >= 51:
        path = 0.0
        for i in range(t - 49, t + 1):
            path += abs(x[R, i])
        out[15] = min(abs(total(x, R, t, 50)) / path, 1.0) if path > TINY else 0.0
    if n >= 63:
        above = below = 0.0
        top, bottom = x[H, t], x[L, t]
        for i in range(t - 59, t + 1):
            top, bottom = max(top, x[H, i]), min(bottom, x[L, i])
            if i > t - 3:
                continue
            h, low = x[H, i], x[L, i]
            nearer = h > c and (above == 0.0 or h < above)
            if nearer and h >= highest(x, H, i - 1, 3) and h >= highest(x, H, i + 3, 3):
                above = h
            nearer = low < c and low > below
            if nearer and low <= lowest(x, L, i - 1, 3) and low <= lowest(x, L, i + 3, 3):
                below = low
        out[4] = (above if above > 0.0 else top) / c - 1.0
        out[5] = 1.0 - (below if below > 0.0 else bottom) / c
    if n >= 100:
        out[2] = highest(x, H, t, 100) / c - 1.0
        out[3] = c / lowest(x, L, t, 100) - 1.0
        out[7] = bars_since_highest(x, H, t, 100) / 100.0
        out[8] = bars_since_lowest(x, L, t, 100) / 100.0
    if n >= 120:
        out[9] = math.log(c / highest(x, C, t, 120))

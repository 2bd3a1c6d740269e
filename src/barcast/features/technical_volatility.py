"""B2, volatility and volume: Bollinger, Keltner, ATR, and the indicators that weigh prices with volume.

Volume enters as shares of other volume only, so that neither a split nor the exchange's unit of volume matters.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.kernels import TINY, ema, highest, lowest, mean, std, total, wilder
from barcast.features.series import ATR, EMA20, MFV, PV, RVOL, TP, TR, C, H, L, R, V
from barcast.features.spec import Category
from barcast.features.warmup import ema_bars, wilder_bars

volatility = Category("technical")

_WILDER = "Wilder, New Concepts in Technical Trading Systems (1978)"
_BOLLINGER = "Bollinger, Bollinger on Bollinger Bands (2001)"
_MURPHY = "Murphy, Technical Analysis of the Financial Markets (1999)"


@volatility.group(
    ("bollinger_percent_20", "place of the close between the bands (20 bars, 2 deviations); 0.5 where they meet", 20, "share", _BOLLINGER),
    ("bollinger_width_20", "distance of the bands by their middle", 20, "ratio", _BOLLINGER),
    ("natr_14", "Wilder's average true range over 14 bars by the close, in percent", wilder_bars(14), "percent", _WILDER),
    ("true_range_atr", "this bar's true range by Wilder's average over 14 bars; 1 where there is none", wilder_bars(14), "ratio", _WILDER),
    ("keltner_position_20", "close less its exponential average over 20 bars, by twice the average true range", wilder_bars(14), "ratio", "Keltner (1960), as Raschke"),
    ("keltner_width_20", "four average true ranges by the exponential average over 20 bars", wilder_bars(14), "ratio", "Keltner (1960), as Raschke"),
    ("squeeze_20", "width of the Bollinger bands by the width of the Keltner channel; 1 where it has none", wilder_bars(14), "ratio", "Carter, Mastering the Trade (2005)"),
    ("donchian_width_20", "20-bar high-low range by the close", 20, "ratio", _MURPHY),
    ("chaikin_volatility_10", "change over 10 bars of the exponential average over 10 bars of the range by the close, in percent", ema_bars(10) + 10, "percent", "Chaikin, in Colby, Encyclopedia of Technical Market Indicators (2003)"),
    ("ulcer_14", "root mean square of the drawdown from the running 14-bar high of closes, in percent", 27, "percent", "Martin and McCann, The Investor's Guide to Fidelity Funds (1989)"),
    ("relative_volatility_14", "Wilder's average of 10-bar deviations of the close by the close on rising bars, by that of all; 50 where none", wilder_bars(14) + 10, "0..100", "Dorsey, Stocks & Commodities 11:6 (1993)"),
    ("mass_25", "sum over 25 bars of the exponential average (9) of the range by the close, by its own average (9)", ema_bars(9, 9) + 24, "bars", "Dorsey, Stocks & Commodities 10:6 (1992)"),
    ("acceleration_band_20", "place of the close between the acceleration bands over 20 bars; 0.5 where they meet", 20, "share", "Headley, Big Trends in Trading (2002)"),
    state=64,
)  # fmt: skip
def bands(x, t, n, s, out):
    c = x[C, t]
    span = x[H, t] - x[L, t]
    e10 = ema(s, 0, span / c, 10)
    past = s[2 + n % 11]  # ring of the last 11 averages: the oldest is 10 bars old once this one is written
    s[2 + n % 11] = e10
    past = s[2 + (n + 1) % 11]
    if n >= 20:
        out[8] = 100.0 * (e10 / past - 1.0) if past > TINY else 0.0
    one = ema(s, 13, span / c, 9)
    if n >= 9:
        two = ema(s, 15, one, 9)
        if n >= 17:
            q = one / two if two > TINY else 1.0
            s[20 + n % 25] = q
            if n >= 41:
                a = 0.0
                for i in range(25):
                    a += s[20 + (n - i) % 25]
                out[11] = a
    if n >= 11:
        sd = std(x, C, t, 10) / c
        rise = x[C, t] - x[C, t - 1]
        u = wilder(s, 45, sd if rise > 0.0 else 0.0, 14)
        d = wilder(s, 47, sd if rise < 0.0 else 0.0, 14)
        out[10] = 100.0 * u / (u + d) if u + d > TINY else (50.0 if u == u else u)
    a = x[ATR, t]
    e20 = x[EMA20, t]
    out[2] = 100.0 * a / c
    if a > TINY * c:
        out[3] = x[TR, t] / a
        out[4] = (c - e20) / (2.0 * a)
    elif a == a:
        out[3] = 1.0
        out[4] = 0.0
    out[5] = 4.0 * a / e20
    if n >= 20:
        m, sd = mean(x, C, t, 20), std(x, C, t, 20)
        out[0] = (c - m + 2.0 * sd) / (4.0 * sd) if sd > 0.0 else 0.5
        out[1] = 4.0 * sd / m
        out[6] = sd / a if a > TINY * c else (1.0 if a == a else a)
        out[7] = (highest(x, H, t, 20) - lowest(x, L, t, 20)) / c
        up = low = 0.0
        for i in range(t - 19, t + 1):
            k = 4.0 * (x[H, i] - x[L, i]) / (x[H, i] + x[L, i])
            up += x[H, i] * (1.0 + k)
            low += x[L, i] * (1.0 - k)
        out[12] = (20.0 * c - low) / (up - low) if up - low > TINY * up else 0.5
    if n >= 27:
        a = 0.0
        for i in range(t - 13, t + 1):
            top = highest(x, C, i, 14)
            d = 100.0 * (x[C, i] - top) / top
            a += d * d
        out[9] = math.sqrt(a / 14.0)


@volatility.group(
    ("obv_change_20", "volume of rising bars less volume of falling bars over 20 bars, by all volume; 0 where none", 21, "-1..1", "Granville, New Key to Stock Market Profits (1963), windowed"),
    ("vwap_distance_20", "close by the volume-weighted typical price over 20 bars (plain mean where no volume), less 1", 20, "ratio", "Berkowitz, Logue and Noser, Journal of Finance 43 (1988)"),
    ("cmf_20", "Chaikin money flow: money flow volume by volume over 20 bars; 0 where none", 20, "-1..1", "Chaikin, in Colby (2003)"),
    ("force_13", "exponential average over 13 bars of the simple return x relative volume, in percent", ema_bars(13) + 20, "percent", "Elder, Trading for a Living (1993), scaled"),
    ("mfi_14", "share of money flow on rising typical prices over 14 bars; 50 where none", 15, "0..100", "Quong and Soudack, Stocks & Commodities 7:3 (1989)"),
    ("chaikin_oscillator_3_10", "money flow volume's accumulation: its average over 3 bars less that over 10, by mean volume over 20 bars", ema_bars(10, 10), "bars of volume", "Chaikin, in Colby (2003), scaled"),
    ("accumulation_change_10", "money flow volume over 10 bars by mean volume over 20 bars; 0 where none", 20, "bars of volume", "Williams accumulation, windowed"),
    ("ease_of_movement_14", "mean over 14 bars of middle price change by close, times range by close, per relative volume, x 10000", 34, "scaled", "Arms, Volume Cycles in the Stock Market (1983), scaled"),
    ("pvo_12_26", "exponential average of volume over 12 bars by that over 26, less 1, in percent; 0 where none", ema_bars(26), "percent", "Appel, applied to volume"),
    ("volume_price_trend_20", "sum over 20 bars of simple return x volume, by the sum of volume, in percent; 0 where none", 21, "percent", _MURPHY),
    ("relative_volume_20", "volume by its mean over 20 bars; 1 where none", 20, "ratio", _MURPHY),
    ("volume_ratio_5_20", "mean volume over 5 bars by that over 20; 1 where none", 20, "ratio", _MURPHY),
    ("negative_volume_20", "sum over 20 bars of simple returns on bars with less volume than the one before", 21, "ratio", "Fosback, Stock Market Logic (1976), windowed"),
    ("positive_volume_20", "sum over 20 bars of simple returns on bars with more volume than the one before", 21, "ratio", "Fosback (1976), windowed"),
    ("price_volume_correlation_20", "correlation over 20 bars of log returns and volume; 0 where one is constant", 21, "-1..1", "Karpoff, Journal of Financial and Quantitative Analysis 22 (1987)"),
    ("market_facilitation_ratio", "range by close per relative volume, by its mean over 20 bars; 1 where none", 40, "ratio", "Williams, Trading Chaos (1995), scaled"),
    state=32,
)  # fmt: skip
def volumes(x, t, n, s, out):
    c, v = x[C, t], x[V, t]
    fast = ema(s, 0, v, 12)
    slow = ema(s, 2, v, 26)
    out[8] = 100.0 * (fast / slow - 1.0) if slow > 0.0 else (0.0 if slow == slow else slow)
    # the two averages of the accumulation line differ by a sum that forgets: d = a3 - a10 without the line itself
    s[4] = (s[4] + x[MFV, t]) * (1.0 - 2.0 / 4.0)
    s[5] = (s[5] + x[MFV, t]) * (1.0 - 2.0 / 11.0)
    if n >= 20:
        total_v = total(x, V, t, 20)
        m = total_v / 20.0
        some = m > 0.0
        pv = total(x, PV, t, 20)
        out[1] = c / (pv / total_v) - 1.0 if some else c / mean(x, TP, t, 20) - 1.0
        out[2] = total(x, MFV, t, 20) / total_v if some else 0.0
        out[5] = (s[5] - s[4]) / m if some else 0.0
        out[6] = total(x, MFV, t, 10) / m if some else 0.0
        out[10] = x[RVOL, t]
        out[11] = total(x, V, t, 5) / 5.0 / m if some else 1.0
        out[3] = ema(s, 6, 100.0 * (c / x[C, t - 1] - 1.0) * x[RVOL, t], 13)
        if n >= 21:
            obv = vpt = nvi = pvi = 0.0
            for i in range(t - 19, t + 1):
                g = x[C, i] / x[C, i - 1] - 1.0
                vol = x[V, i]
                obv += vol if g > TINY else (-vol if g < -TINY else 0.0)
                vpt += g * vol
                if vol < x[V, i - 1] * (1.0 - TINY):
                    nvi += g
                elif vol > x[V, i - 1] * (1.0 + TINY):
                    pvi += g
            out[0] = obv / total_v if some else 0.0
            out[9] = 100.0 * vpt / total_v if some else 0.0
            out[12] = nvi
            out[13] = pvi
            mr = mean(x, R, t, 20)
            sv = sr = srv = 0.0
            for i in range(t - 19, t + 1):
                p, q = x[R, i] - mr, x[V, i] - m
                sr += p * p
                sv += q * q
                srv += p * q
            flat = sr <= 1e-28 or sv <= 20.0 * (TINY * m) ** 2
            out[14] = 0.0 if flat else srv / math.sqrt(sr * sv)
    if n >= 15:
        up = flow = 0.0
        for i in range(t - 13, t + 1):
            flow += x[PV, i]
            if x[TP, i] > x[TP, i - 1] * (1.0 + TINY):
                up += x[PV, i]
            elif x[TP, i] >= x[TP, i - 1] * (1.0 - TINY):
                flow -= x[PV, i]
        out[4] = 100.0 * up / flow if flow > 0.0 else 50.0
    if n >= 34:
        a = 0.0
        for i in range(t - 13, t + 1):
            mid = 0.5 * (x[H, i] + x[L, i] - x[H, i - 1] - x[L, i - 1]) / x[C, i]
            r = x[RVOL, i]
            if r > 1e-9:
                a += mid * (x[H, i] - x[L, i]) / x[C, i] / r
        out[7] = 1e4 * a / 14.0
    if n >= 40:
        now = a = 0.0
        for i in range(t - 19, t + 1):
            r = x[RVOL, i]
            now = (x[H, i] - x[L, i]) / x[C, i] / r if r > 1e-9 else 0.0
            a += now
        out[15] = 20.0 * now / a if a > TINY else 1.0

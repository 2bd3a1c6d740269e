"""B2, trend: moving averages, MACD, ADX, Aroon, vortex, Ichimoku, parabolic SAR. Prices enter as ratios to the close."""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.compiling import njit
from barcast.features.kernels import (
    TINY,
    bars_since_highest,
    bars_since_lowest,
    ema,
    highest,
    linear_weighted,
    lowest,
    mean,
    total,
    wilder,
)
from barcast.features.series import EMA20, EMA50, TR, C, H, L, V
from barcast.features.spec import Category
from barcast.features.warmup import ema_bars, wilder_bars

trend = Category("technical")

_MURPHY = "Murphy, Technical Analysis of the Financial Markets (1999)"
_WILDER = "Wilder, New Concepts in Technical Trading Systems (1978)"


@trend.group(
    ("sma_ratio_10", "close by its simple average over 10 bars, less 1", 10, "ratio", _MURPHY),
    ("sma_ratio_20", "close by its simple average over 20 bars, less 1", 20, "ratio", _MURPHY),
    ("sma_ratio_50", "close by its simple average over 50 bars, less 1", 50, "ratio", _MURPHY),
    ("sma_ratio_100", "close by its simple average over 100 bars, less 1", 100, "ratio", _MURPHY),
    ("sma_cross_10_50", "simple average over 10 bars by that over 50, less 1", 50, "ratio", _MURPHY),
    ("wma_ratio_20", "close by its linearly weighted average over 20 bars, less 1", 20, "ratio", _MURPHY),
    ("trima_ratio_20", "close by its triangular average over 20 bars (mean over 11 of means over 10), less 1", 20, "ratio", _MURPHY),
    ("hma_ratio_20", "close by Hull's average: weighted over 4 of (2 x weighted over 10 - weighted over 20), less 1", 23, "ratio", "Hull, Hull Moving Average (2005)"),
    ("vwma_ratio_20", "close by its volume-weighted average over 20 bars (simple where no volume), less 1", 20, "ratio", _MURPHY),
    ("kama_ratio_10", "close by Kaufman's adaptive average (10, 2, 30) begun 60 bars back, less 1", 70, "ratio", "Kaufman, Smarter Trading (1995)"),
)  # fmt: skip
def averages(x, t, n, s, out):
    if n < 10:
        return
    c = x[C, t]
    m10 = mean(x, C, t, 10)
    out[0] = c / m10 - 1.0
    if n >= 20:
        out[1] = c / mean(x, C, t, 20) - 1.0
        w20 = linear_weighted(x, C, t, 20)
        out[5] = c / w20 - 1.0
        a = 0.0
        for i in range(20):
            a += min(i + 1, 20 - i) * x[C, t - i]
        out[6] = c / (a / 110.0) - 1.0
        pv = 0.0
        v = total(x, V, t, 20)
        for i in range(t - 19, t + 1):
            pv += x[C, i] * x[V, i]
        out[8] = c / (pv / v) - 1.0 if v > 0.0 else out[1]
    if n >= 23:
        a = 0.0
        for i in range(4):
            a += (4.0 - i) * (2.0 * linear_weighted(x, C, t - i, 10) - linear_weighted(x, C, t - i, 20))
        out[7] = c / (a / 10.0) - 1.0 if a > TINY * c else 0.0
    if n >= 50:
        m50 = mean(x, C, t, 50)
        out[2] = c / m50 - 1.0
        out[4] = m10 / m50 - 1.0
    if n >= 70:
        k = x[C, t - 60]
        path = 0.0
        for i in range(t - 68, t - 58):
            path += abs(x[C, i] - x[C, i - 1])
        for i in range(t - 59, t + 1):
            if i > t - 59:
                path += abs(x[C, i] - x[C, i - 1]) - abs(x[C, i - 10] - x[C, i - 11])
            move = abs(x[C, i] - x[C, i - 10])
            er = min(move / path, 1.0) if path > TINY * c else 1.0
            weight = er * (2.0 / 3.0 - 2.0 / 31.0) + 2.0 / 31.0
            k += weight * weight * (x[C, i] - k)
        out[9] = c / k - 1.0
    if n >= 100:
        out[3] = c / mean(x, C, t, 100) - 1.0


@trend.group(
    ("ema_ratio_10", "close by its exponential average over 10 bars, less 1", ema_bars(10), "ratio", _MURPHY),
    ("ema_ratio_20", "close by its exponential average over 20 bars, less 1", ema_bars(20), "ratio", _MURPHY),
    ("ema_ratio_50", "close by its exponential average over 50 bars, less 1", ema_bars(50), "ratio", _MURPHY),
    ("dema_ratio_20", "close by the double exponential average over 20 bars, less 1", ema_bars(20, 20), "ratio", "Mulloy, Stocks & Commodities 12:1 (1994)"),
    ("tema_ratio_20", "close by the triple exponential average over 20 bars, less 1", ema_bars(20, 20, 9), "ratio", "Mulloy, Stocks & Commodities 12:1 (1994)"),
    ("macd_12_26", "exponential average over 12 bars less that over 26, by the close", ema_bars(26), "ratio", "Appel, The Moving Average Convergence Divergence Method (1979)"),
    ("macd_signal_9", "exponential average over 9 bars of the MACD line, by the close", ema_bars(26, 9), "ratio", "Appel (1979)"),
    ("macd_histogram", "MACD line less its signal, by the close", ema_bars(26, 9), "ratio", "Appel (1979)"),
    ("trix_15", "change of the triple-smoothed exponential average over 15 bars, in percent", ema_bars(15, 15, 15), "percent", "Hutson, Stocks & Commodities 1:5 (1983)"),
    ("ema_cross_20_50", "exponential average over 20 bars by that over 50, less 1", ema_bars(50), "ratio", _MURPHY),
    state=32,
)  # fmt: skip
def exponential(x, t, n, s, out):
    c = x[C, t]
    out[0] = c / ema(s, 0, c, 10) - 1.0
    e20, e50 = x[EMA20, t], x[EMA50, t]
    out[1] = c / e20 - 1.0
    out[2] = c / e50 - 1.0
    out[9] = e20 / e50 - 1.0
    if n >= 20:
        second = ema(s, 2, e20, 20)
        if not math.isnan(second):
            third = ema(s, 4, second, 20)
            d = 2.0 * e20 - second
            out[3] = c / d - 1.0 if d > TINY * c else 0.0
            q = 3.0 * (e20 - second) + third
            out[4] = c / q - 1.0 if q > TINY * c else (0.0 if q == q else q)
    fast = ema(s, 6, c, 12) if n > 14 else 0.0  # TA-Lib begins both averages' seeds at the same bar
    slow = ema(s, 8, c, 26)
    if n >= 26:
        line = fast - slow
        out[5] = line / c
        signal = ema(s, 10, line, 9)
        out[6] = signal / c
        out[7] = (line - signal) / c
    one = ema(s, 12, c, 15)
    if n >= 15:
        two = ema(s, 14, one, 15)
        if n >= 29:
            three = ema(s, 16, two, 15)
            if n >= 44:
                out[8] = 100.0 * (three / s[18] - 1.0)
            s[18] = three


@trend.group(
    ("adx_14", "Wilder's average of DX over 14 bars", wilder_bars(14, 14), "0..100", _WILDER),
    ("plus_di_14", "upward directional movement by true range, both smoothed over 14 bars", wilder_bars(14), "0..100", _WILDER),
    ("minus_di_14", "downward directional movement by true range, both smoothed over 14 bars", wilder_bars(14), "0..100", _WILDER),
    ("dx_14", "distance of the two directional indicators by their sum", wilder_bars(14), "0..100", _WILDER),
    state=16,
)  # fmt: skip
def directional(x, t, n, s, out):
    if n < 2:
        return
    up = x[H, t] - x[H, t - 1]
    down = x[L, t - 1] - x[L, t]
    plus = up if up > 0.0 and up > down else 0.0
    minus = down if down > 0.0 and down > up else 0.0
    if n <= 14:  # sums of the first 13 movements, as Wilder and TA-Lib begin
        s[0] += plus
        s[1] += minus
        s[2] += x[TR, t]
        return
    s[0] += plus - s[0] / 14.0
    s[1] += minus - s[1] / 14.0
    s[2] += x[TR, t] - s[2] / 14.0
    quiet = s[2] <= TINY * x[C, t]
    a = 0.0 if quiet else 100.0 * s[0] / s[2]
    b = 0.0 if quiet else 100.0 * s[1] / s[2]
    dx = 100.0 * abs(a - b) / (a + b) if a + b > 1e-9 else 0.0
    out[0] = wilder(s, 4, dx, 14)
    out[1] = a
    out[2] = b
    out[3] = dx


@njit
def parabolic(x, t, out):
    """Wilder's parabolic stop over the last 100 bars: what came before cannot matter, whatever the path was."""
    i = t - 98
    up = x[H, i] - x[H, i - 1] >= x[L, i - 1] - x[L, i]
    sar = x[L, i - 1] if up else x[H, i - 1]
    best = x[H, i] if up else x[L, i]
    speed = 0.02
    flipped = i
    for j in range(i, t + 1):
        high, low = x[H, j], x[L, j]
        if up:
            if low <= sar:
                up, sar, best, speed, flipped = False, max(best, high, x[H, j - 1]), low, 0.02, j
            elif high > best:
                best, speed = high, min(speed + 0.02, 0.2)
        elif high >= sar:
            up, sar, best, speed, flipped = True, min(best, low, x[L, j - 1]), high, 0.02, j
        elif low < best:
            best, speed = low, min(speed + 0.02, 0.2)
        if j < t:
            sar += speed * (best - sar)
            sar = min(sar, low, x[L, j - 1]) if up else max(sar, high, x[H, j - 1])
    out[8] = (x[C, t] - sar) / x[C, t]
    out[9] = (t - flipped) / 100.0


@trend.group(
    ("aroon_up_25", "100 x (25 - bars since the highest high of 26) / 25", 26, "0..100", "Chande, Stocks & Commodities 13:9 (1995)"),
    ("aroon_down_25", "100 x (25 - bars since the lowest low of 26) / 25", 26, "0..100", "Chande (1995)"),
    ("vortex_plus_14", "sum of |high - previous low| over 14 bars by the sum of true ranges", 15, "ratio", "Botes and Siepman, Stocks & Commodities 28:1 (2010)"),
    ("vortex_minus_14", "sum of |low - previous high| over 14 bars by the sum of true ranges", 15, "ratio", "Botes and Siepman (2010)"),
    ("ichimoku_conversion_9", "middle of the 9-bar range by the close, less 1", 9, "ratio", "Hosoda, Ichimoku Kinko Hyo (1969)"),
    ("ichimoku_base_26", "middle of the 26-bar range by the close, less 1", 26, "ratio", "Hosoda (1969)"),
    ("ichimoku_cloud_distance", "close less the nearer edge of the cloud drawn 26 bars ago (0 inside), by the close", 78, "ratio", "Hosoda (1969)"),
    ("ichimoku_cloud_width", "leading span A less leading span B as drawn 26 bars ago, by the close", 78, "ratio", "Hosoda (1969)"),
    ("sar_distance", "close less the parabolic SAR (0.02, 0.2) begun 100 bars back, by the close", 100, "ratio", _WILDER),
    ("sar_bars_since_flip", "bars since the parabolic SAR changed sides, by 100", 100, "share", _WILDER),
    ("donchian_position_20", "place of the close within the 20-bar high-low channel; 0.5 where it has no width", 20, "share", "Donchian channel, Murphy (1999)"),
    ("choppiness_14", "100 x log10(sum of true ranges over 14 bars / 14-bar range) / log10(14); 100 where there is no range", 15, "0..100", "Dreiss, Choppiness Index (1993)"),
    ("vertical_horizontal_28", "28-bar range of closes by the sum of their absolute changes; 0 where constant", 29, "share", "White, Vertical Horizontal Filter (1991)"),
)  # fmt: skip
def channels(x, t, n, s, out):
    c = x[C, t]
    if n >= 9:
        out[4] = 0.5 * (highest(x, H, t, 9) + lowest(x, L, t, 9)) / c - 1.0
    if n >= 15:
        tr = total(x, TR, t, 14)
        vp = vm = 0.0
        for i in range(t - 13, t + 1):
            vp += abs(x[H, i] - x[L, i - 1])
            vm += abs(x[L, i] - x[H, i - 1])
        quiet = tr <= TINY * c
        out[2] = 1.0 if quiet else vp / tr
        out[3] = 1.0 if quiet else vm / tr
        span = highest(x, H, t, 14) - lowest(x, L, t, 14)
        out[11] = 100.0 * math.log10(tr / span) / math.log10(14.0) if span > TINY * c else 100.0
    if n >= 20:
        top, bottom = highest(x, H, t, 20), lowest(x, L, t, 20)
        out[10] = (c - bottom) / (top - bottom) if top - bottom > TINY * c else 0.5
    if n >= 26:
        up = 4.0 * (25 - bars_since_highest(x, H, t, 26))
        down = 4.0 * (25 - bars_since_lowest(x, L, t, 26))
        out[0] = up
        out[1] = down
        out[5] = 0.5 * (highest(x, H, t, 26) + lowest(x, L, t, 26)) / c - 1.0
    if n >= 29:
        path = 0.0
        for i in range(t - 27, t + 1):
            path += abs(x[C, i] - x[C, i - 1])
        span = highest(x, C, t, 28) - lowest(x, C, t, 28)
        out[12] = span / path if path > TINY * c else 0.0
    if n >= 78:
        u = t - 26
        a = 0.25 * (highest(x, H, u, 9) + lowest(x, L, u, 9) + highest(x, H, u, 26) + lowest(x, L, u, 26))
        b = 0.5 * (highest(x, H, u, 52) + lowest(x, L, u, 52))
        edge = max(a, b) if c > max(a, b) else (min(a, b) if c < min(a, b) else c)
        out[6] = (c - edge) / c
        out[7] = (a - b) / c
    if n >= 100:
        parabolic(x, t, out)

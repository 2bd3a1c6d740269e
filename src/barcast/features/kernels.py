"""Small compiled helpers that the kernels share: window statistics and recursive averages.

Window helpers read `x[row, t - w + 1 : t + 1]` afresh at each bar, so nothing drifts; recursive ones keep
their value and
a counter in the group's state and begin as TA-Lib does (the mean of the first `length` values).
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from barcast.features.compiling import njit

NAN = float("nan")
TINY = 1e-12  # relative: below it a spread counts as zero, so that rounding decides nothing


@njit(inline="never")
def log(v):
    """Natural logarithm; NaN for what has none."""
    return math.log(v) if v > 0.0 else NAN


@njit
def clip(v, low, high):
    """v held within [low, high]; NaN stays NaN."""
    return low if v < low else (high if v > high else v)


@njit
def ratio(a, b, otherwise):
    """a / b, or `otherwise` where b is zero."""
    return a / b if b != 0.0 else otherwise


@njit
def total(x, row, t, w):
    """Sum of the last w values, in four lanes so that the processor need not wait for each addition."""
    a = b = c = d = 0.0
    i = t - w + 1
    while i + 3 <= t:
        a += x[row, i]
        b += x[row, i + 1]
        c += x[row, i + 2]
        d += x[row, i + 3]
        i += 4
    while i <= t:
        a += x[row, i]
        i += 1
    return (a + b) + (c + d)


@njit
def mean(x, row, t, w):
    """Mean of the last w values."""
    return total(x, row, t, w) / w


@njit
def sum_squares(x, row, t, w, m):
    """Sum of squared distances from m over the last w values."""
    a = b = 0.0
    i = t - w + 1
    while i + 1 <= t:
        e = x[row, i] - m
        g = x[row, i + 1] - m
        a += e * e
        b += g * g
        i += 2
    if i <= t:
        e = x[row, i] - m
        a += e * e
    return a + b


@njit
def std(x, row, t, w):
    """Population standard deviation of the last w values; exactly 0 where they differ by rounding only."""
    m = mean(x, row, t, w)
    sd = math.sqrt(sum_squares(x, row, t, w, m) / w)
    return sd if sd > TINY * abs(m) else 0.0


@njit
def zscore(x, row, t, w, v):
    """(v - mean) / standard deviation of the last w values of a row; 0 where they are constant."""
    m = mean(x, row, t, w)
    sd = math.sqrt(sum_squares(x, row, t, w, m) / w)
    return (v - m) / sd if sd > TINY * abs(m) else 0.0


@njit
def highest(x, row, t, w):
    """Largest of the last w values."""
    m = x[row, t]
    for i in range(t - w + 1, t):
        m = max(m, x[row, i])
    return m


@njit
def lowest(x, row, t, w):
    """Smallest of the last w values."""
    m = x[row, t]
    for i in range(t - w + 1, t):
        m = min(m, x[row, i])
    return m


@njit
def bars_since_highest(x, row, t, w):
    """Bars since the latest highest of the last w values."""
    best = t
    for i in range(t - 1, t - w, -1):
        if x[row, i] > x[row, best]:
            best = i
    return t - best


@njit
def bars_since_lowest(x, row, t, w):
    """Bars since the latest lowest of the last w values."""
    best = t
    for i in range(t - 1, t - w, -1):
        if x[row, i] < x[row, best]:
            best = i
    return t - best


@njit
def rank(x, row, t, w):
    """Share of the last w values below the newest, equal ones counted half: in (0, 1)."""
    v = x[row, t]
    eps = TINY * abs(v)
    below = equal = 0  # whole numbers without branches: the compiler compares eight at a time
    for i in range(t - w + 1, t + 1):
        d = x[row, i] - v
        below += int(d < -eps)
        equal += int(d <= eps)
    return 0.5 * (below + equal) / w


@njit
def slope(x, row, t, w):
    """Least-squares slope per bar over the last w values."""
    sy = 0.0
    sxy = 0.0
    mid = 0.5 * (w - 1)
    first = x[row, t - w + 1]
    for i in range(w):
        y = x[row, t - w + 1 + i] - first
        sy += y
        sxy += (i - mid) * y
    return sxy / (w * (w * w - 1.0) / 12.0)


@njit
def r_squared(x, row, t, w):
    """Share of variance that the least-squares line explains over the last w values; 0 where they are constant."""
    b = slope(x, row, t, w)
    m = mean(x, row, t, w)
    ss = sum_squares(x, row, t, w, m)
    return (
        clip(b * b * (w * (w * w - 1.0) / 12.0) / ss, 0.0, 1.0)
        if ss > w * (TINY * m) ** 2 and ss > 0.0
        else 0.0
    )


@njit
def correlation(x, a, b, t, w, lag):
    """Pearson correlation of row a with row b taken `lag` bars earlier, over the last w pairs; 0 where one is
    constant."""
    ma = mean(x, a, t, w)
    mb = mean(x, b, t - lag, w)
    saa = sbb = sab = 0.0
    for i in range(t - w + 1, t + 1):
        p = x[a, i] - ma
        q = x[b, i - lag] - mb
        saa += p * p
        sbb += q * q
        sab += p * q
    if saa <= w * (TINY * ma) ** 2 or sbb <= w * (TINY * mb) ** 2 or saa <= 0.0 or sbb <= 0.0:
        return 0.0
    return clip(sab / math.sqrt(saa * sbb), -1.0, 1.0)


@njit
def ema(s, i, v, length):
    """Exponential average with weight 2 / (length + 1), begun with the mean of the first `length`; uses s[i],
    s[i + 1]."""
    return smooth(s, i, v, length, 2.0 / (length + 1.0))


@njit
def wilder(s, i, v, length):
    """Wilder's average (weight 1 / length), begun with the mean of the first `length` values; uses s[i], s[i + 1]."""
    return smooth(s, i, v, length, 1.0 / length)


@njit
def smooth(s, i, v, length, weight):
    """The recursion behind `ema` and `wilder`; NaN for the first length - 1 values."""
    seen = s[i + 1]
    if seen < length:
        s[i] += v
        s[i + 1] = seen + 1.0
        if seen + 1.0 < length:
            return NAN
        s[i] /= length
        return s[i]
    s[i] += weight * (v - s[i])
    return s[i]


@njit
def decay(s, i, v, weight):
    """Exponential average begun with its first value; uses s[i] and the counter s[i + 1]."""
    if s[i + 1] == 0.0:
        s[i] = v
    else:
        s[i] += weight * (v - s[i])
    s[i + 1] += 1.0
    return s[i]


@njit
def linear_weighted(x, row, t, w):
    """Mean of the last w values with weights 1 (oldest) to w (newest)."""
    a = 0.0
    for i in range(w):
        a += (i + 1.0) * x[row, t - w + 1 + i]
    return a / (0.5 * w * (w + 1.0))


@njit
def is_up(a, b):
    """Whether a exceeds b by more than rounding."""
    return a - b > TINY * abs(b)


EMPTY = np.zeros(0)

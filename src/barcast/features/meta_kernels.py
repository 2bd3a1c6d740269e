"""Compiled measures of complexity on a window of one row of x: entropies, Hurst, fractal dimensions, wavelet energies.

Each follows its published definition and is tested against a slow, obvious reference (antropy or PyWavelets where they
have it).
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from barcast.features.compiling import njit
from barcast.features.kernels import TINY, clip, mean, std

_COS, _SIN = np.cos(-2 * np.pi * np.arange(32) / 64), np.sin(-2 * np.pi * np.arange(32) / 64)
FLAT = 1e-10  # log returns below it are rounding


@njit
def permutation_entropy(x, row, t, w):
    """Share of the greatest entropy that the orders of three neighbours have; ties keep the order of time."""
    counts = np.zeros(9)
    for i in range(t - w + 1, t - 1):
        a, b, c = x[row, i], x[row, i + 1], x[row, i + 2]
        eps = TINY * abs(a)
        ab, bc, ac = a - b > eps, b - c > eps, a - c > eps
        counts[(4 if ab else 0) + (2 if bc else 0) + (1 if ac else 0)] += 1.0
    return shannon(counts, w - 2.0) / math.log(6.0)


@njit
def shannon(counts, total):
    """Entropy in nats of counts that sum to total."""
    h = 0.0
    for k in range(len(counts)):
        if counts[k] > 0.0:
            p = counts[k] / total
            h -= p * math.log(p)
    return h


@njit
def sample_entropy(x, row, t, w):
    """Sample entropy, templates of 2, tolerance 0.2 deviations; log of the pairs where none match longer; 0
    where constant."""
    sd = std(x, row, t, w)
    if sd <= FLAT:
        return 0.0
    r = 0.2 * sd
    a = np.empty(w)
    for i in range(w):
        a[i] = x[row, t - w + 1 + i]
    short = long = 0  # whole numbers without branches: the compiler compares eight pairs at a time
    for i in range(w - 2):
        a0, a1, a2 = a[i], a[i + 1], a[i + 2]
        for j in range(i + 1, w - 2):
            two = (abs(a0 - a[j]) < r) & (abs(a1 - a[j + 1]) < r)
            short += int(two)
            long += int(two & (abs(a2 - a[j + 2]) < r))
    pairs = max(float(short), 1.0)
    return math.log(pairs / long) if long > 0 else math.log(pairs + 1.0)


@njit
def binned_entropy(x, row, t, w):
    """Entropy of eight bins, half a deviation wide around the mean (outer ones open), as a share of log 8; 0
    where constant."""
    m, sd = mean(x, row, t, w), std(x, row, t, w)
    if sd <= FLAT:
        return 0.0
    counts = np.zeros(8)
    for i in range(t - w + 1, t + 1):
        counts[int(clip(math.floor((x[row, i] - m) / (0.5 * sd)) + 4.0, 0.0, 7.0))] += 1.0
    return shannon(counts, float(w)) / math.log(8.0)


@njit
def mutual_information(x, a, b, t, w, lag):
    """Mutual information in nats of row a and row b `lag` bars earlier, each cut in three at 0.43 deviations."""
    ma, sa = mean(x, a, t, w), std(x, a, t, w)
    mb, sb = mean(x, b, t - lag, w), std(x, b, t - lag, w)
    if sa <= FLAT or sb <= FLAT:
        return 0.0
    joint = np.zeros(9)
    left = np.zeros(3)
    right = np.zeros(3)
    a_low, a_high, b_low, b_high = ma - 0.43 * sa, ma + 0.43 * sa, mb - 0.43 * sb, mb + 0.43 * sb
    for i in range(t - w + 1, t + 1):
        p, q = x[a, i], x[b, i - lag]
        joint[3 * (int(p >= a_low) + int(p > a_high)) + int(q >= b_low) + int(q > b_high)] += 1.0
    for k in range(3):
        for j in range(3):
            left[k] += joint[3 * k + j]
            right[j] += joint[3 * k + j]
    return max(shannon(left, float(w)) + shannon(right, float(w)) - shannon(joint, float(w)), 0.0)


@njit
def spectral_entropy(x, row, t, out):
    """Entropy of the periodogram of 64 mean-free values as a share of log 32, and the share of power at 2 to 8 bars."""
    m = mean(x, row, t, 64)
    re, im = np.zeros(64), np.zeros(64)
    for i in range(64):  # bit-reversed order
        j = 0
        for k in range(6):
            j |= ((i >> k) & 1) << (5 - k)
        re[j] = x[row, t - 63 + i] - m
    size = 2
    while size <= 64:
        half = size // 2
        for k in range(half):
            wr, wi = _COS[k * (64 // size)], _SIN[k * (64 // size)]
            for i in range(k, 64, size):
                j = i + half
                a, b = re[j] * wr - im[j] * wi, re[j] * wi + im[j] * wr
                re[j], im[j] = re[i] - a, im[i] - b
                re[i] += a
                im[i] += b
        size *= 2
    total = 0.0
    power = np.zeros(32)
    for k in range(1, 33):
        power[k - 1] = re[k] * re[k] + im[k] * im[k]
        total += power[k - 1]
    if total <= 64.0 * 64.0 * FLAT * FLAT:
        out[0] = 0.0
        out[1] = 0.5
        return
    quick = 0.0
    for k in range(8, 33):
        quick += power[k - 1]
    out[0] = shannon(power, total) / math.log(32.0)
    out[1] = quick / total


@njit
def haar_energies(x, row, t, out):
    """Shares of the energy of 64 values in the Haar details of levels 1 to 4 and in the rest, and their
    entropy share."""
    a = np.empty(64)
    for i in range(64):
        a[i] = x[row, t - 63 + i]
    energy = np.zeros(5)
    n = 64
    total = 0.0
    for depth in range(4):
        n //= 2
        for i in range(n):
            d = (a[2 * i] - a[2 * i + 1]) * math.sqrt(0.5)
            a[i] = (a[2 * i] + a[2 * i + 1]) * math.sqrt(0.5)
            energy[depth] += d * d
    for i in range(n):
        energy[4] += a[i] * a[i]
    for k in range(5):
        total += energy[k]
    for k in range(5):
        out[k] = energy[k] / total if total > FLAT * FLAT else 0.2
    out[5] = shannon(energy, total) / math.log(5.0) if total > FLAT * FLAT else 1.0


@njit
def scaling_exponent(x, row, t):
    """Generalised Hurst exponent: slope of the log mean absolute change over 1, 2, 4, 8 and 16 bars, in 128;
    0.5 where flat."""
    sx = sxx = sy = sxy = 0.0
    for k in range(5):
        lag = 1 << k
        a = b = c = d = 0.0  # four lanes: no addition waits for the one before
        i = t - 127 + lag
        while i + 3 <= t:
            a += abs(x[row, i] - x[row, i - lag])
            b += abs(x[row, i + 1] - x[row, i + 1 - lag])
            c += abs(x[row, i + 2] - x[row, i + 2 - lag])
            d += abs(x[row, i + 3] - x[row, i + 3 - lag])
            i += 4
        while i <= t:
            a += abs(x[row, i] - x[row, i - lag])
            i += 1
        a = ((a + b) + (c + d)) / (128 - lag)
        if a <= FLAT:
            return 0.5
        u, v = float(k), math.log2(a)
        sx += u
        sxx += u * u
        sy += v
        sxy += u * v
    return (5.0 * sxy - sx * sy) / (5.0 * sxx - sx * sx)


@njit
def rescaled_range(x, row, t):
    """Hurst's rescaled range exponent of 128 values: slope over blocks of 8, 16, 32, 64 and 128; 0.5 where flat."""
    sx = sxx = sy = sxy = points = 0.0
    size = 8
    while size <= 128:
        total = blocks = 0.0
        for b in range(128 // size):
            end = t - 127 + (b + 1) * size - 1
            m, sd = mean(x, row, end, size), std(x, row, end, size)
            if sd <= FLAT:
                continue
            walk = top = bottom = 0.0
            for i in range(end - size + 1, end + 1):
                walk += x[row, i] - m
                top, bottom = max(top, walk), min(bottom, walk)
            total += (top - bottom) / sd
            blocks += 1.0
        if blocks > 0.0:
            u, v = math.log(float(size)), math.log(total / blocks)
            sx += u
            sxx += u * u
            sy += v
            sxy += u * v
            points += 1.0
        size *= 2
    return (points * sxy - sx * sy) / (points * sxx - sx * sx) if points >= 3.0 else 0.5


@njit
def fluctuation_exponent(x, row, t):
    """Detrended fluctuation exponent of 128 values over boxes of 4, 8, 16 and 32; 0.5 where flat."""
    walk = np.empty(128)
    m = mean(x, row, t, 128)
    a = 0.0
    for i in range(128):
        a += x[row, t - 127 + i] - m
        walk[i] = a
    sx = sxx = sy = sxy = 0.0
    for k in range(4):
        size = 4 << k
        mid = 0.5 * (size - 1)
        norm = size * (size * size - 1.0) / 12.0
        left = 0.0
        for b in range(128 // size):
            y = by = 0.0
            for i in range(size):
                y += walk[b * size + i]
                by += (i - mid) * walk[b * size + i]
            y /= size
            by /= norm
            for i in range(size):
                e = walk[b * size + i] - y - by * (i - mid)
                left += e * e
        f = math.sqrt(left / 128.0)
        if f <= FLAT:
            return 0.5
        u, v = math.log(float(size)), math.log(f)
        sx += u
        sxx += u * u
        sy += v
        sxy += u * v
    return (4.0 * sxy - sx * sy) / (4.0 * sxx - sx * sx)


@njit
def higuchi(x, row, t, w):
    """Higuchi's fractal dimension with steps 1 to 6; 1 where flat."""
    sx = sxx = sy = sxy = 0.0
    first = t - w + 1
    for k in range(1, 7):
        length = 0.0
        for m in range(k):
            n = (w - m - 1) // k
            a = 0.0
            for j in range(1, n + 1):
                a += abs(x[row, first + m + j * k] - x[row, first + m + (j - 1) * k])
            length += a * (w - 1.0) / (n * k) / k
        length /= k
        if length <= FLAT:
            return 1.0
        u, v = math.log(1.0 / k), math.log(length)
        sx += u
        sxx += u * u
        sy += v
        sxy += u * v
    return (6.0 * sxy - sx * sy) / (6.0 * sxx - sx * sx)


@njit
def katz(x, row, t, w):
    """Katz's fractal dimension; 1 where flat."""
    path = far = 0.0
    origin = x[row, t - w + 1]
    for i in range(t - w + 2, t + 1):
        path += abs(x[row, i] - x[row, i - 1])
        far = max(far, abs(x[row, i] - origin))
    if far <= FLAT:
        return 1.0
    n = math.log10(w - 1.0)
    below = n + math.log10(far / path)
    return clip(n / below, 1.0, 10.0) if below > 0.05 else 10.0


@njit
def petrosian(x, row, t, w):
    """Petrosian's fractal dimension from the turns of the row's direction."""
    turns = 0.0
    for i in range(t - w + 3, t + 1):
        a, b = x[row, i - 1] - x[row, i - 2], x[row, i] - x[row, i - 1]
        if (a > FLAT and b < -FLAT) or (a < -FLAT and b > FLAT):
            turns += 1.0
    n = math.log10(float(w))
    return n / (n + math.log10(w / (w + 0.4 * turns)))


@njit
def lempel_ziv(x, row, t, w):
    """Lempel and Ziv's complexity (1976) of rising and other values, normalised by w / log2 w."""
    up = np.empty(w, dtype=np.uint8)
    for i in range(w):
        up[i] = x[row, t - w + 1 + i] > FLAT
    c, k, k_max, u, v = 1, 1, 1, 0, 1
    while v + k <= w:
        if up[u + k - 1] == up[v + k - 1]:
            k += 1
        else:
            k_max = max(k, k_max)
            u += 1
            if u == v:
                c += 1
                v += k_max
                u, k, k_max = 0, 1, 1
            else:
                k = 1
    if k != 1:
        c += 1
    return c * math.log2(w) / w


@njit
def hjorth(x, row, t, w, out):
    """Hjorth's mobility and complexity; 0 where constant."""
    v0 = std(x, row, t, w)
    m1 = (x[row, t] - x[row, t - w + 1]) / (w - 1.0)
    m2 = (x[row, t] - x[row, t - 1] - x[row, t - w + 2] + x[row, t - w + 1]) / (w - 2.0)
    s1 = s2 = 0.0
    for i in range(t - w + 2, t + 1):
        d = x[row, i] - x[row, i - 1] - m1
        s1 += d * d
        if i > t - w + 2:
            d = x[row, i] - 2.0 * x[row, i - 1] + x[row, i - 2] - m2
            s2 += d * d
    v1, v2 = math.sqrt(s1 / (w - 1.0)), math.sqrt(s2 / (w - 2.0))
    flat = v0 <= FLAT or v1 <= FLAT
    out[0] = 0.0 if flat else v1 / v0
    out[1] = 0.0 if flat else v2 / v1 / (v1 / v0)

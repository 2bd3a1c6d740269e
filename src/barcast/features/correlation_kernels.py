"""The compiled part of the correlations: hourly buckets of closes, and all pairs at each refresh.

A market's hours play no part here: buckets, refreshes and ages run on UTC, the clock that all symbols share.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from barcast.features.compiling import njit
from barcast.features.kernels import clip

# rules: max age, bucket, refresh, look-back (all in us), least observations
# clock: bucket of the last event, time of the last event, refresh id, buckets closed


@njit
def close_bucket(now, rules, clock, last, last_time, ring, ring_times):
    """Note the closes of a bucket that has ended; True where the correlations are due.

    A bucket is closed by the first event after it, with what was known at its last event.
    """
    bucket = (now - 1) // rules[1]
    if bucket != clock[0]:
        if clock[1] > -(2**61):
            k = clock[3] % len(ring_times)
            ring_times[k] = clock[1]
            for i in range(len(last_time)):
                ring[i, k] = last[i, 0] if last_time[i] >= clock[1] - rules[0] else np.nan
            clock[3] += 1
        clock[0] = bucket
    refresh = (now - 1) // rules[2]
    due = refresh != clock[2]
    clock[2] = refresh
    return due


@njit(fastmath={"reassoc", "contract", "nsz"})
def _pair(a, b, m):
    """Count and sums of products of two rows of returns, where both are known (NaN is held as 0 with mask 0)."""
    n = sa = sb = saa = sbb = sab = 0.0
    for k in range(m):
        p, q = a[0, k] * b[1, k], b[0, k] * a[1, k]
        n += a[1, k] * b[1, k]
        sa += p
        sb += q
        saa += p * p
        sbb += q * q
        sab += p * q
    return n, sa, sb, saa, sbb, sab


@njit
def refresh_correlations(
    now, rules, threshold, clock, order, ring, ring_times, correlation, peers, weights, links
):
    """Correlations of all pairs over the look-back, and each symbol's peers: the strongest at or above the
    threshold."""
    num, length = ring.shape
    count = min(clock[3], length)
    # returns between consecutive buckets, oldest first; mask beside each
    table = np.zeros((num, 2, length))
    m = 0
    for j in range(1, count):
        k = (clock[3] - count + j) % length
        if ring_times[k] <= now - rules[3]:
            continue
        before = (k - 1 + length) % length
        for i in range(num):
            r = ring[i, k] - ring[i, before]
            known = r == r
            table[i, 0, m] = r if known else 0.0
            table[i, 1, m] = 1.0 if known else 0.0
        m += 1
    most = peers.shape[1]
    for i in range(num):
        for j in range(i + 1, num):
            n, sa, sb, saa, sbb, sab = _pair(table[i], table[j], m)
            value = np.nan
            if n >= rules[4]:
                va, vb = saa - sa * sa / n, sbb - sb * sb / n
                if va > 1e-9 * saa and vb > 1e-9 * sbb and va > 1e-20 and vb > 1e-20:
                    value = clip((sab - sa * sb / n) / math.sqrt(va * vb), -1.0, 1.0)
            correlation[i, j] = correlation[j, i] = value
    for i in range(num):
        total = known = 0.0
        highest = -2.0
        found = 0
        for at in range(num):
            j = order[at]
            v = correlation[i, j]
            if j == i or v != v:
                continue
            total += v
            known += 1.0
            highest = max(highest, v)
            if v >= threshold:
                if found == most and v <= weights[i, found - 1]:
                    continue
                k = found if found < most else most - 1
                while k > 0 and weights[i, k - 1] < v:
                    peers[i, k], weights[i, k] = peers[i, k - 1], weights[i, k - 1]
                    k -= 1
                peers[i, k], weights[i, k] = j, v
                found = min(found + 1, most)
        for k in range(found, most):
            peers[i, k], weights[i, k] = -1, 0.0
        mean = total / known if known > 0.0 else 0.0
        links[i, 3] = mean - links[i, 2] if known > 0.0 and links[i, 0] > 0.0 else 0.0
        links[i, 0] = 1.0 if known > 0.0 else 0.0
        links[i, 1] = highest if known > 0.0 else 0.0
        links[i, 2] = mean
        links[i, 4] = found

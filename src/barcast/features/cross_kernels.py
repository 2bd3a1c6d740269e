"""The compiled part of the cross-symbol features: one event's values, and all events of a table in order."""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from barcast.features.compiling import njit
from barcast.features.correlation_kernels import close_bucket, refresh_correlations
from barcast.features.kernels import TINY, clip

NUM_COLUMNS = 51
PAIRS = 100  # pairs before a relation is given (their mean age is then 25 bars)
SETTLED = (
    700  # pairs after which averages of weight 2/51 have forgotten their start (below 1e-6), squares included
)
_SLOW, _QUICK = 2.0 / 51.0, 2.0 / 21.0


@njit
def _ranks(values, fresh, out):
    """Share of the other fresh values that are smaller, equal ones counted half; NaN for unknown ones."""
    num = len(values)
    index = np.empty(num, dtype=np.int64)
    n = 0
    for i in range(num):
        out[i] = np.nan
        if fresh[i] and values[i] == values[i]:
            index[n] = i
            n += 1
    if n < 2:
        return
    known = np.empty(n)
    for k in range(n):
        known[k] = values[index[k]]
    sort = np.argsort(known)
    k = 0
    while k < n:
        j = k
        while j + 1 < n and known[sort[j + 1]] - known[sort[j]] <= TINY * abs(known[sort[j]]):
            j += 1
        for q in range(k, j + 1):
            out[index[sort[q]]] = (k + 0.5 * (j - k)) / (n - 1.0)
        k = j + 1


@njit
def _correlate(e, a, b, aa, bb, ab):
    """Correlation from exponentially weighted means at the given places of e; 0 where one is constant."""
    va, vb = e[aa] - e[a] * e[a], e[bb] - e[b] * e[b]
    return clip((e[ab] - e[a] * e[b]) / math.sqrt(va * vb), -1.0, 1.0) if va > 1e-20 and vb > 1e-20 else 0.0


@njit
def cross_event(
    now,
    rules,
    clock,
    order,
    who,
    fields,
    late,
    last,
    last_time,
    relation,
    ranks,
    peers,
    weights,
    links,
    market,
    columns,
    lookback,
    seen,
    values,
    rows,
):
    """One event: take the bars, then write the features of each. See `CrossState.event`.

    relation[i]: 0 own mean, 1 market's, 2 own square, 3 market's square, 4 product, 5 own x market before,
    6 market x own before, 7 pairs, 8 own return before, 9 market return before, 10 residual mean, 11 its square,
    12-15 mean and square of own and market return before, 16 leads_market.
    """
    num = len(last_time)
    for k in range(len(who)):
        last[who[k]] = fields[k]
        last_time[who[k]] = now
    clock[1] = now
    fresh = np.empty(num, dtype=np.bool_)
    for i in range(num):
        fresh[i] = last_time[i] >= now - rules[0]
    count, total, square, up = np.zeros(8), np.zeros(8), np.zeros(8), np.zeros(8)
    for at in range(num):
        i = order[at]
        if fresh[i]:
            for f in range(1, 8):
                v = last[i, f]
                if v == v:
                    count[f] += 1.0
                    total[f] += v
                    square[f] += v * v
                    up[f] += 1.0 if v > TINY else 0.0
    spread1 = (
        math.sqrt(max(square[1] / count[1] - (total[1] / count[1]) ** 2, 0.0)) if count[1] > 0.0 else 0.0
    )
    spread20 = (
        math.sqrt(max(square[3] / count[3] - (total[3] / count[3]) ** 2, 0.0)) if count[3] > 0.0 else 0.0
    )
    if not late and count[1] > 1.0:
        market[0] = spread1 if market[1] == 0.0 else market[0] + _SLOW * (spread1 - market[0])
        market[1] += 1.0
    rank = np.empty((4, num))
    _ranks(last[:, 2], fresh, rank[0])
    _ranks(last[:, 3], fresh, rank[1])
    _ranks(last[:, 6], fresh, rank[2])
    _ranks(last[:, 5], fresh, rank[3])
    first, second = -1, -1  # the two symbols that lead most
    for at in range(num):
        i = order[at]
        if fresh[i] and relation[i, 7] >= PAIRS and last[i, 1] == last[i, 1]:
            if first < 0 or relation[i, 16] > relation[first, 16]:
                first, second = i, first
            elif second < 0 or relation[i, 16] > relation[second, 16]:
                second = i
    out = np.empty(NUM_COLUMNS)
    mean = np.empty(8)
    for k in range(len(who)):
        i = who[k]
        own = last[i]
        out[:] = np.nan
        others = 0.0
        for f in range(1, 8):
            known = own[f] == own[f]
            n = count[f] - (1.0 if known else 0.0)
            mean[f] = (total[f] - (own[f] if known else 0.0)) / n if n > 0.0 else np.nan
            if f == 1:
                others = n
        there = others > 0.0
        out[0] = 1.0 if there else 0.0
        for j in range(3):  # returns over 1, 5 and 20 bars
            out[1 + j] = mean[1 + j]
        for j in range(4):
            out[11 + j] = own[1 + j] - mean[1 + j]
        for j, f in ((4, 1), (5, 3)):
            known = own[f] == own[f]
            n = count[f] - (1.0 if known else 0.0)
            out[j] = (up[f] - (1.0 if known and own[f] > TINY else 0.0)) / n if n > 0.0 else np.nan
        out[6] = mean[6]
        out[7] = mean[7]
        out[8] = spread1 if there else np.nan
        out[9] = spread20 if there else np.nan
        out[10] = (
            clip(math.log(spread1 / market[0]), -3.0, 3.0)
            if there and spread1 > TINY and market[0] > TINY
            else 0.0
        )
        out[15] = clip(math.log(own[5] / mean[5]), -5.0, 5.0) if own[5] > TINY and mean[5] > TINY else 0.0
        out[16] = own[6] - mean[6]
        out[17] = own[7] - mean[7]
        for j in range(4):
            out[18 + j] = rank[j, i]
        now_rank = rank[1, i]
        place = int(ranks[i, 20]) if ranks[i, 20] == ranks[i, 20] else 0
        then = ranks[i, place % 20]
        out[22] = now_rank - then if now_rank == now_rank and then == then else 0.0
        ranks[i, place % 20] = now_rank
        ranks[i, 20] = (place + 1) % 20
        out[23] = 1.0 if now_rank > 0.8 else 0.0
        out[24] = 1.0 if now_rank < 0.2 else 0.0
        out[25] = clip(out[13] / spread20, -10.0, 10.0) if spread20 > TINY else 0.0
        out[26] = 1.0 if own[3] * mean[3] < 0.0 else 0.0

        e = relation[i]
        r, m = own[1], mean[1]
        if there and r == r and m == m:
            w = _SLOW
            pr, pm = e[8], e[9]
            if e[7] == 0.0:
                pr, pm = r, m
                w = 1.0
            for j, v in (
                (0, r),
                (1, m),
                (2, r * r),
                (3, m * m),
                (4, r * m),
                (5, r * pm),
                (6, m * pr),
                (12, pr),
                (13, pr * pr),
                (14, pm),
                (15, pm * pm),
            ):
                e[j] += w * (v - e[j])
            vm = e[3] - e[1] * e[1]
            beta = clip((e[4] - e[0] * e[1]) / vm, -10.0, 10.0) if vm > 1e-20 else 1.0
            rest = r - beta * m
            quick = 1.0 if e[7] == 0.0 else _QUICK
            e[10] += quick * (rest - e[10])
            e[11] += quick * (rest * rest - e[11])
            out[35] = e[9] if e[7] > 0.0 else 0.0
            e[7] += 1.0
            e[8], e[9] = r, m
            follows = _correlate(e, 0, 14, 2, 15, 5)
            leads = _correlate(e, 1, 12, 3, 13, 6)
            e[16] = leads
            if e[7] >= PAIRS:
                out[28] = beta
                out[29] = _correlate(e, 0, 1, 2, 3, 4)
                out[30] = rest
                out[31] = clip(e[10] / math.sqrt(e[11]), -10.0, 10.0) if e[11] > 1e-20 else 0.0
                out[32] = follows
                out[33] = leads
                out[34] = leads - follows
        out[27] = 1.0 if e[7] >= PAIRS and there else 0.0
        if out[27] == 0.0:
            out[28] = 1.0
            for j in range(29, 35):
                out[j] = 0.0
        leader = first if first != i else second
        out[36] = last[leader, 1] if leader >= 0 else 0.0

        total_w = shown = 0.0
        sums = np.zeros(8)
        weight = np.zeros(8)
        for j in range(int(links[i, 4])):
            p = peers[i, j]
            if fresh[p]:
                w = weights[i, j]
                shown += 1.0
                total_w += w
                for f in range(1, 8):
                    v = last[p, f]
                    if v == v:
                        sums[f] += w * v
                        weight[f] += w
        out[37] = 1.0 if shown > 0.0 else 0.0
        out[38] = shown / peers.shape[1]
        out[39] = total_w / shown if shown > 0.0 else 0.0
        out[40] = sums[1] / weight[1] if weight[1] > 0.0 else 0.0
        out[41] = sums[2] / weight[2] if weight[2] > 0.0 else 0.0
        out[42] = sums[3] / weight[3] if weight[3] > 0.0 else 0.0
        out[43] = own[2] - out[41] if weight[2] > 0.0 else 0.0
        out[44] = own[3] - out[42] if weight[3] > 0.0 else 0.0
        out[45] = sums[6] / weight[6] if weight[6] > 0.0 else 1.0
        out[46] = sums[7] / weight[7] - own[7] if weight[7] > 0.0 else 0.0
        for j in range(4):
            out[47 + j] = links[i, j]
        for j in range(
            1, 27
        ):  # nobody else has the value: the documented neutral, with market_available to tell
            if out[j] != out[j]:
                out[j] = (
                    0.5 if j in (4, 5, 18, 19, 20, 21) else (1.0 if j == 6 else (50.0 if j == 7 else 0.0))
                )
        if out[35] != out[35]:
            out[35] = 0.0
        for j in range(NUM_COLUMNS):
            v = out[j]
            good = seen[k] >= lookback[j] and abs(v) < 3.0e38
            values[columns[j], rows[k]] = np.float32(v) if good else np.float32(np.nan)


@njit
def cross_run(
    times,
    starts,
    late,
    who,
    fields,
    rows,
    seen,
    rules,
    threshold,
    clock,
    order,
    last,
    last_time,
    relation,
    ranks,
    ring,
    ring_times,
    correlation,
    peers,
    weights,
    links,
    market,
    columns,
    lookback,
    values,
):
    """All events of a table in order: what `CrossState.event` does for one. Event e has the entries starts[e]
    to starts[e + 1]."""
    for e in range(len(times)):
        if close_bucket(times[e], rules, clock, last, last_time, ring, ring_times):
            refresh_correlations(
                times[e], rules, threshold, clock, order, ring, ring_times, correlation, peers, weights, links
            )
        a, b = starts[e], starts[e + 1]
        cross_event(
            times[e],
            rules,
            clock,
            order,
            who[a:b],
            fields[a:b],
            late[e],
            last,
            last_time,
            relation,
            ranks,
            peers,
            weights,
            links,
            market,
            columns,
            lookback,
            seen[a:b],
            values,
            rows[a:b],
        )

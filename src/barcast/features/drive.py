"""The compiled loop that runs every kernel over bars: the batch engine's and the streaming engine's only way
to values."""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
from numba import types

from barcast.features.compiling import KERNEL_TYPE, njit

_F4, _F8, _I8 = types.float32, types.float64, types.int64

BLOCK = 512  # bars per group at a time: the block's columns of x stay in the second-level cache


@njit(
    types.void(
        types.ListType(KERNEL_TYPE), _I8[::1], _I8[::1], _I8[::1], _I8[::1],
        _F8[:, ::1], _I8, _I8, _I8, _F8[::1], _F4[:, ::1], _I8,
    )
)  # fmt: skip
def drive(kernels, state_at, value_at, column, lookback, x, t0, t1, n0, state, values, v0):
    """Run all kernels over the columns t0 to t1 of one symbol's x.

    Args:
        kernels: one per group.
        state_at, value_at: group g owns state[state_at[g]:state_at[g + 1]] and the values value_at[g] to
        value_at[g + 1].
        column, lookback: of each value, the row of `values` it goes to and its look-back.
        n0: bars seen before t0.
        values: (F, bars); column v0 receives bar t0. NaN where the look-back is not filled or the value is not finite.
    """
    groups = len(kernels)
    width = 1
    for g in range(groups):
        width = max(width, value_at[g + 1] - value_at[g])
    out = np.empty(width)
    start = t0
    while start < t1:
        stop = min(start + BLOCK, t1)
        for g in range(groups):
            kernel = kernels[g]
            s = state[state_at[g] : state_at[g + 1]]
            first = value_at[g]
            count = value_at[g + 1] - first
            for t in range(start, stop):
                n = n0 + t - t0 + 1
                for j in range(count):
                    out[j] = np.nan
                kernel(x, t, n, s, out)
                for j in range(count):
                    v = out[j]
                    good = n >= lookback[first + j] and abs(v) < 3.0e38
                    values[column[first + j], v0 + t - t0] = np.float32(v) if good else np.float32(np.nan)
        start = stop


@njit(
    types.void(
        types.ListType(KERNEL_TYPE), _I8[::1], _I8[::1], _I8[::1], _I8[::1],
        _F8[:, :, ::1], _I8[::1], _I8[::1], _I8[::1], _F8[:, ::1], _F4[:, ::1],
    )
)  # fmt: skip
def drive_many(kernels, state_at, value_at, column, lookback, x, who, at, seen, state, values):
    """Run all kernels for the newest bar of several symbols.

    Args:
        x: (S, series, bars kept); state: (S, state of all groups).
        who: rows of x that have a new bar; at, seen: per row of x the bar's column and the bars seen before it.
        values: (F, len(who)).
    """
    for k in range(len(who)):
        i = who[k]
        drive(
            kernels,
            state_at,
            value_at,
            column,
            lookback,
            x[i],
            at[i],
            at[i] + 1,
            seen[i],
            state[i],
            values,
            k,
        )

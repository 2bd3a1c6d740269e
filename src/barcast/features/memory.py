"""What the engines remember of each symbol between bars, and the one way of running a table of bars through it.

Batch starts with an empty memory and throws it away; the stream keeps it, so that a table (history) and single moments
(live) may follow one another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast import intervals
from barcast.features.cross_kernels import cross_run
from barcast.features.cross_symbol import CrossState
from barcast.features.drive import drive
from barcast.features.plan import Plan
from barcast.features.series import ANNUAL, HOUR, NUM_SERIES, SHARED, TIME
from barcast.features.temporal import Clock
from barcast.features.user import user_table

VALUES = ("open", "high", "low", "close", "volume")


class Memory:
    """State of all symbols, in slots in order of appearance.

    Attributes:
        x: (S, series, 2 x window_bars) the last bars' series; when full, the last half moves to the front. at: (S,)
            column of the newest; seen: (S,) bars so far.
        state: (S, n) the kernels' state. newest: (S,) close time in us of the newest bar.
        known: (S,) us, when all that the newest row rests on was known.
        basis: (S, 2) what incoming prices and volumes are multiplied by, so that a split leaves history as it is.
        clocks: (S) each symbol's calendar as the kernels need it; symbols of one calendar share one.
        cross: the cross-symbol state; its slots are the same. It knows no calendar: it runs on UTC, which all share.
    """

    def __init__(self, p: Plan, calendar: Any) -> None:
        self.plan = p
        self.calendar = calendar
        self.clocks: list[Clock] = []
        self._clock_of: dict[str, Clock] = {}
        self.kernels = p.kernels()
        self.symbols: list[str] = []
        self.slot: dict[str, int] = {}
        self.arrays = _arrays(0, p)
        self.cross = CrossState(p.interval, p.config)

    def add(self, symbols: Sequence[str]) -> None:
        """Give new symbols a slot each."""
        new = [name for name in symbols if name not in self.slot]
        if not new:
            return
        before = len(self.symbols)
        for name in new:
            self.slot[name] = len(self.symbols)
            self.symbols.append(name)
            self.clocks.append(self.clock(name))
        grown = _arrays(len(self.symbols), self.plan)
        for name, array in self.arrays.items():
            grown[name][:before] = array
        self.arrays = grown
        self.cross.add(new)

    def clock(self, symbol: str) -> Clock:
        """The clock of a symbol's calendar, whether the symbol has been seen or not."""
        calendar = self.calendar(symbol)
        if calendar.name not in self._clock_of:
            self._clock_of[calendar.name] = Clock(calendar, self.plan.interval)
        return self._clock_of[calendar.name]

    def run(
        self, bars: pl.DataFrame, times: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Run checked bars (sorted by symbol and time, later than all before) through the kernels.

        Returns:
            (F + 1, rows) float32, NaN where not known, the last row belonging to nobody; and (rows,) when each row was
            known, in us: when the last of the bars it rests on was, the others' prompt bars included.
        """
        p = self.plan
        num = bars.height
        values = np.empty((len(p.specs) + 1, num), dtype=np.float32)
        created = microseconds(bars["created_timestamp"])
        if num == 0:
            return values, created
        data = [bars[name].to_numpy() for name in VALUES]
        names = bars["symbol"]
        edges = np.append(np.flatnonzero((names != names.shift()).fill_null(True).to_numpy()), num)
        present = [names[int(k)] for k in edges[:-1]]
        self.add(present)
        crossing = len(p.cross_columns) > 0
        late = late_bars(times, created, p)
        moment = known_at(times, created, late) if crossing else created
        known = np.empty(num, dtype=np.int64)
        fields = np.empty((num, len(SHARED))) if crossing else None
        seen = np.empty(num, dtype=np.int64)
        slots = np.empty(num, dtype=np.int64)

        def one(k: int) -> None:
            a, b, slot = int(edges[k]), int(edges[k + 1]), self.slot[present[k]]
            slots[a:b] = slot
            known[a:b] = np.maximum(np.maximum.accumulate(moment[a:b]), self.arrays["known"][slot])
            self.arrays["known"][slot] = known[b - 1]
            seen[a:b] = self._one(slot, data, times, a, b, values, fields)
            if len(p.clock_columns):
                values[p.clock_columns, a:b] = self.clocks[slot].columns(times[a:b])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, range(len(present))))
        if fields is not None:
            self._cross(times, created, late, slots, seen, fields, values)
        return values, known

    def _one(
        self, slot: int, data: list[npt.NDArray[np.float64]], times: npt.NDArray[np.int64], a: int, b: int,
        values: npt.NDArray[np.float32], fields: npt.NDArray[np.float64] | None,
    ) -> npt.NDArray[np.int64]:  # fmt: skip
        m = self.arrays
        p, clock = self.plan, self.clocks[slot]
        before = int(m["seen"][slot])
        kept = min(before, p.window_bars)
        x = np.empty((NUM_SERIES, kept + b - a))
        if kept:
            at = int(m["at"][slot])
            x[:, :kept] = m["x"][slot, :, at - kept + 1 : at + 1]
        fill(
            x[:, kept:],
            [column[a:b] for column in data],
            times[a:b],
            clock.buckets(times[a:b]),
            clock.annual,
            m["basis"][slot],
        )
        drive(
            self.kernels, p.state_at, p.value_at, p.column, p.lookback, x, kept, x.shape[1], before,
            m["state"][slot], values, a,
        )  # fmt: skip
        user_table(p, x, b - a, before, values, a)
        if fields is not None:
            for k, row in enumerate(SHARED):
                fields[a:b, k] = x[row, kept:]
        last = min(x.shape[1], p.window_bars)
        m["x"][slot, :, :last] = x[:, x.shape[1] - last :]
        m["at"][slot] = last - 1
        m["seen"][slot] = before + b - a
        m["newest"][slot] = times[b - 1]
        return np.arange(before + 1, before + 1 + b - a)

    def _cross(
        self, times: npt.NDArray[np.int64], created: npt.NDArray[np.int64], late: npt.NDArray[np.bool_],
        slots: npt.NDArray[np.int64], seen: npt.NDArray[np.int64], fields: npt.NDArray[np.float64],
        values: npt.NDArray[np.float32],
    ) -> None:  # fmt: skip
        p, c = self.plan, self.cross
        rank = np.empty(len(c.symbols), dtype=np.int64)
        rank[c.order] = np.arange(len(c.order))
        rows = np.lexsort((rank[slots], np.where(late, created, 0), late, times))
        t, l = times[rows], late[rows]  # noqa: E741
        new = np.flatnonzero((np.diff(t, prepend=t[0] - 1) != 0) | l)
        starts = np.append(new, len(rows))
        a = c.arrays
        cross_run(
            t[new], starts, l[new], slots[rows], fields[rows], rows, seen[rows], c.rules, c.threshold,
            a["clock"], c.order,
            a["last"], a["last_time"], a["relation"], a["ranks"], a["ring"], a["ring_times"], a["correlation"],
            a["peers"],
            a["weights"], a["links"], a["market"], p.cross_columns, p.cross_lookback, values,
        )  # fmt: skip


def microseconds(times: pl.Series) -> npt.NDArray[np.int64]:
    """Each time in us since 1970; without a Polars query, whose threads cost a single bar more than its features."""
    out: npt.NDArray[np.int64] = times.to_numpy().astype("datetime64[us]").astype(np.int64)
    return out


def fill(
    x: npt.NDArray[np.float64], data: Sequence[Any], times: npt.NDArray[np.int64], buckets: npt.NDArray[np.float64],
    annual: float, basis: npt.NDArray[np.float64],
) -> None:  # fmt: skip
    """Write the given rows of x for some bars."""
    for row in range(4):
        x[row] = data[row] * basis[0]
    x[4] = data[4] * basis[1]
    x[TIME] = times / 1e6
    x[HOUR : HOUR + 4] = buckets
    x[ANNUAL] = annual


def late_bars(times: npt.NDArray[np.int64], created: npt.NDArray[np.int64], p: Plan) -> npt.NDArray[np.bool_]:
    """Which bars missed the deadline of their close time, and so come after the others' rows.

    A bar is late when it was known more than the deadline after its close and after the first bar of that
    time, and that
    first bar came live (within one interval): a history that was downloaded later has no late bars.
    """
    if not len(times):
        return np.zeros(0, dtype=bool)
    order = np.argsort(times, kind="stable")
    t = times[order]
    starts = np.flatnonzero(np.diff(t, prepend=t[0] - 1))
    first = np.minimum.reduceat(created[order], starts)
    which = np.cumsum(np.diff(t, prepend=t[0]) != 0)
    first = first[which]
    deadline = int(p.config.peer_deadline_seconds * 1e6)
    step = intervals.seconds(p.interval) * 1_000_000
    out = np.empty(len(times), dtype=bool)
    out[order] = (first <= t + step) & (created[order] > np.maximum(t, first) + deadline)
    return out


def known_at(
    times: npt.NDArray[np.int64], created: npt.NDArray[np.int64], late: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """When the bars that each bar's row rests on were known: its own and the prompt ones of the same close time."""
    moments, which = np.unique(times, return_inverse=True)
    prompt = np.full(len(moments), np.iinfo(np.int64).min)
    np.maximum.at(prompt, which[~late], created[~late])
    out: npt.NDArray[np.int64] = np.maximum(prompt[which], created)
    return out


def _arrays(num: int, p: Plan) -> dict[str, npt.NDArray[Any]]:
    return {
        "x": np.full((num, NUM_SERIES, 2 * p.window_bars), np.nan),
        "at": np.full(num, -1, dtype=np.int64),
        "seen": np.zeros(num, dtype=np.int64),
        "newest": np.full(num, np.iinfo(np.int64).min // 2),
        "known": np.full(num, np.iinfo(np.int64).min // 2),
        "state": np.zeros((num, int(p.state_at[-1]))),
        "basis": np.ones((num, 2)),
    }

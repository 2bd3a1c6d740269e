"""The streaming engine: the bars of one close time in, one row per symbol out, equal to the batch engine's.

It runs the same compiled kernels over the same memory. `warm` takes history as a table; `update` takes live bars. A bar
older than the newest is refused or, where the configuration says so, replayed from a checkpoint.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast.config.features import FeaturesConfig
from barcast.errors import DataError
from barcast.features import state_file
from barcast.features.batch import check, check_few, frame
from barcast.features.drive import drive_many
from barcast.features.memory import VALUES, Memory, fill, known_at, late_bars, microseconds
from barcast.features.plan import Plan, plan
from barcast.features.series import SHARED
from barcast.features.temporal import Clock
from barcast.features.user import user_values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StreamEngine:
    """Features of live bars.

    Args:
        interval: of the bars, such as "5m".
        calendar: the bars' `Calendar`, or a function that gives each symbol's.
        config: which features, and what to do with late bars.
    """

    def __init__(self, interval: str, calendar: Any, config: FeaturesConfig | None = None) -> None:
        self.plan: Plan = plan(interval, config)
        self.memory = Memory(self.plan, calendar)
        self._last_us = np.iinfo(np.int64).min // 2
        self._prompt_known = 0
        self._log: list[pl.DataFrame] = []
        self._checkpoints: list[tuple[int, Any]] = []

    @property
    def symbols(self) -> list[str]:
        """Symbols seen so far."""
        return list(self.memory.symbols)

    @property
    def newest(self) -> datetime | None:
        """Close of the newest bars taken; None before the first."""
        if self._last_us < 0:
            return None
        return _EPOCH + timedelta(microseconds=self._last_us)

    def correlations(self) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Symbols in alphabetical order and their correlations at the last refresh (NaN where unknown)."""
        return self.memory.cross.correlations()

    def warm(self, adjusted_bars: pl.DataFrame) -> pl.DataFrame:
        """Run a table of history, later than all bars before, and return its features as the batch engine would.

        Raises:
            DataError: bad values, or bars that are not later than the newest one seen.
        """
        bars = check(adjusted_bars)
        if bars.height == 0:
            return frame(bars, self.plan, *self.memory.run(bars, np.zeros(0, dtype=np.int64)))
        times = microseconds(bars["event_timestamp"])
        start = 0
        for count, name in bars["symbol"].rle().struct.unnest().iter_rows():
            self._on_grid(self.memory.clock(name), times[start : start + count])
            start += count
        if times.min() <= self._last_us:
            raise self._too_old(int(times.min()))
        values, known = self.memory.run(bars, times)
        self._last_us = int(times.max())
        created = microseconds(bars["created_timestamp"])
        newest = times == self._last_us
        self._prompt_known = int(created[newest & ~late_bars(times, created, self.plan)].max())
        self._log, self._checkpoints = [], []
        return frame(bars, self.plan, values, known)

    def update(self, adjusted_bars: pl.DataFrame) -> pl.DataFrame:
        """Take the bars of one close time and return their rows.

        A second call with the same close time brings bars that missed the deadline: their symbols get rows, the rows
        given before stay. With `late_bars: replay` an older or a corrected bar is worked in where it belongs and every
        row from its time on is returned anew.

        Args:
            adjusted_bars: a bars frame whose rows have one event_timestamp.

        Raises:
            DataError: bad values, several times, another interval, or a bar from the past. The state is unharmed.
        """
        bars = check_few(adjusted_bars)
        if bars.height == 0:
            raise DataError(
                "There is no bar in this update.", hint="Call update once per close time that has bars."
            )
        times = microseconds(bars["event_timestamp"])
        now = int(times[0])
        if (times != now).any():
            stamps = bars["event_timestamp"].sort()
            raise DataError(
                f"An update holds the bars of one close time; these run from {stamps[0]} to {stamps[-1]}.",
                hint="Call update once per close time, or warm() for a table of history.",
            )
        names = bars["symbol"].to_list()
        for clock in {self.memory.clock(name) for name in names}:
            self._on_grid(clock, times[:1])
        known = [self.memory.slot.get(name) for name in names]
        repeated = any(k is not None and self.memory.arrays["newest"][k] >= now for k in known)
        if now < self._last_us or repeated:
            if self.plan.config.late_bars == "refuse":
                raise self._too_old(now)
            return self._replay(bars, now)
        if self.plan.config.late_bars == "replay":
            self._remember(bars)
        return frame(bars, self.plan, *self._take(bars, times))

    def rescale(self, symbol: str, price_ratio: float, volume_ratio: float) -> None:
        """A split: from now on bars of `symbol` come with the whole history's prices multiplied by `price_ratio`.

        The remembered history stays as it is and new bars are brought to its scale; no feature depends on it.

        Args:
            price_ratio: adjusted price after by adjusted price before of the same old bar (0.25 for a 4:1 split).
            volume_ratio: the same for volume (4.0 for a 4:1 split).

        Raises:
            DataError: an unknown symbol, or a ratio that is not a positive number.
        """
        if symbol not in self.memory.slot:
            raise DataError(
                f"{symbol!r} has no bars in this stream.",
                hint="Nothing needs rescaling before its first bar.",
            )
        if not (
            np.isfinite(price_ratio) and np.isfinite(volume_ratio) and price_ratio > 0 and volume_ratio > 0
        ):
            raise DataError(f"Ratios {price_ratio} and {volume_ratio} came, positive numbers were expected.")
        self.memory.arrays["basis"][self.memory.slot[symbol]] /= (price_ratio, volume_ratio)
        self._log, self._checkpoints = [], []  # they hold bars of the old scale

    def save(self, path: str | Path) -> None:
        """Write the state to a file, whole or not at all."""
        state_file.write(Path(path), self.memory, self._last_us, self._prompt_known)

    def load(self, path: str | Path) -> None:
        """Take the state from a file that `save` wrote for the same interval, calendar and features.

        Raises:
            DataError: damaged, or of other features. The present state is kept.
        """
        self.memory, self._last_us, self._prompt_known = state_file.read(
            Path(path), self.plan, self.memory.calendar
        )
        self._log, self._checkpoints = [], []

    def _take(
        self, bars: pl.DataFrame, times: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Run checked bars of one new close time (or late ones of the present one)."""
        p, memory = self.plan, self.memory
        now = int(times[0])
        memory.add(bars["symbol"].to_list())
        m = memory.arrays
        slots = np.array([memory.slot[name] for name in bars["symbol"]], dtype=np.int64)
        data = np.vstack([bars[name].to_numpy() for name in VALUES])
        clocks = [memory.clocks[slot] for slot in slots]
        buckets = {clock: clock.buckets(times[:1]) for clock in set(clocks)}
        for k, slot in enumerate(slots):
            at = int(m["at"][slot]) + 1
            if at == m["x"].shape[2]:
                m["x"][slot, :, : p.window_bars] = m["x"][slot, :, at - p.window_bars : at]
                at = p.window_bars
            m["at"][slot] = at
            fill(
                m["x"][slot, :, at : at + 1],
                list(data[:, k : k + 1]),
                times[:1],
                buckets[clocks[k]],
                clocks[k].annual,
                m["basis"][slot],
            )
        values = np.empty((len(p.specs) + 1, len(slots)), dtype=np.float32)
        drive_many(
            memory.kernels, p.state_at, p.value_at, p.column, p.lookback, m["x"], slots, m["at"], m["seen"],
            m["state"], values,
        )  # fmt: skip
        m["seen"][slots] += 1
        m["newest"][slots] = now
        if len(p.clock_columns):
            for clock in buckets:
                mine = np.array([k for k, other in enumerate(clocks) if other is clock])
                values[np.ix_(p.clock_columns, mine)] = clock.columns(times[:1])
        created = microseconds(bars["created_timestamp"])
        moment = self._cross(now, created, slots, values) if len(p.cross_columns) else created
        user_values(p, memory, slots, values)
        m["known"][slots] = np.maximum(m["known"][slots], moment)
        self._last_us = now
        return values, m["known"][slots]

    def _cross(
        self,
        now: int,
        created: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """The cross-symbol features of one moment; returns when each row's bars of this close time were known."""
        p, memory = self.plan, self.memory
        m = memory.arrays
        if now == self._last_us:  # the others' rows are given: these came late
            late = np.ones(len(slots), dtype=bool)
            moment = np.maximum(created, self._prompt_known)
        else:
            late = late_bars(np.full(len(slots), now), created, p)
            moment = known_at(np.full(len(slots), now), created, late)
            self._prompt_known = int(created[~late].max())
        fields = np.ascontiguousarray(m["x"][slots[:, None], np.array(SHARED), m["at"][slots][:, None]])
        rank = np.empty(len(memory.symbols), dtype=np.int64)
        rank[memory.cross.order] = np.arange(len(rank))
        order = np.lexsort((rank[slots], np.where(late, created, 0), late))
        batches = [order[~late[order]], *(order[k : k + 1] for k in np.flatnonzero(late[order]))]
        for index in batches:
            if len(index):
                memory.cross.event(
                    now, slots[index], fields[index], p.cross_columns, p.cross_lookback,
                    m["seen"][slots[index]], values, index, bool(late[index[0]]),
                )  # fmt: skip
        return moment

    def _on_grid(self, clock: Clock, times: npt.NDArray[np.int64]) -> None:
        off = clock.off_grid(times)
        if off.any():
            when = pl.Series([int(times[off][0])]).cast(pl.Datetime("us", "UTC"))[0]
            raise DataError(
                f"A bar closes at {when}, which is no close of {self.plan.interval} bars on {clock.name}.",
                hint="Feed bars of the workspace's interval, stamped at their close in UTC.",
            )

    def _too_old(self, when: int) -> DataError:
        stamps = pl.Series([when, self._last_us]).cast(pl.Datetime("us", "UTC"))
        return DataError(
            f"A bar of {stamps[0]} came after the rows of {stamps[1]} were given.",
            hint="Set features.late_bars to 'replay' to work it in, or drop it: the batch engine will have it.",
        )

    def _remember(self, bars: pl.DataFrame) -> None:
        keep = self.plan.config.replay_bars
        if not self._checkpoints or len(self._log) - self._checkpoints[-1][0] >= keep:
            self._checkpoints.append((len(self._log), self._snapshot()))
            if len(self._checkpoints) > 2:
                drop = self._checkpoints[1][0]
                self._log = self._log[drop:]
                self._checkpoints = [(at - drop, snap) for at, snap in self._checkpoints[1:]]
        self._log.append(bars)

    def _snapshot(self) -> tuple[Any, ...]:
        m = self.memory
        return (
            list(m.symbols), {k: v.copy() for k, v in m.arrays.items()}, list(m.cross.symbols),
            {k: v.copy() for k, v in m.cross.arrays.items()}, m.cross.order.copy(), self._last_us, self._prompt_known,
        )  # fmt: skip

    def _restore(self, snap: tuple[Any, ...]) -> None:
        m = self.memory
        symbols, arrays, names, cross, order, self._last_us, self._prompt_known = copy.deepcopy(snap)
        m.symbols, m.arrays = symbols, arrays
        m.slot = {name: k for k, name in enumerate(symbols)}
        m.clocks = [m.clock(name) for name in symbols]
        m.cross.symbols, m.cross.arrays, m.cross.order = names, cross, order

    def _replay(self, late: pl.DataFrame, now: int) -> pl.DataFrame:
        """Work late or corrected bars in: back to the checkpoint before them, then forward through the logged bars."""
        if not self._checkpoints or self._checkpoints[0][1][5] >= now:
            raise self._too_old(now)
        which = max(k for k, (_, snap) in enumerate(self._checkpoints) if snap[5] < now)
        start, snap = self._checkpoints[which]
        present = self._snapshot()
        rest = pl.concat([*self._log[start:]])
        keys = ["symbol", "event_timestamp"]
        bars = pl.concat([rest.join(late, on=keys, how="anti"), late]).sort("event_timestamp", "symbol")
        kept_log, kept_points = self._log, self._checkpoints
        try:
            self._restore(snap)
            self._log, self._checkpoints = kept_log[:start], kept_points[: which + 1]
            out = []
            for part in bars.partition_by("event_timestamp", maintain_order=True):
                part = part.sort("symbol")
                times = microseconds(part["event_timestamp"])
                values, known = self._take(part, times)
                self._log.append(part)
                if times[0] >= now:
                    out.append(frame(part, self.plan, values, known))
        except Exception:
            self._restore(present)
            self._log, self._checkpoints = kept_log, kept_points
            raise
        return pl.concat(out).sort("symbol", "event_timestamp")

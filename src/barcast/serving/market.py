"""The newest bars of every symbol in memory: prices as traded, and what the past says about volatility and
stress.

Filled from table and log of bars (read again when either has changed) and by `update` from the live stream,
whichever is newer. The prediction engine takes price, rules, context and correlations from here; nothing is
written.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from barcast import intervals

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BarReader(Protocol):
    """The part of `bars.newest.NewestBars` that is used here."""

    def since(self, mark: Any, num_bars: int) -> tuple[Any, pl.DataFrame]:
        """The present mark, and the bars (as traded, with factors) that are new since `mark`; None: all."""
        ...


def micros(moment: datetime) -> int:
    """Microseconds since 1970, UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """Aware UTC time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=int(us))


@dataclass(frozen=True)
class History:
    """One symbol's newest bars, oldest first.

    Attributes:
        times: (N,) bar closes, microseconds since 1970 UTC.
        closes: (N,) adjusted closes.
        price: newest close as traded.
        known_at: when the newest bar was known, microseconds since 1970 UTC.
        marks: (N,) hash of each bar's values, by which a correction is noticed.
    """

    times: NDArray[np.int64]
    closes: NDArray[np.float64]
    price: float
    known_at: int
    marks: NDArray[np.uint64]

    @property
    def event_timestamp(self) -> datetime:
        """Close of the newest bar."""
        return moment(int(self.times[-1]))

    def log_returns(self) -> NDArray[np.float64]:
        """(N-1,) bar to bar."""
        return np.diff(np.log(self.closes))


@dataclass(frozen=True)
class Context:
    """What the past of one symbol says about its present; each 0..1 but the two volatilities (log return
    units)."""

    bar_volatility: float
    volatility_ratio: float
    horizon_volatilities: NDArray[np.float64]
    stress: float

    def risk_level(self, expected_volatility: float) -> int:
        """1 calm .. 5 wild: the fifth of the symbol's own past horizon volatilities that
        `expected_volatility` is in."""
        return min(5, 1 + int(_share(self.horizon_volatilities < expected_volatility) * 5))


def context(history: History, horizon_bars: int, *, window_bars: int = 60) -> Context | None:
    """Volatility and stress from `history`; None with fewer than two windows of bars.

    Volatility is the root mean square of the last `window_bars` log returns. Stress is the mean of two
    ranks within the symbol's stored past: that volatility's, and the present drop below the highest close
    of the window.
    """
    returns = history.log_returns()
    if returns.size < 2 * window_bars:
        return None
    squares = np.cumsum(np.concatenate([[0.0], returns**2]))
    volatility = np.sqrt(np.maximum(squares[window_bars:] - squares[:-window_bars], 0.0) / window_bars)
    # each filter window ends at its bar: ten times as quick as a view of all windows
    highest = maximum_filter1d(history.closes, window_bars, origin=(window_bars - 1) // 2)
    drops = (1.0 - history.closes / highest)[window_bars - 1 :]
    now, median = float(volatility[-1]), float(np.median(volatility))
    stress = (_share(volatility <= now) + _share(drops <= drops[-1])) / 2
    return Context(
        bar_volatility=now,
        volatility_ratio=now / median if median > 0 else 1.0,
        horizon_volatilities=volatility * np.sqrt(horizon_bars),
        stress=stress if now > 0 else 0.0,
    )


def _share(true: NDArray[np.bool_]) -> float:
    return np.count_nonzero(true) / true.size


class MarketBook:
    """Newest bars by symbol.

    Args:
        interval: bar length.
        store: table and log of bars; None when only `update` feeds the book.
        bars_kept: newest bars kept per symbol.
    """

    def __init__(self, interval: str, store: BarReader | None = None, *, bars_kept: int = 1500) -> None:
        self.interval_seconds = intervals.seconds(interval)
        self._store = store
        self._kept = bars_kept
        self._mark: Any = None
        self._histories: dict[str, History] = {}
        self._contexts: dict[tuple[str, int], tuple[History, Context | None]] = {}
        self._lock = threading.RLock()
        self.revision = 0
        """Grows whenever a bar is new or corrected; whatever was made from bars before is then out of
        date."""

    def refresh(self) -> None:
        """Take over what the store has gained since the last look; costs a fraction of a millisecond when
        nothing changed."""
        if self._store is None:
            return
        with self._lock:
            self._mark, frame = self._store.since(self._mark, self._kept)
            if frame.height:
                self._merge(frame)

    def update(self, bars: pl.DataFrame) -> None:
        """Bars just closed (bars frame, as traded, one or more per symbol); a known close time is
        replaced."""
        with self._lock:
            self._merge(bars)

    def get(self, symbol: str) -> History | None:
        """Newest bars of `symbol`; None when there are none."""
        with self._lock:
            return self._histories.get(symbol)

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols with bars."""
        with self._lock:
            return tuple(sorted(self._histories))

    def context(self, symbol: str, horizon_bars: int) -> Context | None:
        """As the function `context`, kept until the symbol's bars change."""
        history = self.get(symbol)
        if history is None:
            return None
        key = (symbol, horizon_bars)
        kept = self._contexts.get(key)
        if kept is None or kept[0] is not history:  # any new or corrected bar makes a new history
            kept = (history, context(history, horizon_bars))
            self._contexts[key] = kept
        return kept[1]

    def returns(self, symbols: tuple[str, ...]) -> NDArray[np.float64]:
        """(N, S) simple returns per bar at the times that all the symbols have."""
        with self._lock:
            known = [self._histories[s] for s in symbols if s in self._histories]
        if len(known) < len(symbols) or not known:
            return np.empty((0, len(symbols)))
        times = known[0].times
        for history in known[1:]:
            times = np.intersect1d(times, history.times)
        prices = np.stack([h.closes[np.searchsorted(h.times, times)] for h in known], axis=1)
        return np.asarray(prices[1:] / prices[:-1] - 1.0)

    def correlation(self, symbols: tuple[str, ...], lookback_hours: float) -> NDArray[np.float64]:
        """(S, S) correlation of log returns, each pair's over the bars that both have; 0 where there are fewer than 20.

        Only bars up to the older of a pair's newest closes enter, so that both speak of the same time.
        """
        with self._lock:
            known = {i: self._histories[s] for i, s in enumerate(symbols) if s in self._histories}
        # Symbols with the same closes are one group, and one product of matrices with each other group.
        groups: dict[bytes, list[int]] = {}
        series: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for i, history in known.items():
            since = history.times[-1] - int(lookback_hours * 3.6e9)
            keep = history.times >= since
            if keep.sum() < 60:  # the look-back spans few bars: daily bars use the newest 60
                keep = np.arange(len(history.times)) >= len(history.times) - 60
            series[i] = (history.times[keep], np.log(history.closes[keep]))
            groups.setdefault(series[i][0].tobytes(), []).append(i)
        result = np.eye(len(symbols))
        if not series:
            return result
        grid = np.unique(np.concatenate([times for times, _ in series.values()]))
        closes = np.full((len(symbols), grid.size), np.nan)
        for i, (times, values) in series.items():
            closes[i, np.searchsorted(grid, times)] = values
        members = list(groups.values())
        there = np.isfinite(closes[[group[0] for group in members]])
        for a, left in enumerate(members):
            for b in range(a, len(members)):
                common, right = np.flatnonzero(there[a] & there[b]), members[b]
                if common.size < 21 or (a == b and len(left) == 1):
                    continue
                one, other = (_unit_moves(closes[group].take(common, axis=1)) for group in (left, right))
                result[np.asarray(left)[:, None], right] = one @ other.T
        one_way = np.clip(result, -1.0, 1.0)
        result = np.where(one_way != 0, one_way, one_way.T)
        np.fill_diagonal(result, 1.0)
        return result

    def _merge(self, frame: pl.DataFrame) -> None:
        values = ["open", "high", "low", "close", "volume", "price_factor", "volume_factor"]
        columns = frame.select(
            "symbol",
            pl.col("event_timestamp").dt.epoch("us").alias("us"),
            (pl.col("close") * pl.col("price_factor")).alias("adjusted"),
            pl.col("close"),
            pl.col("created_timestamp").dt.epoch("us").alias("known"),
            pl.Series("mark", frame.select(values).hash_rows(seed=0)),
        ).sort("symbol", "us")
        symbols = columns["symbol"].to_list()
        times, adjusted, closes, known, marks = (
            columns[name].to_numpy() for name in ("us", "adjusted", "close", "known", "mark")
        )
        edges = [i for i, s in enumerate(symbols) if i == 0 or s != symbols[i - 1]]
        for first, last in zip(edges, [*edges[1:], len(symbols)], strict=True):
            symbol, tail = symbols[first], slice(max(first, last - self._kept), last)
            new = History(
                times[tail].astype(np.int64),
                adjusted[tail].astype(np.float64),
                float(closes[last - 1]),
                int(known[last - 1]),
                marks[tail].astype(np.uint64),
            )
            old = self._histories.get(str(symbol))
            merged = new if old is None else _joined(old, new, self._kept)
            if (
                old is not None
                and np.array_equal(old.times, merged.times)
                and np.array_equal(old.marks, merged.marks)
            ):
                continue
            self._histories[str(symbol)] = merged
            self.revision += 1


def _joined(old: History, new: History, kept: int) -> History:
    """Both, `new` winning where the times meet."""
    before = old.times < new.times[0]
    after = old.times > new.times[-1]
    between = ~before & ~after & ~np.isin(old.times, new.times)

    def join(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([a[before], a[between], b, a[after]])

    times = join(old.times, new.times)
    order = np.argsort(times, kind="stable")[-kept:]
    return History(
        times[order],
        join(old.closes, new.closes)[order],
        *((old.price, old.known_at) if after.any() else (new.price, new.known_at)),
        join(old.marks, new.marks)[order],
    )


def _unit_moves(log_closes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S, N-1) differences of (S, N) log closes with mean 0 and length 1, so that products are correlations; 0 for a
    constant one."""
    moves = log_closes[:, 1:] - log_closes[:, :-1]
    moves -= moves.sum(axis=1, keepdims=True) / moves.shape[1]
    length = np.sqrt(np.einsum("ij,ij->i", moves, moves))
    length[length == 0] = np.inf
    moves /= length[:, None]
    return moves

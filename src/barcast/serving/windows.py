"""Where a window comes from: handed over by the stream, else the online store; fresh, finite and of the
right shape.

A window that is older than the newest bar of its symbol is refused here, whatever store it came from (Feast
does not apply a TTL to online reads). So is one over a gap that training would have dropped.
A bar is known a moment before its features are, so one that has just come is
waited for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np

from barcast import clock, logs
from barcast.config.serving import ServingConfig
from barcast.errors import BarcastError
from barcast.serving.caches import Window, WindowCache
from barcast.serving.gaps import Gaps
from barcast.serving.market import History, MarketBook, micros, moment

_LOOK_AGAIN_SECONDS = 0.02
_log = logs.get("serving.windows")


class OnlineStore(Protocol):
    """The part of `adapters.feast.FeatureStore` that is used here."""

    def online(self, symbols: Sequence[str]) -> Mapping[str, Any]:
        """By symbol a row with `event_timestamp`, `row` (F,) and `window` (T, F); symbols without one are
        left out."""
        ...


class WindowReader:
    """Reads windows for the prediction engine.

    Args:
        store: online store.
        book: newest bars.
        lookback_bars: T.
        live: bars come in now, so that a row the store calls stale (by the clock) is refused; in a
        workspace of
            historical bars only the newest stored bar is compared with.
        gaps: finds bars missing within a window; None: nobody looks.
    """

    def __init__(
        self,
        store: OnlineStore,
        book: MarketBook,
        config: ServingConfig,
        lookback_bars: int,
        *,
        live: bool = False,
        gaps: Gaps | None = None,
    ) -> None:
        self._store = store
        self._book = book
        self._config = config
        self._lookback = lookback_bars
        self._live = live
        self._gaps = gaps
        self.cache = WindowCache()

    def read(self, symbols: Sequence[str]) -> dict[str, Window | str]:
        """By symbol the window, or why there is none."""
        # What was known before windows are read: a bar that comes meanwhile does not make them stale.
        known = {s: self._book.get(s) for s in symbols}
        revision = self._book.revision
        found: dict[str, Window | str] = {}
        for symbol in symbols:
            kept = self.cache.get(symbol, revision)
            if kept is not None:
                found[symbol] = kept
        missing = [s for s in symbols if s not in found]
        while missing:
            known.update((s, self._book.get(s)) for s in missing)
            found.update(self._stored(missing))
            missing = [s for s in missing if self._coming(found[s], known[s])]
            if missing:
                time.sleep(_LOOK_AGAIN_SECONDS)
        return {s: self._checked(found[s], known[s]) for s in symbols}

    def _coming(self, found: Window | str, history: History | None) -> bool:
        """Whether features of a newer bar than the window's are on their way from another process."""
        if isinstance(found, str) or history is None or self.cache.used:
            return False
        known = moment(history.known_at)
        newer = history.event_timestamp > found.event_timestamp
        # Known in the future: the clock was set back since, and waiting for it to come round would take as long.
        age = abs(clock.now() - known)
        return newer and age < timedelta(seconds=self._config.features_wait_seconds)

    def _stored(self, symbols: list[str]) -> dict[str, Window | str]:
        try:
            rows = self._store.online(symbols)
        except Exception as error:  # whatever store is configured: its failure must not be ours
            _log.warning("online store failed", error=f"{type(error).__name__}: {error}"[:300])
            words = error.message if isinstance(error, BarcastError) else type(error).__name__
            return dict.fromkeys(symbols, f"online store: {words}")
        found: dict[str, Window | str] = {}
        for symbol in symbols:
            row = rows.get(symbol)
            if row is None or row.window is None:
                found[symbol] = self._absent(symbol)
            elif (
                self._live and getattr(row, "stale", False) and not self._behind(symbol, row.event_timestamp)
            ):
                # bars are as old as the features: there is nothing fresh that a rule could stand on either
                found[symbol] = f"old data: newest bar of {row.event_timestamp:%Y-%m-%d %H:%M} UTC"
            else:
                found[symbol] = Window.of(symbol, row.event_timestamp, row.window)
        return found

    def _behind(self, symbol: str, at: datetime) -> bool:
        history = self._book.get(symbol)
        return history is not None and history.event_timestamp > at

    def _absent(self, symbol: str) -> str:
        history = self._book.get(symbol)
        if history is None:
            return "the symbol has no bars and no features"
        need = f"{self._lookback} after the features' warm-up are needed"
        return f"no whole window of features ({len(history.times)} bars; {need})"

    def _checked(self, window: Window | str, history: History | None) -> Window | str:
        if isinstance(window, str):
            return window
        shape = window.values.shape
        if len(shape) != 2 or shape[0] != self._lookback:
            return f"bad window: shape {shape}, expected ({self._lookback}, F)"
        bad = ~np.isfinite(window.values)
        if bad.any():
            columns = np.flatnonzero(bad.any(axis=0))[:5].tolist()
            return f"bad window: {int(bad.sum())} values are not finite, in feature columns {columns}"
        step = self._book.interval_seconds
        if history is not None:
            lag = history.event_timestamp - window.event_timestamp
            if lag > timedelta(seconds=self._config.max_lag_bars * step):
                of = f"{window.event_timestamp:%Y-%m-%d %H:%M} UTC"
                return f"stale features: of {of}, {lag} behind the newest bar"
        if self._config.max_stale_bars > 0:
            age = clock.now() - window.event_timestamp
            if age > timedelta(seconds=self._config.max_stale_bars * step):
                return f"old data: {age} old, at most {self._config.max_stale_bars:g} bars are accepted"
        if self._gaps is not None and history is not None:
            times = history.times[history.times <= micros(window.event_timestamp)][-self._lookback :]
            return self._gaps.within(window.symbol, times) or window
        return window

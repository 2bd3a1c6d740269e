"""What is kept between requests, and what makes it void.

- model answers: keyed by served name, version, symbol id and the hash of the window itself, so that neither
a new bar, a
  corrected bar nor a new version can meet an old answer;
- windows handed over by the stream (`WindowCache`): valid for one revision of the bars only. They let the
slow push into
  the online store happen after the answer, and are never older than the newest bar.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

V = TypeVar("V")


@dataclass(frozen=True)
class Window:
    """One symbol's model input.

    Attributes:
        event_timestamp: close of its newest bar.
        values: (T, F) float32, oldest bar first, raw features.
        digest: first half of the SHA-256 of the bytes and the shape.
    """

    symbol: str
    event_timestamp: datetime
    values: NDArray[np.float32]
    digest: str

    @classmethod
    def of(cls, symbol: str, event_timestamp: datetime, values: NDArray[np.floating]) -> Window:
        """With its digest."""
        array = np.ascontiguousarray(values, dtype="<f4")
        h = hashlib.sha256(array.data)  # in hardware: half the time of BLAKE2b, which counts for 50 symbols
        h.update(str(array.shape).encode())
        return cls(symbol, event_timestamp, array, h.hexdigest()[:32])


class Lru(Generic[V]):
    """A bounded map that forgets what was used longest ago; safe between threads; counts hits and misses."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable) -> V | None:
        """The value, or None."""
        with self._lock:
            if key not in self._items:
                self.misses += 1
                return None
            self.hits += 1
            self._items.move_to_end(key)
            return self._items[key]

    def put(self, key: Hashable, value: V) -> None:
        """Keep it."""
        if self._size == 0:
            return
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


class WindowCache:
    """Windows the stream has just computed, each bound to the revision of the bars it was computed from."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[int, Window]] = {}
        self._lock = threading.Lock()
        self.used = False
        """Whether a stream of this process hands windows over: there is then no other to wait for."""

    def put(self, windows: list[Window], revision: int) -> None:
        """Take over; windows of earlier revisions are dropped."""
        with self._lock:
            self.used = True
            self._items = {s: item for s, item in self._items.items() if item[0] == revision}
            self._items.update({w.symbol: (revision, w) for w in windows})

    def get(self, symbol: str, revision: int) -> Window | None:
        """The window, if the bars have not changed since."""
        with self._lock:
            item = self._items.get(symbol)
        return item[1] if item is not None and item[0] == revision else None

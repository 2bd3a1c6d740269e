"""A circuit breaker: after failures in a row a server is left alone for a while, then tried once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Counts failures of one server.

    closed: calls pass. open: calls are refused until `open_seconds` have gone by. half-open: one trial call
    passes; its success closes the breaker, its failure opens it anew. A trial that says nothing (its caller was
    cancelled) is followed by another after `open_seconds`.

    Args:
        failures: failures in a row that open it.
        open_seconds: how long it stays open.
        timer: monotonic seconds (tests give their own).
    """

    def __init__(
        self, failures: int, open_seconds: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._timer = timer
        self._count = 0
        self._opened: float | None = None
        self._trial = False
        self._lock = threading.Lock()

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        with self._lock:
            if self._opened is None:
                return "closed"
            waited = self._timer() - self._opened
            return "half-open" if self._trial or waited >= self._open_seconds else "open"

    def allow(self) -> bool:
        """Whether a call may go out now; while half-open only the first asker gets a yes."""
        with self._lock:
            if self._opened is None:
                return True
            if self._timer() - self._opened < self._open_seconds:
                return False
            self._opened, self._trial = self._timer(), True
            return True

    def success(self) -> None:
        """The call was answered."""
        with self._lock:
            self._count, self._opened, self._trial = 0, None, False

    def failure(self) -> None:
        """The call was not answered (unreachable, timed out); an error the server explains is no failure of
        it."""
        with self._lock:
            self._count += 1
            if self._trial or self._count >= self._limit:
                self._opened, self._trial = self._timer(), False

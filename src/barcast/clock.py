"""The one place that reads the wall clock, so that tests and replays can set it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_fixed: ContextVar[datetime | None] = ContextVar("barcast_clock", default=None)


def now() -> datetime:
    """The present time, aware, in UTC; the time set by `fixed` where one is."""
    return _fixed.get() or datetime.now(UTC)


@contextmanager
def fixed(moment: datetime) -> Iterator[None]:
    """Inside the context `now` answers `moment` (aware)."""
    if moment.tzinfo is None:
        raise ValueError(f"clock.fixed needs an aware datetime, got {moment!r}; add tzinfo=UTC.")
    token = _fixed.set(moment.astimezone(UTC))
    try:
        yield
    finally:
        _fixed.reset(token)

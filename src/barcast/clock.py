"""The one place that reads the wall clock, so that tests and replays can set it; and times written as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from barcast.errors import ConfigError

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


def instant(text: str, what: str) -> datetime | None:
    """An ISO 8601 time that `what` holds; without a zone it means UTC; empty means None.

    Raises:
        ConfigError: not such a time.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{what} is {text!r}: {error}.", hint="Write it like 2024-01-31 or 2024-01-31T09:30:00Z."
        ) from error

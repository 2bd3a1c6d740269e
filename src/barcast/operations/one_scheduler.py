"""What keeps a second scheduler away: a file lock on one machine, an advisory lock where the database is shared.

PostgreSQL gives the advisory lock back when the connection ends, however it ends; a scheduler whose connection was
lost takes it again, or stops if another was quicker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from barcast.durable import alone
from barcast.errors import BarcastError, RefusedError
from barcast.workspace import Workspace

HINT = "One is enough: it sees new schedules by itself."


class SchedulerError(BarcastError):
    """The schedules' database cannot be used."""

    exit_code = 8


def database_error(url: str, error: SQLAlchemyError) -> SchedulerError:
    """What to say of a failure of the schedules' database; without its password."""
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    try:
        shown = sa.make_url(url).render_as_string()
    except ArgumentError:
        shown = url.rpartition("@")[2]
    return SchedulerError(
        f"The schedules' database ({shown}) cannot be used: {reason}",
        hint="Check that the server runs, the disk has room and operations.schedules.database is right.",
    )


@contextmanager
def one_scheduler(workspace: Workspace, url: str) -> Iterator[Callable[[], None]]:
    """Be the only scheduler of the workspace.

    Yields:
        a check to call now and then: it takes a lost lock again.

    Raises:
        RefusedError: another one runs, here or on another machine; by the check too.
        SchedulerError: the database does not answer (the check only waits for it).
    """
    what = f"A scheduler of workspace {workspace.name!r}"
    try:
        shared = sa.make_url(url).get_backend_name() == "postgresql"
    except ArgumentError as error:
        raise database_error(url, error) from error
    with ExitStack() as stack:
        stack.enter_context(alone(workspace.state / "scheduler.lock", what, HINT))
        if not shared:
            yield lambda: None
            return
        lock = _Advisory(url, f"barcast schedules {workspace.name}", what)
        stack.callback(lock.close)
        lock.take()
        yield lock.check


class _Advisory:
    """A session's advisory lock on PostgreSQL."""

    def __init__(self, url: str, name: str, what: str) -> None:
        self._url = url
        self._engine = sa.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
        self._key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
        self._what = what
        self._connection: sa.Connection | None = None

    def take(self) -> None:
        self.close()
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            free = connection.execute(
                sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}
            ).scalar_one()
        except SQLAlchemyError as error:
            raise database_error(self._url, error) from error
        if not free:
            connection.close()
            raise RefusedError(f"{self._what} runs already, on another machine.", hint=HINT)
        self._connection = connection

    def check(self) -> None:
        try:
            if self._connection is not None:
                self._connection.execute(sa.text("SELECT 1"))
                return
        except SQLAlchemyError:
            pass
        try:
            self.take()
        except SchedulerError:
            return  # the database is away for everybody: nothing fires meanwhile

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.invalidate()
                connection.close()
            except SQLAlchemyError:
                pass

"""The queue's table, on SQLite and PostgreSQL alike, and its transactions.

Times are seconds since 1970 in UTC. Two partial unique indexes carry the promises whatever a program does: at
most one waiting and one running job of a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from barcast import clock
from barcast.errors import BarcastError


class QueueError(BarcastError):
    """The queue's database cannot be used."""

    exit_code = 8


metadata = sa.MetaData()
jobs = sa.Table(
    "training_jobs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("workspace", sa.Text, nullable=False),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # queued, running, done, dead, merged
    sa.Column("priority", sa.Float(53), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("requests", sa.Integer, nullable=False, default=1),
    sa.Column("requested_at", sa.Float(53), nullable=False),
    sa.Column("not_before", sa.Float(53), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("token", sa.Text, nullable=False, default=""),  # of the present claim: an old one fits no more
    sa.Column("worker", sa.Text, nullable=False, default=""),
    sa.Column("lease_until", sa.Float(53)),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("finished_at", sa.Float(53)),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("result", sa.Text, nullable=False, default=""),
)
for _state in ("queued", "running"):
    sa.Index(
        f"one_{_state}_job",
        jobs.c.workspace,
        jobs.c.symbol,
        unique=True,
        sqlite_where=jobs.c.state == _state,
        postgresql_where=jobs.c.state == _state,
    )
sa.Index("jobs_by_state", jobs.c.workspace, jobs.c.state)


class Store:
    """Transactions on the queue's database; every one has a connection of its own, so forks and lost
    connections do no harm.

    Args:
        url: SQLAlchemy URL; for SQLite its folder is made.
        time: what o'clock; by default the machine's clock on SQLite and the server's on PostgreSQL, where
            workers on several machines must agree.
        patience_seconds: how long a lost connection is tried again.
    """

    def __init__(
        self, url: str, *, time: Callable[[], datetime] | None = None, patience_seconds: float = 20.0
    ) -> None:
        try:
            parsed = sa.make_url(url)
            self.engine = sa.create_engine(parsed, poolclass=NullPool, connect_args=_arguments(parsed))
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise QueueError(
                f"The queue's database {url.split('@')[-1]!r} is not a usable URL: {error}",
                hint="Set operations.queue.database to postgresql+psycopg://user@host/name, or leave it empty.",
            ) from error
        self.sqlite = self.engine.dialect.name == "sqlite"
        self._time = time
        self._patience = patience_seconds
        if self.sqlite:
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(self.engine, "connect", _plain_transactions)
            sa.event.listen(self.engine, "begin", _write_at_once)
        self.run(self._create)

    def run(self, work: Callable[[sa.Connection, float], Any]) -> Any:
        """Run `work(connection, now)` in one transaction; again when the connection breaks.

        Raises:
            QueueError: the database stays away longer than the patience.
        """
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(OperationalError),
                stop=stop_after_delay(self._patience),
                wait=wait_random_exponential(0.05, max=2.0),
                reraise=True,
            ):
                with attempt, self._transaction() as (connection, now):
                    return work(connection, now)
        except sa.exc.IntegrityError:
            raise
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise QueueError(
                f"The queue's database ({self.engine.url.render_as_string()}) cannot be used: {reason}",
                hint="Check that the server runs, the disk has room and operations.queue.database is right.",
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sa.Connection, float]]:
        with self.engine.begin() as connection:
            yield connection, self._now(connection)

    def _now(self, connection: sa.Connection) -> float:
        if self._time is not None:
            return self._time().timestamp()
        if self.sqlite:
            return clock.now().timestamp()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def _create(self, connection: sa.Connection, now: float) -> None:
        if sa.inspect(connection).has_table(jobs.name):
            return
        try:
            with connection.begin_nested():
                metadata.create_all(connection)
        except (ProgrammingError, sa.exc.IntegrityError):  # PostgreSQL: another process was first
            if not sa.inspect(connection).has_table(jobs.name):
                raise


def _arguments(url: sa.URL) -> dict[str, Any]:
    return {"timeout": 30} if url.get_backend_name() == "sqlite" else {"connect_timeout": 10}


def _plain_transactions(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not begin by itself; see _write_at_once
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _write_at_once(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later could meet another writer half way.
    connection.exec_driver_sql("BEGIN IMMEDIATE")

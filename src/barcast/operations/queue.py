"""The training queue: who asks for a training, which comes next, who has it, what became of it.

request → queued → claimed with a lease (running) → done, or queued again after a pause, or dead. A worker that
falls silent loses its lease and the job is queued again. Two things keep a job from running twice at once: the
lease in the database, and on each machine a file lock that lives and dies with the worker's process (so that a
clock that jumps, or a worker that was only paused, cannot lead to a second run).
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from barcast import names
from barcast.config.operations import QueueConfig
from barcast.errors import ConfigError, did_you_mean
from barcast.operations.queue_lease import RECALIBRATE, Lease, LeaseLostError, lost, machine_lock
from barcast.operations.queue_priority import Facts, automatic_priority
from barcast.operations.queue_rows import close, due, enqueue, readable
from barcast.operations.queue_store import Store, jobs
from barcast.workspace import Workspace

__all__ = ["RECALIBRATE", "Lease", "LeaseLostError", "TrainingQueue"]


class TrainingQueue:
    """The queue of one workspace.

    Args:
        workspace: whose symbols; its `state` folder holds the SQLite file and the machine's locks.
        config: the queue's settings.
        time: what o'clock, for tests; see `queue_store.Store`.
    """

    def __init__(
        self, workspace: Workspace, config: QueueConfig, *, time: Callable[[], datetime] | None = None
    ) -> None:
        self.config = config
        self.workspace = workspace.name
        self._locks = workspace.state / "queue-locks"
        self._store = Store(config.database or f"sqlite:///{workspace.state / 'queue.db'}", time=time)

    # Asking

    def request_training(
        self,
        symbol: str,
        priority: float | None = None,
        *,
        reason: str = "asked for",
        facts: Facts | None = None,
    ) -> int:
        """Ask for a training of `symbol`; a waiting request of the same symbol is joined.

        Args:
            priority: 0 to 100, higher first; None computes it from `facts` (50 where nothing is known).
            reason: why, for people.

        Returns:
            The job's id.

        Raises:
            ConfigError: the symbol is empty or the priority out of range.
        """
        return self.request_batch([symbol], priority, reason=reason, facts={symbol: facts or Facts()})[symbol]

    def request_batch(
        self,
        symbols: Iterable[str],
        priority: float | None = None,
        *,
        reason: str = "asked for",
        facts: Mapping[str, Facts] | None = None,
    ) -> dict[str, int]:
        """Ask for many trainings at once, all or none; each symbol's priority as in `request_training`."""
        wanted: dict[str, float] = {}
        for symbol in symbols:
            names.slug(symbol)  # refuses what cannot be a symbol
            known = (facts or {}).get(symbol, Facts())
            value = automatic_priority(known, self.config.priority) if priority is None else float(priority)
            if not math.isfinite(value) or not 0 <= value <= 100:
                raise ConfigError(
                    f"Priority {priority!r} cannot be used.", hint="Give 0 to 100, higher first."
                )
            wanted[symbol] = value

        def work(connection: sa.Connection, now: float) -> dict[str, int]:
            return {s: enqueue(connection, now, self.workspace, s, wanted[s], reason) for s in sorted(wanted)}

        while True:
            try:
                return dict(self._store.run(work))
            except sa.exc.IntegrityError:  # PostgreSQL: another request of the symbol came in between
                continue

    # Working

    def claim(self, worker: str = "") -> Lease | None:
        """Take the next job, or None where nothing waits.

        Highest priority first, the oldest among equals; a symbol that used more than its share of the workers'
        time comes after all that did not. Jobs whose workers fell silent are queued again first.
        """
        worker = worker or f"{socket.gethostname()}:{os.getpid()}"
        descriptors: list[int] = []

        def work(connection: sa.Connection, now: float) -> Lease | None:
            while descriptors:  # a repeated transaction starts afresh
                os.close(descriptors.pop())
            self._recover(connection, now)
            for row in due(connection, now, self.workspace, self.config):
                descriptor = self._lock(row.symbol)
                if descriptor is None:
                    continue
                descriptors.append(descriptor)
                if not self._start(connection, now, row, worker):
                    os.close(descriptors.pop())
                    continue
                fresh = connection.execute(sa.select(jobs).where(jobs.c.id == row.id)).one()
                share = self.config.shares.get(row.symbol, 1.0)
                cores = max(1, int((os.cpu_count() or 1) * share))
                return Lease(
                    fresh.id, fresh.symbol, fresh.priority, fresh.reason, fresh.attempts, fresh.token, worker,
                    cores, descriptor,
                )  # fmt: skip
            return None

        try:
            lease: Lease | None = self._store.run(work)
        except BaseException:
            while descriptors:
                os.close(descriptors.pop())
            raise
        return lease

    def _start(self, connection: sa.Connection, now: float, row: Any, worker: str) -> bool:
        """Make a queued row this worker's; False where another was faster."""
        free = sa.select(jobs.c.id).where(jobs.c.id == row.id, jobs.c.state == "queued")
        if connection.execute(free.with_for_update(skip_locked=True)).first() is None:
            return False
        try:
            with connection.begin_nested():
                connection.execute(
                    sa.update(jobs)
                    .where(jobs.c.id == row.id)
                    .values(
                        state="running", attempts=jobs.c.attempts + 1, token=uuid.uuid4().hex, worker=worker,
                        lease_until=now + self.config.lease_seconds, started_at=now, error="",
                    )
                )  # fmt: skip
        except sa.exc.IntegrityError:  # an earlier job of the symbol still runs
            return False
        return True

    def _recover(self, connection: sa.Connection, now: float) -> None:
        """Queue the jobs of silent workers again, or give them up after too many starts."""
        impossible = now + 2 * self.config.lease_seconds  # written before the clock was set back
        late = sa.or_(jobs.c.lease_until < now, jobs.c.lease_until > impossible)
        silent = connection.execute(
            sa.select(jobs)
            .where(jobs.c.workspace == self.workspace, jobs.c.state == "running", late)
            .with_for_update(skip_locked=True)
        ).all()
        for row in silent:
            descriptor = self._lock(row.symbol)
            if descriptor is None:
                continue  # the worker lives on this machine: paused, or the clock jumped
            os.close(descriptor)
            self._ended(connection, now, row, f"worker {row.worker} fell silent", pause=False)

    def heartbeat(self, lease: Lease) -> None:
        """A sign of life: the lease runs from now again.

        Raises:
            LeaseLostError: the job was given to another.
        """

        def work(connection: sa.Connection, now: float) -> int:
            return connection.execute(
                sa.update(jobs).where(*self._held(lease)).values(lease_until=now + self.config.lease_seconds)
            ).rowcount

        if not self._store.run(work):
            raise lost(lease)

    def complete(self, lease: Lease, result: Mapping[str, Any] | None = None) -> None:
        """The job is done.

        Raises:
            LeaseLostError: it was given to another meanwhile; this result does not count.
        """
        text = json.dumps(dict(result or {}), default=str)

        def work(connection: sa.Connection, now: float) -> bool:
            done = connection.execute(
                sa.update(jobs)
                .where(*self._held(lease))
                .values(state="done", finished_at=now, lease_until=None, result=text)
            ).rowcount
            # The answer to an earlier try may have been lost on the way.
            same = sa.select(jobs.c.id).where(jobs.c.token == lease.token, jobs.c.state == "done")
            return bool(done) or connection.execute(same).first() is not None

        self._end(lease, work)

    def fail(self, lease: Lease, error: str) -> None:
        """The job failed: queued again after a pause, or a dead letter after `max_attempts` starts.

        Raises:
            LeaseLostError: it was given to another meanwhile.
        """

        def work(connection: sa.Connection, now: float) -> bool:
            row = connection.execute(sa.select(jobs).where(*self._held(lease)).with_for_update()).first()
            if row is not None:
                self._ended(connection, now, row, error, pause=True)
            return row is not None

        self._end(lease, work)

    def release(self, lease: Lease) -> None:
        """Give the job back unfinished, as if it had not been started (the worker is being stopped)."""

        def work(connection: sa.Connection, now: float) -> bool:
            row = connection.execute(sa.select(jobs).where(*self._held(lease)).with_for_update()).first()
            if row is not None:
                close(connection, now, row, "merged", "given back by its worker")
                enqueue(
                    connection,
                    now,
                    self.workspace,
                    row.symbol,
                    row.priority,
                    row.reason,
                    attempts=row.attempts - 1,
                )
            return row is not None

        self._end(lease, work)

    def _end(self, lease: Lease, work: Callable[[sa.Connection, float], bool]) -> None:
        try:
            if not self._store.run(work):
                raise lost(lease)
        finally:
            lease.unlock()

    def _ended(self, connection: sa.Connection, now: float, row: Any, error: str, *, pause: bool) -> None:
        if row.attempts >= self.config.max_attempts:
            close(connection, now, row, "dead", error)
            return
        close(connection, now, row, "merged", error)
        start = now + (self.backoff_seconds(row.attempts) if pause else 0.0)
        job = enqueue(
            connection, now, self.workspace, row.symbol, row.priority, row.reason, start, row.attempts
        )
        connection.execute(sa.update(jobs).where(jobs.c.id == job).values(error=error))

    def backoff_seconds(self, attempts: int) -> float:
        """Pause after the `attempts`-th start failed."""
        first, most = self.config.backoff_first_seconds, self.config.backoff_max_seconds
        return float(min(most, first * 2.0 ** min(attempts - 1, 60)))

    # Looking

    def status(self, symbol: str | None = None) -> list[dict[str, Any]]:
        """The newest job of every symbol (one waits and one runs: both), or all jobs of `symbol`, newest first.

        Each: id, symbol, state (queued, running, done, dead), priority, reason, requests, attempts, worker, times
        (aware UTC or None), error, result.

        Raises:
            ConfigError: nothing was ever asked for `symbol`.
        """
        rows = self._rows(jobs.c.state != "merged")
        if symbol is not None:
            found = [row for row in rows if row["symbol"] == symbol]
            if not found:
                known = sorted({row["symbol"] for row in rows})
                raise ConfigError(
                    f"Nothing was asked for {symbol!r} in workspace {self.workspace!r}.",
                    hint=did_you_mean(symbol, known) or f"Ask: barcast queue request {symbol}.",
                )
            return found
        shown: list[dict[str, Any]] = []
        seen: set[str] = set()
        for row in rows:
            if row["state"] in ("queued", "running") or row["symbol"] not in seen:
                shown.append(row)
            seen.add(row["symbol"])
        place = {"running": 0, "queued": 1, "dead": 2, "done": 3}
        return sorted(shown, key=lambda row: (place[row["state"]], -row["priority"], row["id"]))

    def dead(self) -> list[dict[str, Any]]:
        """Dead letters, newest first."""
        return self._rows(jobs.c.state == "dead")

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state; `due`: waiting ones a worker could start or recover now."""

        def work(connection: sa.Connection, now: float) -> dict[str, int]:
            mine = jobs.c.workspace == self.workspace
            rows = connection.execute(
                sa.select(jobs.c.state, sa.func.count()).where(mine).group_by(jobs.c.state)
            )
            found = {state: int(number) for state, number in rows}
            silent = sa.select(sa.func.count()).where(
                mine, jobs.c.state == "running",
                sa.or_(jobs.c.lease_until < now, jobs.c.lease_until > now + 2 * self.config.lease_seconds),
            )  # fmt: skip
            number = len(due(connection, now, self.workspace, self.config)) + int(
                connection.execute(silent).scalar_one()
            )
            shown = {s: found.get(s, 0) for s in ("queued", "running", "done", "dead")}
            return {**shown, "due": number}

        return dict(self._store.run(work))

    def retry(self, symbol: str | None = None) -> list[str]:
        """Queue dead letters again, of `symbol` or all, with their starts forgotten; the symbols."""

        def work(connection: sa.Connection, now: float) -> list[str]:
            chosen = [jobs.c.workspace == self.workspace, jobs.c.state == "dead"]
            if symbol is not None:
                chosen.append(jobs.c.symbol == symbol)
            rows = connection.execute(sa.select(jobs).where(*chosen).with_for_update()).all()
            for row in rows:
                close(connection, now, row, "merged", row.error)
                enqueue(connection, now, self.workspace, row.symbol, row.priority, row.reason)
            return sorted({row.symbol for row in rows})

        return list(self._store.run(work))

    def _rows(self, condition: Any) -> list[dict[str, Any]]:
        def work(connection: sa.Connection, now: float) -> list[Any]:
            query = sa.select(jobs).where(jobs.c.workspace == self.workspace, condition)
            return [dict(row) for row in connection.execute(query.order_by(jobs.c.id.desc())).mappings()]

        return [readable(row) for row in self._store.run(work)]

    # Parts

    @staticmethod
    def _held(lease: Lease) -> tuple[Any, ...]:
        return jobs.c.id == lease.id, jobs.c.token == lease.token, jobs.c.state == "running"

    def _lock(self, symbol: str) -> int | None:
        return machine_lock(self._locks, symbol)

"""What the training queue does to rows inside a transaction: put one in, choose the next, end one."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from barcast.config.operations import QueueConfig
from barcast.operations.queue_store import jobs


def enqueue(
    connection: sa.Connection,
    now: float,
    workspace: str,
    symbol: str,
    priority: float,
    reason: str,
    not_before: float = -math.inf,
    attempts: int = 0,
) -> int:
    """Queue a job or join the waiting one: highest priority, earliest start, most attempts."""
    waiting = connection.execute(
        sa.select(jobs)
        .where(jobs.c.workspace == workspace, jobs.c.symbol == symbol, jobs.c.state == "queued")
        .with_for_update()
    ).first()
    start = max(not_before, now)
    if waiting is None:
        row = connection.execute(
            sa.insert(jobs)
            .values(
                workspace=workspace, symbol=symbol, state="queued", priority=priority, reason=reason,
                requested_at=now, not_before=start, attempts=attempts,
            )
            .returning(jobs.c.id)
        )  # fmt: skip
        return int(row.scalar_one())
    reasons = waiting.reason.split("; ")
    connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == waiting.id)
        .values(
            priority=max(priority, waiting.priority),
            reason="; ".join([*reasons, reason] if reason not in reasons else reasons),
            requests=waiting.requests + 1,
            # A person who asks again does not wait for the end of a pause; a failed run does.
            not_before=min(waiting.not_before, start) if not_before == -math.inf else start,
            attempts=max(attempts, waiting.attempts),
        )
    )
    return int(waiting.id)


def due(connection: sa.Connection, now: float, workspace: str, config: QueueConfig) -> list[Any]:
    """Waiting rows whose time has come, in the order to start them; none of a symbol that runs."""
    # A pause that ends later than any pause can was written before the clock was set back.
    longest = now + config.backoff_max_seconds
    running = sa.select(jobs.c.symbol).where(jobs.c.workspace == workspace, jobs.c.state == "running")
    rows = connection.execute(
        sa.select(jobs).where(
            jobs.c.workspace == workspace,
            jobs.c.state == "queued",
            sa.or_(jobs.c.not_before <= now, jobs.c.not_before > longest),
            jobs.c.symbol.not_in(running),
        )
    ).all()
    used = used_seconds(connection, now, workspace, config) if config.shares else {}
    total = sum(used.values())

    def key(row: Any) -> tuple[bool, float, int]:
        share = config.shares.get(row.symbol)
        over = share is not None and total > 0 and used.get(row.symbol, 0.0) / total > share
        return over, -row.priority, row.id

    return sorted(rows, key=key)


def used_seconds(
    connection: sa.Connection, now: float, workspace: str, config: QueueConfig
) -> dict[str, float]:
    """Worker seconds of each symbol over the window."""
    since = now - config.share_window_hours * 3600
    rows = connection.execute(
        sa.select(jobs.c.symbol, jobs.c.started_at, jobs.c.finished_at).where(
            jobs.c.workspace == workspace,
            jobs.c.started_at.is_not(None),
            sa.or_(jobs.c.finished_at.is_(None), jobs.c.finished_at >= since),
        )
    )
    used: dict[str, float] = {}
    for symbol, started, finished in rows:
        seconds = (now if finished is None else finished) - max(started, since)
        used[symbol] = used.get(symbol, 0.0) + max(0.0, seconds)
    return used


def close(connection: sa.Connection, now: float, row: Any, state: str, error: str) -> None:
    """End a row."""
    connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == row.id)
        .values(state=state, finished_at=now, lease_until=None, error=error)
    )


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row for people and JSON: times as aware UTC, nothing of the queue's inside."""
    for name in ("requested_at", "not_before", "lease_until", "started_at", "finished_at"):
        row[name] = None if row[name] is None else datetime.fromtimestamp(row[name], UTC)
    row["result"] = json.loads(row["result"]) if row["result"] else {}
    del row["token"], row["workspace"]
    return row

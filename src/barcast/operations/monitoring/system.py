"""What the programs around the models say of themselves: queue, schedules, registry, disk."""

from __future__ import annotations

from barcast import clock
from barcast.operations.monitoring.collect import Collected
from barcast.operations.monitoring.types import Reading
from barcast.operations.queue import TrainingQueue
from barcast.operations.queue_store import QueueError


def queue(collected: Collected) -> list[Reading]:
    """Depth, longest wait and dead letters of the training queue."""
    settings = collected.settings
    try:
        rows = TrainingQueue(collected.workspace, collected.config.operations.queue).status()
    except QueueError as error:
        return [
            Reading(name="queue_reachable", value=0.0, bound=1.0, alert="QueueUnreachable", text=str(error))
        ]
    now = clock.now()
    running = {row["symbol"] for row in rows if row["state"] == "running"}
    due = [
        row
        for row in rows
        if row["state"] == "queued" and row["not_before"] <= now and row["symbol"] not in running
    ]
    waited = max(((now - row["not_before"]).total_seconds() for row in due), default=0.0)
    dead = [row for row in rows if row["state"] == "dead"]
    late = waited > settings.max_queue_seconds
    return [
        Reading(name="queue_depth", value=float(len(due)), text=f"{len(due)} due, {len(running)} running"),
        Reading(
            name="queue_wait_seconds",
            value=waited,
            bound=settings.max_queue_seconds,
            alert="QueueWaits" if late else "",
            text=f"the longest has waited {waited / 60:.0f} min" if due else "nothing waits",
        ),
        Reading(
            name="dead_letters",
            value=float(len(dead)),
            bound=0.0,
            alert="DeadLetters" if dead else "",
            text="; ".join(f"{row['symbol']}: {row['error']}" for row in dead[:3]) or "none",
        ),
    ]  # fmt: skip


def schedules(collected: Collected) -> list[Reading]:
    """Whether the last run of each schedule did its work."""
    config = collected.config
    if not config.operations.schedules.database and not (collected.workspace.state / "schedules.db").exists():
        return []
    from barcast.operations.schedules import Schedules

    rows = Schedules(config).rows()
    failed = [row for row in rows if row["last"] and row["last"]["state"] == "failed"]
    return [
        Reading(
            name="failed_schedules",
            value=float(len(failed)),
            bound=0.0,
            alert="ScheduleFailed" if failed else "",
            text="; ".join(f"{row['name']}: {row['last']['detail']}" for row in failed[:3])
            or f"{len(rows)} schedules",
        )
    ]


def registry(collected: Collected) -> list[Reading]:
    """Whether ledger, served files and models.config agree, and whether something waits for a person."""
    if collected.registry is None:
        return []
    findings = [f"{f.where}: {f.problem}" for f in collected.registry.verify(mlflow=False)]
    waiting = [r["symbol"] for r in collected.registry.list() if r["challenger_status"] == "challenger"]
    return [
        Reading(
            name="registry_findings",
            value=float(len(findings)),
            bound=0.0,
            alert="RegistryInconsistent" if findings else "",
            text="; ".join(findings[:3]) or "ledger, files and models.config agree",
        ),
        Reading(
            name="approvals_waiting", value=float(len(waiting)), text=", ".join(waiting[:5]) or "nobody is waited for"
        ),
    ]  # fmt: skip


def disk(collected: Collected) -> list[Reading]:
    """Free space where the workspaces lie."""
    folder, free = collected.workspace.free_gb()
    bound = collected.settings.min_free_gb
    low = free < bound
    return [
        Reading(
            name="free_gb",
            value=free,
            bound=bound,
            alert="DiskLow" if low else "",
            text=f"{free:.1f} GB free at {folder}",
        )
    ]

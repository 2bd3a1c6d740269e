"""The whole of a workspace at a glance, for `barcast status` and the console: plain facts, read in a second or two."""

from __future__ import annotations

from typing import Any

from barcast.config import Config
from barcast.errors import BarcastError
from barcast.operations.monitoring.history import History
from barcast.registry.asking import listens


def overview(config: Config) -> dict[str, Any]:
    """Facts by part, JSON-ready: bars, models, findings, programs, answers, queue, schedules, disk, monitoring, runs;
    `stopped` says why the emergency stop is active, and who pulled it (empty while it is not).

    A part that cannot be read is `{"problem": text}`.
    """
    from barcast.operations.runs import latest
    from barcast.registry import Registry
    from barcast.serving.state import load_emergency

    workspace = config.open_workspace()
    known = workspace.ledger.exists()
    registry = Registry(workspace, config)
    return {
        "workspace": config.workspace,
        "interval": config.interval,
        "config_hash": config.hash,
        "root": str(workspace.root),
        "stopped": load_emergency(workspace).reason,
        "bars": _guarded(_bars, config),
        "models": registry.list() if known else [],
        "findings": [f"{f.where}: {f.problem}" for f in registry.verify(mlflow=False)] if known else [],
        "server": _server(config),
        "programs": _programs(config),
        "answers": _guarded(_answers, config),
        "queue": _guarded(_queue, config),
        "schedules": _guarded(_schedules, config),
        "disk": _disk(config),
        "monitoring": _guarded(_monitoring, config),
        "runs": latest(config) if workspace.runs.exists() else [],
    }


def _guarded(part: Any, config: Config) -> Any:
    try:
        return part(config)
    except BarcastError as error:
        return {"problem": str(error)}


def _bars(config: Config) -> dict[str, Any]:
    from barcast.bars.ingest import open_store

    store = open_store(config, config.open_workspace())
    if not store.exists:
        return {}
    last = store.last_timestamps()
    return {
        "version": store.version,
        "symbols": sorted(last),
        "last": max(last.values()).isoformat(),
        "oldest_last": min(last.values()).isoformat(),
    }


def _server(config: Config) -> dict[str, str]:
    endpoint = config.serving.endpoint
    return {"endpoint": endpoint, "state": "listening" if listens(endpoint) else "not running"}


def _programs(config: Config) -> dict[str, bool]:
    """Which of the programs with a port of their own are running."""
    monitoring, gateway = config.operations.monitoring, config.gateway
    places = {
        "model server": config.serving.endpoint,
        "gateway": f"{gateway.host}:{gateway.port}",
        "console": f"127.0.0.1:{config.registry.console_port}",
        "monitor": f"{monitoring.host}:{monitoring.port}",
    }
    return {name: listens(place) for name, place in places.items()}


def _answers(config: Config) -> dict[str, Any]:
    """How many answers the local log holds, and how many of the newest thousand came from a fallback."""
    import sqlite3
    from contextlib import closing

    path = config.open_workspace().logs / "predictions.db"
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as log:
            total, joined = log.execute(
                "SELECT count(*), count(forward_log_return) FROM predictions"
            ).fetchone()
            links = log.execute(
                "SELECT link FROM predictions WHERE arm != 'shadow' ORDER BY answered_us DESC LIMIT 1000"
            ).fetchall()
    except sqlite3.Error as error:
        return {"problem": f"{path}: {error}"}
    fallback = sum(link != "" for (link,) in links) / len(links) if links else 0.0
    return {"total": total, "with_outcome": joined, "fallback_share": fallback}


def _queue(config: Config) -> dict[str, Any]:
    from barcast.operations.queue import TrainingQueue

    if not config.operations.queue.database and not (config.open_workspace().state / "queue.db").exists():
        return {}  # nothing was ever asked for; looking makes no files
    return dict(TrainingQueue(config.open_workspace(), config.operations.queue).counts())


def _schedules(config: Config) -> list[dict[str, Any]]:
    if (
        not config.operations.schedules.database
        and not (config.open_workspace().state / "schedules.db").exists()
    ):
        return []
    from barcast.operations.schedules import Schedules

    return Schedules(config).rows()


def _disk(config: Config) -> dict[str, float]:
    return {"free_gb": round(config.open_workspace().free_gb()[1], 1)}


def _monitoring(config: Config) -> dict[str, Any]:
    """The newest look: when, how bad, its alerts, and what was done since a week."""
    from datetime import timedelta

    path = config.open_workspace().state / "monitoring.db"
    if not path.exists():
        return {}
    history = History(path)
    report = history.latest()
    if report is None:
        return {}
    done = history.actions(report.at - timedelta(days=7))
    return {
        "at": report.at.isoformat(),
        "worst": report.worst,
        "alerts": [alert.model_dump(mode="json") for alert in report.alerts],
        "actions": [action.model_dump(mode="json") for action in done],
    }

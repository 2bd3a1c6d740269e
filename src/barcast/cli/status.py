"""`barcast status`: the whole at a glance; `barcast doctor`: whether this machine can do the work."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from typing import Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.config import Config
from barcast.errors import BarcastError

_FREE_GB = 2.0


def status(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Bars, models, the model server and the last runs of the workspace."""
    facts = _facts(current(config))
    if json_output:
        print_json(facts)
        return
    print(f"workspace {facts['workspace']}, {facts['interval']} bars, configuration {facts['config_hash']}")
    bars = facts["bars"]
    if bars:
        print(
            f"bars      {len(bars['symbols'])} symbols, table version {bars['version']}, last close {bars['last']}"
        )
    else:
        print("bars      none yet: barcast run")
    print(f"server    {facts['server']['state']} at {facts['server']['endpoint']}")
    for row in facts["models"]:
        live = f"v{row['champion']} ({row['kind']}) since {row['since']}" if row["champion"] else "not live"
        waits = f", v{row['challenger']} waits for approval" if row["challenger"] else ""
        print(f"model     {row['symbol']:10} {live}{waits}")
    for line in facts["findings"]:
        print(f"PROBLEM   {line}")
    for run in facts["runs"][:3]:
        print(
            f"run       {run['run_id']} {run['state'].lower()}{': ' + run['error'] if run.get('error') else ''}"
        )


def _facts(config: Config) -> dict[str, Any]:
    from barcast.bars.ingest import open_store
    from barcast.operations.runs import latest
    from barcast.registry import Registry
    from barcast.registry.asking import listens

    workspace = config.open_workspace()
    store = open_store(config, workspace)
    registry = Registry(workspace, config)
    listening = listens(config.serving.endpoint)
    known = workspace.ledger.exists()
    bars: dict[str, Any] = {}
    if store.exists:
        last = store.last_timestamps()
        bars = {"version": store.version, "symbols": sorted(last), "last": max(last.values()).isoformat()}
    return {
        "workspace": config.workspace,
        "interval": config.interval,
        "config_hash": config.hash,
        "root": str(workspace.root),
        "bars": bars,
        "server": {"endpoint": config.serving.endpoint, "state": "listening" if listening else "not running"},
        "models": registry.list() if known else [],
        "findings": [str(f) for f in registry.verify(mlflow=False)] if known else [],
        "runs": latest(config) if workspace.runs.exists() else [],
    }


def doctor(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Check Python, libraries, disk, configuration and workspace; say what to do about what fails."""
    checks: list[dict[str, Any]] = []

    def check(name: str, question: Callable[[], str]) -> None:
        try:
            checks.append({"check": name, "ok": True, "detail": question()})
        except BarcastError as error:
            checks.append({"check": name, "ok": False, "detail": str(error)})
        except Exception as error:
            checks.append({"check": name, "ok": False, "detail": f"{type(error).__name__}: {error}"})

    check("python", _python)
    check("libraries", _libraries)
    settings: list[Config] = []

    def read_configuration() -> str:
        settings.append(current(config))
        return f"hash {settings[0].hash}"

    check("configuration", read_configuration)
    if settings:
        check("disk", lambda: _disk(settings[0]))
        check("workspace", lambda: _workspace(settings[0]))
    failed = [c for c in checks if not c["ok"]]
    if json_output:
        print_json(checks)
    else:
        for c in checks:
            print(f"{'ok  ' if c['ok'] else 'FAIL'}  {c['check']:14} {c['detail']}")
    if failed:
        raise typer.Exit(1)


def _python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise BarcastError(
            f"Python {platform.python_version()} runs.", hint="barcast needs Python 3.11: make setup."
        )
    return platform.python_version()


def _libraries() -> str:
    from importlib.metadata import version

    found = []
    for name in (
        "tensorflow",
        "keras",
        "kfp",
        "feast",
        "mlflow",
        "great-expectations",
        "polars",
        "deltalake",
    ):
        found.append(f"{name} {version(name)}")
    return ", ".join(found)


def _disk(config: Config) -> str:
    folder = config.open_workspace().base
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < _FREE_GB:
        raise BarcastError(f"{free:.1f} GB free at {folder}.", hint=f"Free at least {_FREE_GB:.0f} GB.")
    return f"{free:.0f} GB free"


def _workspace(config: Config) -> str:
    workspace = config.open_workspace()
    if not workspace.root.exists():
        return "new: nothing has run yet"
    from barcast.registry import Registry

    findings = Registry(workspace, config).verify(mlflow=False) if workspace.ledger.exists() else []
    if findings:
        raise BarcastError("; ".join(str(f) for f in findings), hint="See `barcast models verify`.")
    return f"{workspace.root}: ledger and served files agree"

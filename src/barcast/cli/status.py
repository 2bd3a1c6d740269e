"""`barcast status`: the whole at a glance; `barcast doctor`: whether this machine can do the work."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.config import Config
from barcast.errors import BarcastError
from barcast.wording import count, state_of_run

_FREE_GB = 2.0


def status(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Bars, models, programs, queue, schedules, open alerts and the last runs of the workspace."""
    from barcast.operations.overview import overview

    facts = overview(current(config))
    if json_output:
        print_json(facts)
        return
    print(f"workspace {facts['workspace']}, {facts['interval']} bars, configuration {facts['config_hash']}")
    for name, text in _lines(facts):
        print(f"{name:10}{text}")


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person wants to see first, as (part, text)."""
    if facts["stopped"]:
        yield "STOPPED", facts["stopped"]
    for part in ("bars", "answers", "queue", "monitoring", "schedules"):
        if isinstance(facts[part], dict) and "problem" in facts[part]:
            yield "PROBLEM", f"{part}: {facts[part]['problem']}"
    for line in facts["findings"]:
        yield "PROBLEM", line
    bars = facts["bars"]
    if "last" in bars:
        behind = "" if bars["last"] == bars["oldest_last"] else f", the oldest {_time(bars['oldest_last'])}"
        yield "bars", f"{count(len(bars['symbols']), 'symbol')}, last close {_time(bars['last'])}{behind}"
    elif not bars:
        yield "bars", "none yet: barcast run"
    yield from _models(facts["models"])
    running = [name for name, up in facts["programs"].items() if up]
    absent = [name for name, up in facts["programs"].items() if not up]
    idle = f"not running: {', '.join(absent)} (barcast up)" if absent else ""
    yield "programs", "; ".join(filter(None, [f"running: {', '.join(running)}" if running else "", idle]))
    answers = facts["answers"]
    if "total" in answers:
        share = answers["fallback_share"]
        yield (
            "answers",
            f"{answers['total']:,} logged, {answers['with_outcome']:,} with outcome, {share:.0%} by fallback",
        )
    queue = facts["queue"]
    if "due" in queue:
        yield "queue", ", ".join(f"{number} {state}" for state, number in queue.items())
    for row in facts["schedules"] if isinstance(facts["schedules"], list) else []:
        following = f"next {row['next_at']:%Y-%m-%d %H:%M} UTC" if row["next_at"] else row["state"]
        last = f", last {row['last']['state']}" if row["last"] else ""
        yield "schedule", f"{row['name']}: {row['action']}, {following}{last}"
    yield "disk", f"{facts['disk']['free_gb']:.0f} GB free"
    watched = facts["monitoring"]
    if "at" in watched:
        yield "watched", f"{_time(watched['at'])}: {watched['worst']}"
        for alert in watched["alerts"]:
            yield "ALERT", f"{alert['severity']} {alert['name']} ({alert['subject']}): {alert['text']}"
        for action in watched["actions"][-3:]:
            yield "action", f"{_time(action['at'])} {action['subject']}: {action['text']}"
    elif not watched:
        yield "watched", "not yet: barcast monitor"
    for run in facts["runs"][:3]:
        error = f": {run['error']}" if run.get("error") else ""
        yield "run", f"{run['run_id']} {state_of_run(run['state'])}{error}"


def _models(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What is live or waits, one line each (the first ten); the rest in numbers."""
    shown = [row for row in rows if row["champion"] or row["challenger"]]
    for row in shown[:10]:
        live = (
            f"v{row['champion']} ({row['kind']}) since {_time(row['since'])}"
            if row["champion"]
            else "not live"
        )
        said = {"approved": "is approved", "superseded": "is superseded"}
        status = said.get(row["challenger_status"], "waits for approval")
        waits = f", v{row['challenger']} {status}" if row["challenger"] else ""
        yield "model", f"{row['symbol']:10} {live}{waits}"
    rest = len(rows) - len(shown[:10])
    if rest:
        others = sum(bool(row["champion"]) for row in shown[10:])
        yield "models", f"{rest} more, {others} of them live: barcast models list"
    if not rows:
        yield "models", "none yet: barcast run"


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


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
        check("feature store", lambda: _feature_store(settings[0]))
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
    folder, free = config.open_workspace().free_gb()
    if free < _FREE_GB:
        raise BarcastError(f"{free:.1f} GB free at {folder}.", hint=f"Free at least {_FREE_GB:.0f} GB.")
    return f"{free:.0f} GB free"


def _feature_store(config: Config) -> str:
    path = config.feast.feature_store_yaml
    if path is None:
        return "embedded: SQLite online, Parquet offline"
    from barcast.adapters.feast_config import repo_config

    repo_config(config.open_workspace(), config)
    return f"{path}: its variables are set (whether the stores answer is not tried)"


def _workspace(config: Config) -> str:
    workspace = config.open_workspace()
    if not workspace.root.exists():
        return "new: nothing has run yet"
    from barcast.registry import Registry

    if not workspace.ledger.exists() and not workspace.models.exists():
        return f"{workspace.root}: nothing is registered yet"
    findings = Registry(workspace, config).verify(mlflow=False)
    if findings:
        raise BarcastError("; ".join(str(f) for f in findings), hint="See `barcast models verify`.")
    return f"{workspace.root}: ledger and served files agree"

"""Schedules: when they fire, what is refused, catch-up, no overlap, one scheduler; here and on the cluster's double."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kfp_double
import pytest
import yaml
from typer.testing import CliRunner

from barcast import clock
from barcast.bars.ingest import open_store
from barcast.bars.sources.simulator import simulate
from barcast.cli.schedule import app
from barcast.config import Config, load
from barcast.errors import BarcastError, ConfigError, RefusedError
from barcast.operations import cron, triggers
from barcast.operations.one_scheduler import SchedulerError
from barcast.operations.queue import TrainingQueue
from barcast.operations.schedules import Schedules, fire


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    path = tmp_path / "barcast.yaml"
    raw = {"workspace": "planned", "operations": {"schedules": {"refresh_seconds": 0.2, "grace_seconds": 1}}}
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("BARCAST_CONFIG", str(path))
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("KFP_HOST", raising=False)
    settings = load(path, root=tmp_path / "root")
    bars = simulate(2, 100, "1d", 7, calendar="24/7")
    open_store(settings, settings.open_workspace()).append(bars)
    return settings


def call(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, BarcastError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def scheduler() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from barcast.cli.schedule import app; app(['run'])"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("30 6 * * 1-5", ["2026-01-06T06:30", "2026-01-07T06:30"]),  # crontab's 1 is Monday
        ("0 0 * * 0", ["2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * 7", ["2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * fri-sun", ["2026-01-09T00:00", "2026-01-10T00:00", "2026-01-11T00:00"]),
        ("0 0 * * sun-sun", ["2026-01-11T00:00", "2026-01-18T00:00", "2026-01-25T00:00"]),
        ("*/20 * * * *", ["2026-01-05T12:00", "2026-01-05T12:20", "2026-01-05T12:40"]),
        ("0 0 29 2 *", ["2028-02-29T00:00"]),
        ("@monthly", ["2026-02-01T00:00", "2026-03-01T00:00"]),
    ],
)
def test_cron_fires_when_crontab_says(line: str, expected: list[str]) -> None:
    trigger, moment, found = cron.trigger(line), MONDAY, []
    previous = None
    for _ in expected:
        previous = trigger.get_next_fire_time(previous, moment)
        found.append(previous.strftime("%Y-%m-%dT%H:%M"))
        moment = previous + timedelta(seconds=1)
    assert found == expected


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"cron": "0 0 30 2 *"}, "never fires"),
        ({"cron": "0 0 * *"}, "4 fields"),
        ({"cron": "61 0 * * *"}, "cannot be read"),
        ({"cron": "0 0 * * 8"}, "day of the week"),
        ({"cron": "0 0 1 * 1"}, "restricts"),
        ({"cron": "0 0 1 6 *", "until": MONDAY + timedelta(days=3)}, "never fires"),
        ({"at": MONDAY - timedelta(seconds=1)}, "in the past"),
        ({"every": timedelta(hours=1), "until": MONDAY}, "in the past"),
        ({"every": timedelta(0)}, "too short"),
        ({}, "one of"),
        ({"cron": "* * * * *", "every": timedelta(hours=1)}, "one of"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(times: dict[str, Any], message: str) -> None:
    with clock.fixed(MONDAY), pytest.raises(ConfigError, match=message):
        triggers.make(**times)


def test_schedules_are_made_listed_paused_resumed_and_deleted(config: Config) -> None:
    call("create", "nightly", "training", "--cron", "30 2 * * *")
    row = json.loads(call("create", "often", "queue", "--every", "6h", "--no-catch-up", "--json"))[0]
    assert (row["state"], row["catch_up"]) == ("active", False)
    call("create", "learning", "learn", "--every", "1h")
    call("delete", "learning")
    call("create", "once", "training", "--at", "2099-01-02T03:04:05Z")
    when = {r["name"]: r["when"] for r in json.loads(call("list", "--json"))}
    assert when == {"nightly": "30 2 * * *", "often": "every 6:00:00", "once": "at 2099-01-02 03:04:05 UTC"}
    call("delete", "once")
    call("pause", "nightly")
    states = {r["name"]: r["state"] for r in json.loads(call("list", "--json"))}
    assert states == {"nightly": "paused", "often": "active"}
    call("resume", "nightly")
    call("delete", "often")
    assert [(r["name"], r["state"]) for r in Schedules(config).rows()] == [("nightly", "active")]
    with pytest.raises(RefusedError, match="already"):
        call("create", "nightly", "queue", "--every", "6h")
    with pytest.raises(ConfigError, match="Did you mean 'nightly'"):
        call("delete", "nightli")
    with pytest.raises(ConfigError, match="Did you mean 'training'"):
        call("create", "x", "trainnig", "--every", "6h")


def test_a_running_scheduler_sees_new_schedules_catches_up_and_is_alone(config: Config) -> None:
    schedules = Schedules(config)
    soon = clock.now() + timedelta(seconds=1.5)
    schedules.create("missed", "queue", at=soon)  # fires while nothing runs
    schedules.create("skipped", "queue", at=soon, catch_up=False)
    time.sleep(3.5)
    first = scheduler()
    try:
        assert first.stdout is not None
        assert b"Scheduler runs" in first.stdout.readline()
        second = scheduler()
        assert second.wait(60) != 0
        assert second.stderr is not None
        assert b"runs already" in second.stderr.read()
        until(lambda: schedules._last().get("missed"))
        assert "skipped" not in schedules._last()
        queue = TrainingQueue(config.open_workspace(), config.operations.queue)
        assert {row["reason"] for row in queue.status()} == {"schedule missed"}
        schedules.create("new", "queue", every=timedelta(seconds=1))  # while it runs
        assert until(lambda: schedules._last().get("new"))["state"] == "done"
    finally:
        first.send_signal(signal.SIGINT)
        first.wait(30)
    assert len(queue.status()) == 2
    assert os.path.exists(config.open_workspace().state / "schedules.db")


def test_a_schedule_starts_any_pipeline_with_its_parameters(config: Config) -> None:
    call(
        "create",
        "weekly",
        "retraining",
        "--every",
        "7d",
        "--set",
        "models=SIM0000,universal",
        "--set",
        "mode=recalibrate",
    )
    with Schedules(config)._opened() as scheduler:
        (job,) = scheduler.get_jobs("schedules")
    source = {"kind": "files", "files": {"path": str(config.open_workspace().root / "none")}}
    settings = Config.model_validate({**config.model_dump(), "source": source})
    fire(**{**job.kwargs, "config": settings.model_dump_json()})
    last = Schedules(config).row("weekly")["last"]
    # No bars to ingest and no model to start from: the two steps run side by side, and either may fail first.
    assert last["state"] == "failed"
    assert any(f"Step {step}" in last["detail"] for step in ("ingest", "live_models"))
    (run,) = config.open_workspace().runs.glob("retraining-*")
    given = json.loads((run / "arguments.json").read_text())
    assert (given["models"], given["mode"]) == ("SIM0000,universal", "recalibrate")
    with pytest.raises(ConfigError, match="has no parameter 'symbols'"):
        call("create", "x", "retraining", "--every", "7d", "--set", "symbols=A")
    for wrong, message in {
        "mode=foo": "There is no mode 'foo'. It is one of update, anew, recalibrate",
        "models=_linear,SIM000": "There is no model 'SIM000'.* Did you mean 'SIM000[01]'",
    }.items():
        with pytest.raises(ConfigError, match=message):
            call("create", "x", "retraining", "--every", "7d", "--set", wrong)
    call(
        "create", "new", "retraining", "--every", "7d", "--set", "models=MSFT"
    )  # the source has it, the table not yet
    with pytest.raises(ConfigError, match=r"it can do .*queue, learn\. Did you mean 'queue'"):
        call("create", "x", "queu", "--every", "7d")
    with pytest.raises(ConfigError, match="takes no parameters"):
        call("create", "x", "queue", "--every", "7d", "--set", "models=A")


def test_on_the_cluster_the_same_commands_work_on_recurring_runs(config: Config) -> None:
    with kfp_double.serve() as server:
        host = ("--host", server.url)
        call("create", "nightly", "training", "--cron", "30 2 * * 1-5", "--no-catch-up", *host)
        (made,) = server.recurring.values()
        parameters = made.runtime_config["parameters"]
        assert json.loads(parameters["config"])["workspace"] == "planned"
        assert parameters["run_id"] == "training-[[ScheduledTime]]"
        assert made.trigger["cron_schedule"]["cron"] == "0 30 2 * * MON,TUE,WED,THU,FRI"
        assert (str(made.max_concurrency), made.no_catchup) == ("1", True)
        call("create", "hourly", "training", "--every", "1h", *host)
        call("create", "watch", "monitoring", "--every", "1h", *host)
        call("create", "renew", "retraining", "--every", "7d", "--set", "mode=anew", *host)
        renew = next(r for r in server.recurring.values() if r.display_name == "renew")
        assert renew.runtime_config["parameters"]["mode"] == "anew"
        call("delete", "watch", *host)
        call("delete", "renew", *host)
        with pytest.raises(RefusedError, match="already"):
            call("create", "hourly", "training", "--every", "2h", *host)
        call("pause", "nightly", *host)
        rows = json.loads(call("list", "--json", *host))
        assert [(r["name"], r["action"], r["when"], r["state"]) for r in rows] == [
            ("hourly", "training", "every 3600 s", "active"),
            ("nightly", "training", "cron[0 30 2 * * MON,TUE,WED,THU,FRI]", "paused"),
        ]
        call("resume", "nightly", *host)
        call("delete", "hourly", *host)
        assert [(r.display_name, r.status) for r in server.recurring.values()] == [("nightly", "ENABLED")]
        with pytest.raises(ConfigError, match="no schedule 'hourly'"):
            call("pause", "hourly", *host)
        with pytest.raises(ConfigError, match="never fires"):
            call("create", "never", "training", "--cron", "0 0 31 4 *", *host)


def test_a_database_address_that_is_none_is_said_in_words(tmp_path: Path) -> None:
    config = Config(
        workspace="w",
        storage={"root": str(tmp_path)},
        operations={"schedules": {"database": "postgresql:/ana:secret@host"}},
    )
    for ask in (Schedules(config).rows, Schedules(config).run):
        with pytest.raises(SchedulerError, match=r"The schedules' database \(host\) cannot be used"):
            ask()


def test_looking_at_schedules_takes_away_no_run_that_is_due(config: Config) -> None:
    """No scheduler runs; a list, a pause of another one or the monitor's look must leave what it is to catch up."""
    plan = Schedules(config)
    due = plan.create("often", "queue", every=timedelta(seconds=1))["next_at"]
    plan.create("other", "queue", cron="0 0 1 1 *")
    until(lambda: clock.now() > due + timedelta(seconds=0.2))
    for _ in range(3):
        assert plan.row("often")["next_at"] == due
    plan.pause("other")
    assert plan.row("often")["next_at"] == due


def test_a_schedule_that_ended_while_paused_is_not_resumed_and_not_lost(config: Config) -> None:
    plan = Schedules(config)
    end = clock.now() + timedelta(seconds=2)
    plan.create("short", "queue", every=timedelta(seconds=1), until=end)
    plan.pause("short")
    until(lambda: clock.now() > end)
    with pytest.raises(ConfigError, match="ended while it was paused"):
        plan.resume("short")
    assert plan.row("short")["state"] == "paused"

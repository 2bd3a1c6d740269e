"""Faults around the work: a full disk, a clock that jumps, a database that goes away, two schedulers on one database.

A disk is full for one process by its own limit (RLIMIT_FSIZE): no file may grow beyond it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import queue_marks
from servers import postgres

from barcast import clock
from barcast.bars.ingest import open_store
from barcast.bars.sources.simulator import simulate
from barcast.config import Config
from barcast.config.operations import QueueConfig
from barcast.errors import RefusedError
from barcast.operations.monitoring import History, Monitor
from barcast.operations.one_scheduler import one_scheduler
from barcast.operations.queue import TrainingQueue
from barcast.operations.queue_worker import work
from barcast.operations.schedules import _SLOT, Schedules, fire, mend
from barcast.operations.supervisor import Program, Supervisor

FULL = """
import json, resource, sys
from pathlib import Path
from barcast.config import Config
from barcast.errors import BarcastError
config = Config.model_validate_json(Path(sys.argv[1]).read_text())
def fill(): resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
def room(): resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with postgres() as running:
        yield running


def url_of(server: Any) -> str:
    return str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://")


def made(folder: Path, **operations: Any) -> Config:
    config = Config.model_validate(
        {
            "workspace": "faulty",
            "storage": {"root": str(folder / "root")},
            "serving": {"endpoint": "127.0.0.1:1"},
            "universe": {"calendar": "24/7"},
            "operations": operations,
        }
    )
    bars = simulate(2, 100, "1d", 7, calendar="24/7")
    open_store(config, config.open_workspace()).append(bars)
    return config


def on_a_full_disk(config: Config, folder: Path, limit: int, script: str) -> dict[str, Any]:
    """What `script` put into `said`, run in a process whose files may not grow beyond `limit` after `fill()`."""
    (folder / "config.json").write_text(config.model_dump_json())
    text = f"{FULL}\nsaid = {{}}\n{script}\nprint(json.dumps(said))"
    words = [sys.executable, "-c", text, str(folder / "config.json"), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_on_a_full_disk_the_queue_says_so_and_loses_nothing(tmp_path: Path) -> None:
    config = made(tmp_path)
    queue = TrainingQueue(config.open_workspace(), config.operations.queue)
    queue.request_training("A", 70)
    said = on_a_full_disk(
        config,
        tmp_path,
        4096,
        """
from barcast.operations.queue import TrainingQueue
queue = TrainingQueue(config.open_workspace(), config.operations.queue)
queue._store._patience = 0.5
lease = queue.claim()
fill()
try:
    queue.request_batch([f"S{i}" for i in range(50)])
except BarcastError as error:
    said["error"], said["code"] = str(error), error.exit_code
room()
queue.complete(lease)
queue.request_training("B", 10)
""",
    )
    assert said["code"] == 8
    assert "the disk has room" in said["error"]
    assert {row["symbol"]: row["state"] for row in queue.status()} == {"A": "done", "B": "queued"}


def test_on_a_full_disk_a_schedule_goes_on_and_its_journal_stays_readable(tmp_path: Path) -> None:
    config = made(tmp_path)
    journal = config.open_workspace().state / "schedule_runs.jsonl"
    said = on_a_full_disk(
        config,
        tmp_path,
        300,
        """
from barcast.operations import schedules
schedules._ask_for_trainings = lambda settings, name: "x" * 100
for number in range(4):
    if number == 1: fill()
    if number == 3: room()
    schedules.fire(f"s{number}", "queue", config.model_dump_json())
said["sizes"] = 1
""",
    )
    assert said
    assert journal.stat().st_size > 300
    assert set(Schedules(config)._last()) == {"s0", "s3"}  # s1 was cut off, s2 found no room


def test_on_a_full_disk_commands_say_so_without_a_traceback(tmp_path: Path) -> None:
    config = made(tmp_path)
    said = on_a_full_disk(
        config,
        tmp_path,
        100,
        """
import contextlib, io, os
from barcast.cli import main
os.environ["BARCAST_ROOT"] = config.storage.root
fill()
for words in (["schedule", "create", "nightly", "queue", "--every", "6h"], ["up", "--without", "server"]):
    sys.argv = ["barcast", *words]
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as error:
            said[words[0]] = [error.code, told.getvalue()]
""",
    )
    assert said["schedule"][0] == 8
    assert "the disk has room" in said["schedule"][1]
    assert said["up"][0] == 1
    assert "The disk has no room" in said["up"][1]


def test_a_schedule_that_is_due_while_a_run_goes_on_is_skipped(tmp_path: Path) -> None:
    import fcntl

    config = made(tmp_path)
    lock = (config.open_workspace().root / "run.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    fire("nightly", "training", config.model_dump_json())
    last = Schedules(config)._last()["nightly"]
    assert (last["state"], "still going on" in last["detail"]) == ("skipped", True)
    lock.close()


def test_on_a_full_disk_monitoring_goes_on_and_counts_what_it_could_not_keep(tmp_path: Path) -> None:
    config = made(tmp_path, monitoring={"port": 0, "every_seconds": 0.05})
    said = on_a_full_disk(
        config,
        tmp_path,
        20_000,
        """
import threading, urllib.request
from barcast.operations.monitoring import Monitor, metrics
stop = threading.Event()
one = Monitor(config, stop)
fill()
seen, ports = [], []
def watch():
    import time
    while not seen:
        time.sleep(0.1)
        page = urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=5).read().decode()
        count = float(page.split("\\nbarcast_monitoring_failures ")[1].split()[0])
        said["failures"] = max(said.get("failures", 0), count)
        if said["failures"] >= 2: room()
def ready(port):
    ports.append(port); threading.Thread(target=watch, daemon=True).start()
def keep(report):
    if said.get("failures", 0) >= 2: seen.append(report); stop.set()
metrics.follow(one, stop, act=False, seen=keep, ready=ready)
said["reports"] = len(seen)
""",
    )
    assert said["failures"] >= 2
    assert said["reports"] == 1
    assert History(config.open_workspace().state / "monitoring.db").latest() is not None


def test_without_room_for_a_log_a_program_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "one.log").mkdir()  # as good as a full disk: the file cannot be made
    said: list[str] = []
    supervisor = Supervisor(
        [Program("one", [sys.executable, "-S", "-c", "import time; time.sleep(60)"])],
        tmp_path,
        say=said.append,
    )
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,), kwargs={"every_seconds": 0.05})
    thread.start()
    try:
        until(lambda: supervisor.pids().get("one"))
    finally:
        stop.set()
        thread.join(30)
    assert any("runs without it" in text for text in said)


def test_after_the_clock_was_set_back_schedules_fire_at_their_next_time(tmp_path: Path) -> None:
    schedules = Schedules(made(tmp_path))
    now = clock.now()
    schedules.create("often", "queue", every=timedelta(hours=1))
    schedules.create("cron", "queue", cron="*/20 * * * *")
    schedules.create("once", "queue", at=now + timedelta(days=2))
    schedules.create("rests", "queue", every=timedelta(hours=1))
    schedules.pause("rests")
    before = {row["name"]: row["next_at"] for row in schedules.rows()}
    with schedules._opened() as scheduler:
        for name in ("often", "cron"):  # written while the clock was a week ahead
            scheduler.modify_job(name, _SLOT, next_run_time=now + timedelta(days=7))
        mend(scheduler, now)
    after = {row["name"]: row["next_at"] for row in schedules.rows()}
    assert now < after["often"] <= now + timedelta(hours=1, seconds=1)
    assert now < after["cron"] <= now + timedelta(minutes=20)
    assert (after["once"], after["rests"]) == (before["once"], None)
    with schedules._opened() as scheduler:
        mend(scheduler, now + timedelta(minutes=1))  # a clock that goes on as it should changes nothing
    assert {row["name"]: row["next_at"] for row in schedules.rows()} == after


def test_two_schedulers_on_one_database_of_two_machines(tmp_path: Path, server: Any) -> None:
    url = url_of(server)
    here, there = made(tmp_path / "here").open_workspace(), made(tmp_path / "there").open_workspace()
    with one_scheduler(here, url) as check:
        with pytest.raises(RefusedError, match="on another machine"), one_scheduler(there, url):
            pass
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        check()  # takes it again
        with pytest.raises(RefusedError, match="on another machine"), one_scheduler(there, url):
            pass
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with one_scheduler(there, url), pytest.raises(RefusedError, match="on another machine"):
            check()  # another was quicker: this one must stop
    with one_scheduler(there, url):
        pass


@pytest.mark.slow
def test_a_scheduler_whose_connections_are_killed_fires_again(tmp_path: Path, server: Any) -> None:
    """APScheduler tries a lost database again after ten seconds."""
    config = made(tmp_path, schedules={"database": url_of(server), "refresh_seconds": 0.5})
    schedules = Schedules(config)
    schedules.create("often", "queue", every=timedelta(seconds=1))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    script = (
        "import sys; from pathlib import Path; from barcast.config import Config;"
        "from barcast.operations.schedules import Schedules;"
        "Schedules(Config.model_validate_json(Path(sys.argv[1]).read_text())).run()"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "config.json")])
    try:
        until(lambda: schedules._last().get("often"))
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()")
        killed = datetime.now(UTC)
        until(
            lambda: datetime.fromisoformat(schedules._last()["often"]["at"]) > killed + timedelta(seconds=3)
        )
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)
        schedules.delete("often")


def test_a_worker_whose_connections_are_killed_keeps_and_finishes_its_job(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(queue_marks.FOLDER, str(tmp_path))
    config = made(tmp_path)
    settings = QueueConfig(
        database=url_of(server),
        job="queue_marks:slow",
        heartbeat_seconds=0.2,
        lease_seconds=5,
        poll_seconds=0.1,
    )
    queue = TrainingQueue(config.open_workspace(), settings)
    queue.request_training("A")
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.05):
            server.psql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
            )

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        work(config, settings, once=True)
    finally:
        stop.set()
        thread.join()
    (row,) = queue.status("A")
    assert (row["state"], row["attempts"]) == ("done", 1)


@pytest.mark.slow
def test_a_queue_that_cannot_be_reached_is_an_alert_and_the_rest_is_judged(tmp_path: Path) -> None:
    """The queue tries for twenty seconds."""
    config = made(tmp_path, queue={"database": "postgresql+psycopg://barcast:secret@127.0.0.1:1/queue"})
    report = Monitor(config).look(act=False)
    assert {alert.name for alert in report.alerts} == {"QueueUnreachable"}
    assert "secret" not in report.model_dump_json()
    assert "free_gb" in {reading.name for reading in report.whole}

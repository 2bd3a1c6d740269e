"""The training queue with real worker processes that are killed, paused, stopped and many at once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import queue_marks
from hypothesis import given
from hypothesis import strategies as st
from servers import postgres

from barcast.config import Config
from barcast.config.operations import PriorityConfig, QueueConfig
from barcast.errors import ConfigError
from barcast.operations.queue import TrainingQueue
from barcast.operations.queue_priority import Facts, automatic_priority
from barcast.operations.queue_worker import LOST, job_function, work

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv(queue_marks.FOLDER, str(tmp_path))
    return Config.model_validate({"storage": {"root": str(tmp_path / "root")}})


@pytest.fixture
def start(config: Config) -> Iterator[Start]:
    """Start the process of one job, as `work` does."""
    children: list[subprocess.Popen[bytes]] = []

    def begin(settings: QueueConfig) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "barcast.operations.queue_worker"], stdin=subprocess.PIPE
        )
        payload = {
            "config": config.model_dump_json(),
            "queue": settings.model_dump_json(),
            "path": sys.path,
        }
        assert child.stdin is not None
        child.stdin.write(json.dumps(payload).encode())
        child.stdin.close()
        children.append(child)
        return child

    yield begin
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()


def settings(job: str, **more: Any) -> QueueConfig:
    values = {"lease_seconds": 3.0, "heartbeat_seconds": 0.3, "poll_seconds": 0.1, **more}
    return QueueConfig.model_validate({"job": f"queue_marks:{job}", **values})


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def check_never_two_at_once(
    lines: list[tuple[str, str, int, float]], killed: frozenset[int] = frozenset()
) -> None:
    """No job of a symbol starts between the start and the end of another one that was not killed."""
    inside: dict[str, int] = {}
    for word, symbol, process, _ in lines:
        if word == "start":
            assert inside.get(symbol) in (None, *killed), (
                f"{symbol} was started by {process} and runs in {inside[symbol]}"
            )
            inside[symbol] = process
        else:
            assert inside.pop(symbol) == process


def test_a_killed_workers_job_is_taken_up_by_another_after_its_lease(
    config: Config, start: Start, tmp_path: Path
) -> None:
    mine = settings("hangs_at_first")
    queue = TrainingQueue(config.open_workspace(), mine)
    queue.request_training("A")
    first = start(mine)
    until(lambda: queue_marks.marks(tmp_path))
    second = start(mine)  # nothing to do: the job has its worker
    assert second.wait(60) == 0
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    assert work(config, mine, workers=2, once=True) == 0  # the lease still runs
    until(lambda: queue.counts()["due"])
    assert work(config, mine, workers=2, once=True) >= 1
    assert time.monotonic() - killed > 1.5
    (row,) = queue.status("A")
    assert (row["state"], row["attempts"], row["result"]) == ("done", 2, {"attempt": 2})
    words = [(word, process == first.pid) for word, _, process, _ in queue_marks.marks(tmp_path)]
    assert words == [("start", True), ("start", False), ("end", False)]


def test_a_paused_worker_keeps_its_job_on_this_machine(config: Config, start: Start, tmp_path: Path) -> None:
    mine = settings("hangs_at_first", lease_seconds=1.0, heartbeat_seconds=0.2)
    queue = TrainingQueue(config.open_workspace(), mine)
    queue.request_training("A")
    first = start(mine)
    until(lambda: queue_marks.marks(tmp_path))
    first.send_signal(signal.SIGSTOP)
    until(lambda: queue.counts()["due"])  # the lease is over
    assert queue.claim() is None  # and yet nobody may start it a second time
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) in (0, 143)
    lease = queue.claim()
    assert lease is not None
    assert lease.attempt == 1


@pytest.mark.slow
def test_a_resumed_worker_hears_the_stop_whichever_thread_the_kernel_gives_it_to(
    config: Config, start: Start, tmp_path: Path
) -> None:
    """Without `_wake_main_thread` about one in seven sleeps on."""
    mine = settings("hangs_at_first", lease_seconds=30.0, heartbeat_seconds=0.01)
    queue = TrainingQueue(config.open_workspace(), mine)
    for count in range(1, 31):
        queue.request_training("A")
        worker = start(mine)
        until(lambda wanted=count: len(queue_marks.marks(tmp_path)) == wanted)
        worker.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        worker.send_signal(signal.SIGCONT)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) in (0, 143)


def test_a_worker_that_lost_its_job_ends_itself(config: Config, start: Start, tmp_path: Path) -> None:
    mine = settings("hangs_at_first", lease_seconds=1.0, heartbeat_seconds=0.3)
    queue = TrainingQueue(config.open_workspace(), mine)
    queue.request_training("A")
    first = start(mine)
    until(lambda: queue_marks.marks(tmp_path))
    elsewhere = TrainingQueue(
        config.open_workspace(),
        mine.model_copy(update={"database": f"sqlite:///{tmp_path}/root/daily/state/queue.db"}),
    )
    elsewhere._locks = tmp_path / "another-machine"
    first.send_signal(signal.SIGSTOP)
    lease = until(elsewhere.claim)
    assert lease.attempt == 2
    first.send_signal(signal.SIGCONT)
    assert first.wait(30) == LOST
    elsewhere.complete(lease)
    assert ("end", "A") not in [(word, symbol) for word, symbol, _, _ in queue_marks.marks(tmp_path)]


def _stress(config: Config, mine: QueueConfig, start: Start, folder: Path) -> None:
    symbols = [f"S{i}" for i in range(4)]
    queue = TrainingQueue(config.open_workspace(), mine)
    queue.request_batch(symbols)
    pool = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys, json; from barcast.config import Config; from barcast.config.operations import"
                " QueueConfig; from barcast.operations.queue import TrainingQueue; from"
                " barcast.operations.queue_worker import run_one, job_function\n"
                "given = json.loads(sys.argv[1]); sys.path[:] = given['path']\n"
                "config = Config.model_validate_json(given['config'])\n"
                "settings = QueueConfig.model_validate_json(given['queue'])\n"
                "queue = TrainingQueue(config.open_workspace(), settings); import time\n"
                "job = job_function(settings.job); end = time.monotonic() + 4\n"
                "while time.monotonic() < end:\n"
                "    queue.request_training('S%d' % (time.monotonic_ns() % 4))\n"
                "    run_one(queue, config, job)\n",
                json.dumps(
                    {
                        "config": config.model_dump_json(),
                        "queue": mine.model_dump_json(),
                        "path": sys.path,
                    }
                ),
            ]
        )
        for _ in range(4)
    ]
    try:
        for child in pool:
            assert child.wait(120) == 0
    finally:
        for child in pool:
            if child.poll() is None:
                child.kill()
            child.wait()
    while (lease := queue.claim()) is not None:
        queue.complete(lease)
    lines = queue_marks.marks(folder)
    check_never_two_at_once(lines)
    starts = sum(word == "start" for word, *_ in lines)
    assert starts >= len(symbols)
    assert len({process for _, _, process, _ in lines}) > 1
    counts = queue.counts()
    assert (counts["queued"], counts["running"], counts["dead"]) == (0, 0, 0)
    assert counts["done"] >= starts


def test_many_workers_on_one_file_never_run_a_symbol_twice_at_once(
    config: Config, start: Start, tmp_path: Path
) -> None:
    _stress(config, settings("quick"), start, tmp_path)


def test_many_workers_on_one_server_never_run_a_symbol_twice_at_once(
    config: Config, start: Start, tmp_path: Path
) -> None:
    with postgres() as server:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        _stress(config, settings("quick", database=url), start, tmp_path)


@pytest.mark.slow
def test_under_random_kills_every_job_is_done_in_the_end_and_never_twice_at_once(
    config: Config, start: Start, tmp_path: Path
) -> None:
    """Kills at seeded random moments of a short life: most come before or about the claim."""
    mine = settings("quick", lease_seconds=1.0, heartbeat_seconds=0.2, max_attempts=100)
    queue = TrainingQueue(config.open_workspace(), mine)
    symbols = [f"S{i}" for i in range(6)]
    queue.request_batch(symbols)
    dice = random.Random(7)
    killed: set[int] = set()
    for _ in range(12):
        pair = [start(mine), start(mine)]
        time.sleep(dice.uniform(0.3, 1.6))
        victim = dice.choice(pair)
        victim.kill()
        killed.add(victim.pid)
        for child in pair:
            child.wait(60)
    until(lambda: work(config, mine, workers=2, once=True) >= 0 and queue.counts()["done"] == len(symbols))
    lines = queue_marks.marks(tmp_path)
    check_never_two_at_once(lines, frozenset(killed))
    assert {symbol for word, symbol, *_ in lines if word == "end"} == set(symbols)


def test_a_job_that_always_fails_becomes_a_dead_letter_and_the_others_are_done(config: Config) -> None:
    mine = settings("fails", max_attempts=2, backoff_first_seconds=0.0)
    queue = TrainingQueue(config.open_workspace(), mine)
    queue.request_training("A")
    until(lambda: work(config, mine, once=True) >= 0 and queue.dead())
    (row,) = queue.dead()
    assert (row["attempts"], row["error"]) == (2, "RuntimeError: no luck with A")


def test_an_unknown_job_function_is_refused_before_any_job_is_taken() -> None:
    with pytest.raises(ConfigError, match="cannot be found"):
        job_function("barcast.operations.queue_jobs:trian")


known = st.none() | st.floats(0, 1e9)


@given(st.builds(Facts, known, known, known, known, st.none() | st.floats(0, 1), known, known))
def test_automatic_priority_is_a_number_from_0_to_100(facts: Facts) -> None:
    assert 0 <= automatic_priority(facts, PriorityConfig()) <= 100


@given(
    st.sampled_from(
        ["traded_value", "volatility", "opportunity", "model_age_days", "drift", "answers_per_day"]
    ),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_automatic_priority_rises_with_each_fact(name: str, one: float, other: float) -> None:
    base = {"traded_value": 5e6, "reliability": 0.7, "drift": 0.1}
    low, high = (
        automatic_priority(Facts(**{**base, name: value}), PriorityConfig()) for value in sorted((one, other))
    )
    assert low <= high


def test_automatic_priority_of_half_points_is_50_and_of_no_model_counts_full() -> None:
    weights = PriorityConfig()
    half = Facts(1e7, 0.4, 0.01, 30.0, 0.5, 0.2, 100.0)
    assert automatic_priority(half, weights) == pytest.approx(50)
    only_age = Facts(model_age_days=float("inf"))
    assert automatic_priority(only_age, weights) == pytest.approx(100)
    assert automatic_priority(Facts(), weights) == 50

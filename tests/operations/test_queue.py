"""The training queue's rules, with a clock that the test sets; the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from servers import postgres

from barcast import clock
from barcast.config.operations import QueueConfig
from barcast.errors import ConfigError
from barcast.operations.queue import LeaseLostError, TrainingQueue
from barcast.operations.queue_priority import Facts
from barcast.operations.queue_store import QueueError
from barcast.workspace import Workspace

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
Make = Callable[..., TrainingQueue]


class Time:
    """A clock in the test's hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    url = ""
    if request.param == "postgresql":
        running = request.getfixturevalue("server")
        running.psql("DROP TABLE IF EXISTS training_jobs")
        url = running.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def queue(time: Time | None = None, machine: str = "one", **settings: Any) -> TrainingQueue:
        config = QueueConfig(database=url or f"sqlite:///{tmp_path}/queue.db", **settings)
        return TrainingQueue(Workspace("daily", tmp_path / machine), config, time=time)

    return queue


def test_highest_priority_comes_first_and_the_oldest_among_equals(make: Make) -> None:
    queue = make(Time())
    for symbol, priority in (("A", 10), ("B", 90), ("C", 10), ("BTC/USDT", 50)):
        queue.request_training(symbol, priority)
    leases = [queue.claim() for _ in range(5)]
    assert [lease and lease.symbol for lease in leases] == ["B", "BTC/USDT", "A", "C", None]


def test_duplicate_requests_merge_and_the_highest_priority_wins(make: Make) -> None:
    queue = make(Time())
    first = queue.request_training("A", 70, reason="drift")
    assert queue.request_training("A", 20, reason="asked for") == first
    queue.request_training("A", 80, reason="drift")
    (row,) = queue.status()
    assert (row["priority"], row["reason"], row["requests"]) == (80, "drift; asked for", 3)


def test_a_request_during_the_run_waits_for_its_end(make: Make) -> None:
    queue = make(Time())
    queue.request_training("A")
    lease = queue.claim()
    assert lease is not None
    queue.request_training("A")
    assert queue.claim() is None
    queue.complete(lease, {"model": "x"})
    again = queue.claim()
    assert again is not None
    assert again.id != lease.id
    assert [row["state"] for row in queue.status("A")] == ["running", "done"]


def test_a_failed_job_waits_longer_each_time_and_ends_as_a_dead_letter(make: Make) -> None:
    time = Time()
    queue = make(time, max_attempts=3, backoff_first_seconds=10)
    queue.request_training("A", 30)
    for pause in (10, 20):
        lease = queue.claim()
        assert lease is not None
        queue.fail(lease, "no data")
        assert queue.claim() is None
        time.forward(pause - 0.1)
        assert queue.claim() is None
        time.forward(0.2)
    lease = queue.claim()
    assert lease is not None
    assert lease.attempt == 3
    queue.fail(lease, "no data")
    time.forward(1e6)
    assert queue.claim() is None
    (row,) = queue.dead()
    assert (row["symbol"], row["error"], row["attempts"], row["priority"]) == ("A", "no data", 3, 30)
    assert queue.retry() == ["A"]
    assert queue.dead() == []
    revived = queue.claim()
    assert revived is not None
    assert revived.attempt == 1


def test_a_silent_worker_on_another_machine_loses_its_job_and_its_result(make: Make) -> None:
    time = Time()
    here, there = make(time, "here"), make(time, "there")
    here.request_training("A")
    lost = here.claim()
    assert lost is not None
    time.forward(59)
    here.heartbeat(lost)
    time.forward(59)
    assert there.claim() is None
    time.forward(2)
    taken = there.claim()
    assert taken is not None
    assert (taken.symbol, taken.attempt) == ("A", 2)
    for late in (here.heartbeat, here.complete, here.release):
        with pytest.raises(LeaseLostError, match=r"no longer"):
            late(lost)
    with pytest.raises(LeaseLostError):
        here.fail(lost, "late")
    there.complete(taken)
    assert here.counts() == {"queued": 0, "running": 0, "done": 1, "dead": 0, "due": 0}


def test_a_worker_that_always_dies_makes_a_dead_letter(make: Make) -> None:
    time = Time()
    queue = make(time, max_attempts=2)
    queue.request_training("A")
    for _ in range(2):
        lease = queue.claim()
        assert lease is not None
        lease.unlock()  # what the operating system does for a killed process
        time.forward(61)
    assert queue.claim() is None
    assert "fell silent" in queue.dead()[0]["error"]


def test_clock_set_forward_with_a_living_worker_does_not_start_its_job_twice(make: Make) -> None:
    queue = make(clock.now)
    with clock.fixed(START):
        queue.request_training("A")
        lease = queue.claim()
        assert lease is not None
    with clock.fixed(START + timedelta(hours=5)):
        assert queue.claim() is None  # its lock is held: it lives
        queue.heartbeat(lease)
        queue.complete(lease)


def test_clock_set_back_does_not_keep_a_killed_workers_job_or_a_pause_for_hours(make: Make) -> None:
    queue = make(clock.now)
    with clock.fixed(START):
        queue.request_batch(["A", "B"])
        killed, failed = queue.claim(), queue.claim()
        assert killed is not None
        assert failed is not None
        killed.unlock()
        queue.fail(failed, "once")
    with clock.fixed(START - timedelta(hours=5)):
        taken = {lease.symbol for lease in (queue.claim(), queue.claim()) if lease is not None}
        assert taken == {"A", "B"}


def test_a_released_job_counts_no_start(make: Make) -> None:
    queue = make(Time())
    queue.request_training("A")
    lease = queue.claim()
    assert lease is not None
    queue.release(lease)
    again = queue.claim()
    assert again is not None
    assert again.attempt == 1


def test_a_symbol_over_its_share_waits_behind_the_others(make: Make) -> None:
    time = Time()
    queue = make(time, shares={"A": 0.3})
    order = []
    for _ in range(40):  # both always wait; A always has the higher priority; every job takes 10 s
        queue.request_training("A", 100)
        queue.request_training("B", 1)
        lease = queue.claim()
        assert lease is not None
        order.append(lease.symbol)
        time.forward(10)
        queue.complete(lease)
    assert order.count("A") == pytest.approx(12, abs=1)
    # Nobody else waits: an unused worker serves it all the same.
    alone = make(time, shares={"A": 0.3})
    while (lease := alone.claim()) is not None:
        alone.complete(lease)
    alone.request_training("A")
    assert alone.claim() is not None


def test_a_job_gets_its_symbols_share_of_the_cores(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    queue = make(Time(), shares={"A": 0.3, "B": 0.01})
    queue.request_batch(["A", "B", "C"])
    leases = [queue.claim() for _ in range(3)]
    assert {lease.symbol: lease.cores for lease in leases if lease is not None} == {"A": 2, "B": 1, "C": 8}


def test_a_batch_takes_each_symbols_priority_from_its_facts(make: Make) -> None:
    queue = make(Time())
    facts = {"old": Facts(model_age_days=300), "new": Facts(model_age_days=1), "unknown": Facts()}
    queue.request_batch(facts, facts=facts, reason="nightly")
    assert [row["symbol"] for row in queue.status()] == ["old", "unknown", "new"]


@pytest.mark.parametrize("priority", [-1, 101, float("nan"), float("inf")])
def test_a_priority_out_of_range_is_refused(tmp_path: Path, priority: float) -> None:
    queue = TrainingQueue(Workspace("daily", tmp_path), QueueConfig())
    with pytest.raises(ConfigError, match="0 to 100"):
        queue.request_training("A", priority)
    assert queue.status() == []


def test_status_of_an_unknown_symbol_suggests_the_nearest(tmp_path: Path) -> None:
    queue = TrainingQueue(Workspace("daily", tmp_path), QueueConfig())
    queue.request_training("AAPL")
    with pytest.raises(ConfigError, match="Did you mean 'AAPL'"):
        queue.status("APPL")


def test_a_database_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    config = QueueConfig(database="postgresql+psycopg://barcast:secret@127.0.0.1:1/queue")
    from barcast.operations.queue_store import Store

    with pytest.raises(QueueError, match=r"127\.0\.0\.1:1") as found:
        Store(config.database, patience_seconds=0.2)
    assert "secret" not in str(found.value)


def test_lost_connections_are_made_again(server: Any, tmp_path: Path) -> None:
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    queue = TrainingQueue(Workspace("lost", tmp_path), QueueConfig(database=url))
    calls = []

    def work(connection: Any, now: float) -> str:
        calls.append(now)
        if len(calls) == 1:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return "answered"

    assert queue._store.run(work) == "answered"
    assert len(calls) == 2


def test_a_symbol_with_a_very_long_name_keeps_no_other_from_being_claimed(tmp_path: Path) -> None:
    queue = TrainingQueue(Workspace("w", tmp_path), QueueConfig())
    queue.request_training("漢" * 64, 90)  # 576 characters as a file name
    queue.request_training("AAA", 10)
    claimed = [queue.claim(), queue.claim()]
    assert [lease.symbol for lease in claimed if lease is not None] == ["漢" * 64, "AAA"]
    for lease in claimed:
        assert lease is not None
        queue.complete(lease)

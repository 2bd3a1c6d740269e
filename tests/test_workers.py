"""Worker processes: tasks run apart from this process, and what kills one worker fails that task only."""

from __future__ import annotations

import os

import pytest

from barcast.workers import Workers


def double(value: int) -> tuple[int, int, str]:
    if value == 13:
        raise ValueError("unlucky")
    if value == 99:
        os._exit(1)  # as if the system had killed it
    return 2 * value, os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_a_failing_and_a_dying_task_stop_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with Workers(2, most=5) as pool:
        found = dict(pool.run({str(v): (double, v) for v in (1, 13, 99, 3, 4)}))
        again = dict(pool.run({"5": (double, 5)}))
    assert [found[name][0] for name in ("1", "3", "4")] == [2, 6, 8]
    assert str(found["13"]) == "unlucky"
    assert "terminated" in str(found["99"])
    assert os.getpid() not in {found[name][1] for name in ("1", "3", "4")}
    assert found["1"][2] == str(pool.threads) != "7"
    assert again["5"][0] == 10
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_one_worker_is_this_process() -> None:
    with Workers(4, most=1) as pool:
        here = lambda value: (value, os.getpid())  # noqa: E731
        found = dict(pool.run({"a": (here, 1), "b": (here, 2)}))
    assert found == {"a": (1, os.getpid()), "b": (2, os.getpid())}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a second core")
def test_one_task_beside_this_process_begins_at_once_and_apart() -> None:
    with Workers(most=1, beside=True) as pool:
        results = pool.run({"a": (double, 1)})
        assert pool.threads == max(1, len(os.sched_getaffinity(0)) // 2)
        (name, found), *rest = results
    assert (name, found[0], rest) == ("a", 2, [])
    assert found[1] != os.getpid()

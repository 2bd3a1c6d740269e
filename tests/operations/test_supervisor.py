"""The supervisor with real processes: restart, waiting, clean stop, and an end of all when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barcast.cli.up import programs
from barcast.config import Config
from barcast.operations.supervisor import Program, Supervisor

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(100)"]


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_program_is_started_again_and_all_end_at_the_stop(tmp_path: Path) -> None:
    # A program with a child of its own, which must not be left behind either.
    parent = [sys.executable, "-S", "-c", f"import subprocess; subprocess.run({SLEEPER!r})"]
    said: list[str] = []
    supervisor = Supervisor(
        [Program("one", SLEEPER), Program("two", parent), Program("late", SLEEPER, tmp_path / "live")],
        tmp_path / "logs",
        say=said.append,
    )
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,), kwargs={"every_seconds": 0.05})
    thread.start()
    try:
        first = until(lambda: supervisor.pids().get("one"))
        assert "late" not in supervisor.pids()
        (tmp_path / "live").touch()
        until(lambda: supervisor.pids().get("late"))
        os.kill(first, signal.SIGKILL)
        until(lambda: supervisor.pids().get("one") not in (None, first))
        last = supervisor.pids()
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert [name for name, process in last.items() if alive(process)] == []
    assert any(text.startswith("one ended (-9)") for text in said)


def test_a_program_that_always_ends_waits_longer_each_time_and_keeps_its_output(tmp_path: Path) -> None:
    said: list[str] = []
    broken = Program(
        "broken", [sys.executable, "-S", "-c", "print('no port', flush=True); raise SystemExit(3)"]
    )
    stop = threading.Event()
    supervisor = Supervisor([broken], tmp_path, say=said.append)
    thread = threading.Thread(target=supervisor.run, args=(stop,), kwargs={"every_seconds": 0.05})
    thread.start()
    try:
        until(lambda: sum("ended (3)" in text for text in said) >= 3)
    finally:
        stop.set()
        thread.join(60)
    pauses = [text.partition("again in ")[2].partition(" s")[0] for text in said if "ended" in text]
    assert pauses[:3] == ["0.5", "1", "2"]
    log = tmp_path / "broken.log"
    assert log.read_text().count("no port") >= 3
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word on a parent's death is Linux's")
def test_when_the_supervisor_is_killed_its_programs_end(tmp_path: Path) -> None:
    script = (
        "import sys, threading; from pathlib import Path; from barcast.operations.supervisor import *\n"
        f"programs = [Program('one', {SLEEPER!r})]\n"
        "s = Supervisor(programs, Path(sys.argv[1]), say=lambda text: print(text, flush=True))\n"
        "s.run(threading.Event())\n"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    line = killed.stdout.readline()
    process = int(line.partition("process ")[2].rstrip(")\n"))
    command = Path(f"/proc/{process}/cmdline")
    until(lambda: command.read_bytes().split(b"\0")[1:2] == [b"-S"])  # it has become the program
    killed.kill()
    killed.wait()
    until(lambda: not alive(process))


def test_up_starts_every_program_of_a_workspace_with_its_own_configuration(tmp_path: Path) -> None:
    found = programs(Config(), tmp_path / "up.yaml")
    assert list(found) == ["server", "gateway", "console", "worker", "scheduler", "monitor", "feed"]
    for program in found.values():
        assert program.command[-2:] == ["--config", str(tmp_path / "up.yaml")]
        words = list(program.command[3:-2])
        helped = subprocess.run([*program.command[:3], *words, "--help"], capture_output=True, text=True)
        assert helped.returncode == 0, helped.stderr
        assert "--config" in helped.stdout


@pytest.mark.slow
def test_up_runs_a_new_workspace_restarts_what_dies_is_alone_and_stops_cleanly(tmp_path: Path) -> None:
    """The real programs; server and gateway wait for a first live model."""
    import socket

    import yaml

    def free() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    console, metrics = free(), free()
    settings = {
        "workspace": "whole",
        "registry": {"console_port": console},
        "operations": {"monitoring": {"port": metrics}},
    }
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-c", "from barcast.cli import main; main()"]
    words = [*command, "up", "--config", str(tmp_path / "whole.yaml")]
    environment = {**os.environ, "BARCAST_ROOT": str(tmp_path / "root")}
    log = (tmp_path / "up.log").open("w")
    up = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
    said = tmp_path / "up.log"

    def listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def process(name: str) -> list[int]:
        lines = [line for line in said.read_text().splitlines() if line.startswith(f"{name} started")]
        return [int(line.partition("process ")[2].rstrip(")")) for line in lines]

    try:
        until(lambda: listens(console) and listens(metrics), 120)
        second = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert second.returncode == 9
        assert "runs already" in second.stderr
        os.kill(process("worker")[-1], signal.SIGKILL)
        until(lambda: len(process("worker")) == 2, 60)
        everything = [process(name)[-1] for name in ("console", "worker", "scheduler", "monitor")]
        assert process("server") == []
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
        log.close()
    assert said.read_text().splitlines()[-1] == "Stopped."
    assert "killed" not in said.read_text()
    assert [one for one in everything if alive(one)] == []


def test_a_log_that_grows_large_begins_anew_and_keeps_what_was_before(tmp_path: Path) -> None:
    code = "import time\nfor i in range(10**6): print(f'{i:09}', flush=True); time.sleep(0.0002)"
    stop = threading.Event()
    supervisor = Supervisor(
        [Program("wordy", [sys.executable, "-S", "-c", code])], tmp_path, largest_log_bytes=20_000
    )
    thread = threading.Thread(target=supervisor.run, args=(stop,), kwargs={"every_seconds": 0.02})
    thread.start()
    log, old = tmp_path / "wordy.log", tmp_path / "wordy.log.1"
    try:
        until(old.exists)
        until(lambda: log.stat().st_size > 2_000)
        process = supervisor.pids()["wordy"]
    finally:
        stop.set()
        thread.join(60)
    assert process
    assert log.stat().st_size + old.stat().st_size < 2_000_000
    assert old.read_text().startswith("0")
    assert b"\0" not in log.read_bytes()  # the program goes on at the beginning, not behind a hole
    assert old.stat().st_mode & 0o077 == 0

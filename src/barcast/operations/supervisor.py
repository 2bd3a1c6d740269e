"""Keeps a workspace's programs running on this machine: starts them, starts again what ends, stops all cleanly.

Each program is a child process in a group of its own, so that its children end with it. What keeps ending soon
after its start waits longer each time; what ran well starts at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from barcast import logs

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 30.0
LARGEST_LOG_BYTES = 20 * 2**20


@dataclass(frozen=True)
class Program:
    """One program to keep running.

    Attributes:
        name: what people call it; its output goes to `<name>.log`; what was before, when that grew large, to
            `<name>.log.1`.
        command: the command line.
        needs: a file without which it is not started yet (nothing live to serve).
    """

    name: str
    command: Sequence[str]
    needs: Path | None = None


@dataclass
class _Watched:
    program: Program
    child: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    next_start: float = 0.0
    log: IO[bytes] | None = field(default=None, repr=False)


class Supervisor:
    """Runs programs until told to stop.

    Args:
        programs: in the order of their start; they are stopped in the opposite order.
        folder: where their output goes.
        stop_seconds: how long a program may take to end before it is killed.
        largest_log_bytes: a program's log that reaches this is begun anew; one old one is kept.
        say: told what starts and ends.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        folder: Path,
        *,
        stop_seconds: float = 15.0,
        largest_log_bytes: int = LARGEST_LOG_BYTES,
        say: Callable[[str], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._watched = [_Watched(program) for program in programs]
        self._stop_seconds, self._largest_log = stop_seconds, largest_log_bytes
        self._say = say or (lambda text: None)

    def pids(self) -> dict[str, int]:
        """Process ids of the programs that run."""
        return {w.program.name: w.child.pid for w in self._watched if w.child is not None}

    def run(self, stop: threading.Event, *, every_seconds: float = 0.2) -> None:
        """Keep the programs running until `stop` is set or the process is interrupted; then end them all."""
        try:
            while not stop.is_set():
                for watched in self._watched:
                    self._look_after(watched)
                stop.wait(every_seconds)
        finally:
            self._stop_all()

    def _look_after(self, watched: _Watched) -> None:
        now = time.monotonic()
        child, name = watched.child, watched.program.name
        if child is not None:
            code = child.poll()
            self._cut(watched)
            if code is None:
                return
            _signal(child.pid, signal.SIGKILL)  # what it may have left behind
            steady = now - watched.started >= STEADY_SECONDS
            watched.pause = (
                0.0 if steady else min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, watched.pause * 2))
            )
            watched.child, watched.next_start = None, now + watched.pause
            self._say(f"{name} ended ({code}); again in {watched.pause:g} s. See {self.folder / name}.log")
            logs.get("supervisor").warning("program ended", program=name, code=code, pause=watched.pause)
        needs = watched.program.needs
        if now < watched.next_start or (needs is not None and not needs.exists()):
            return
        output: IO[bytes] | int = self._log(watched) or subprocess.DEVNULL
        watched.child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "barcast.operations.supervisor",
                str(os.getpid()),
                *watched.program.command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watched.started = now
        self._say(f"{name} started (process {watched.child.pid})")

    def _log(self, watched: _Watched) -> IO[bytes] | None:
        """The program's open log; None where the disk has no room for one: it runs all the same."""
        if watched.log is None:
            # Only its owner may read it: the console prints its token.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            path = self.folder / f"{watched.program.name}.log"
            try:
                watched.log = os.fdopen(os.open(path, flags, 0o600), "ab")
            except OSError as error:
                self._say(
                    f"{path} cannot be written ({error.strerror}); {watched.program.name} runs without it"
                )
        return watched.log

    def _cut(self, watched: _Watched) -> None:
        """Move the content of a log that grew large aside and go on in the same file, which the program holds open."""
        if watched.log is None or os.fstat(watched.log.fileno()).st_size < self._largest_log:
            return
        path = self.folder / f"{watched.program.name}.log"
        old = path.with_name(f"{path.name}.1")
        try:
            old.touch(0o600)
            shutil.copyfile(path, old)
        except OSError as error:  # a full disk: its room is worth more than the old lines
            self._say(f"{path} is cut; its old lines cannot be kept ({error.strerror})")
        os.ftruncate(watched.log.fileno(), 0)

    def _stop_all(self) -> None:
        running = [w for w in reversed(self._watched) if w.child is not None]
        for watched in running:
            assert watched.child is not None
            _signal(watched.child.pid, signal.SIGTERM)
        until = time.monotonic() + self._stop_seconds
        for watched in running:
            assert watched.child is not None
            try:
                watched.child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{watched.program.name} does not end; killed")
            _signal(watched.child.pid, signal.SIGKILL)
            watched.child.wait()
            watched.child = None
        for watched in self._watched:
            if watched.log is not None:
                watched.log.close()
                watched.log = None


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _become(parent: int, command: list[str]) -> None:
    """Become `command`, ended by the kernel when the supervisor dies, however it dies (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG outlives the exec
        if os.getppid() != parent:  # it died before the call
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])

"""Workers of the training queue: one process a job, so that a job's memory, crash or hang stays its own.

`work` watches the queue and starts a process for each due job, up to the number of workers. The process claims
the job, shows signs of life from a thread while the job function runs, and reports how it ended. It ends itself
the moment it can no longer know that the job is its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from barcast import logs
from barcast.config import Config
from barcast.config.operations import QueueConfig
from barcast.errors import BarcastError, ConfigError
from barcast.operations.queue import Lease, LeaseLostError, TrainingQueue
from barcast.operations.queue_store import QueueError
from barcast.workers import THREADS

Job = Callable[[Config, Lease], "dict[str, Any] | None"]
_BEAT_SECONDS = 10.0  # a sign of life under way may take as long
LOST = 70  # exit status of a process whose job was given to another


def job_function(name: str) -> Job:
    """The function `module:function`.

    Raises:
        ConfigError: there is none of this name.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Job = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"The job function {name!r} cannot be found: {error}.",
            hint="Set operations.queue.job to module:function.",
        ) from error
    return found


def work(
    config: Config,
    settings: QueueConfig,
    *,
    workers: int | None = None,
    once: bool = False,
    say: Callable[[str], None] | None = None,
) -> int:
    """Work the queue until interrupted; how many jobs' processes ran.

    Args:
        workers: processes side by side; `settings.workers` without it.
        once: end when no job is due and none runs.
        say: told what happens.
    """
    log = logs.get("queue")
    job_function(settings.job)
    queue = TrainingQueue(config.open_workspace(), settings)
    payload = json.dumps(
        {"config": config.model_dump_json(), "queue": settings.model_dump_json(), "path": sys.path}
    ).encode()
    most = workers or settings.workers
    running: list[subprocess.Popen[bytes]] = []
    started = 0
    try:
        while True:
            running = [child for child in running if child.poll() is None]
            due = 0
            try:
                due = queue.counts()["due"]
            except QueueError as error:  # the database may come back
                if once:
                    raise
                log.warning("queue not reachable", error=str(error))
            if once and not due and not running:
                return started
            for _ in range(min(due, most - len(running))):
                running.append(_start(payload))
                started += 1
                if say is not None:
                    say(f"{due} due, {len(running)} of {most} workers busy")
            _wait(running, settings.poll_seconds)
    finally:
        _stop(running)


def _start(payload: bytes) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-m", "barcast.operations.queue_worker"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(payload)
        child.stdin.close()
    return child


def _wait(running: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Pause; shorter where a process ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(0.1, seconds))
        if any(child.poll() is not None for child in running):
            return


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    """Ask processes to give their jobs back; end those that do not."""
    for child in running:
        if child.poll() is None:
            child.terminate()
    until = time.monotonic() + 10
    for child in running:
        try:
            child.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class _StoppedError(BaseException):
    """SIGTERM or Ctrl-C: not an Exception, so that no job function swallows it."""


def run_one(queue: TrainingQueue, config: Config, job: Job, *, end: Callable[[int], Any] = os._exit) -> str:
    """Claim a job and run it in this process.

    Args:
        end: called with `LOST` from another thread when the job is no longer ours; it must end the process.

    Returns:
        "idle" (no job), "done", "failed", "stopped" or "lost".
    """
    lease = queue.claim()
    if lease is None:
        return "idle"
    log = logs.get("queue").bind(symbol=lease.symbol, job=lease.id, attempt=lease.attempt)
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(queue, lease, over, end), daemon=True)
    beat.start()
    try:
        for name in THREADS:
            os.environ[name] = str(lease.cores)
        log.info("job started")
        try:
            try:
                result = job(config, lease)
            finally:
                over.set()  # a sign of life after the row is closed would find the job no longer ours
        except (_StoppedError, KeyboardInterrupt):
            queue.release(lease)
            return "stopped"
        except Exception as error:
            text = str(error) if isinstance(error, BarcastError) else f"{type(error).__name__}: {error}"
            log.warning("job failed", error=text)
            queue.fail(lease, text)
            return "failed"
        queue.complete(lease, result)
        log.info("job done")
        return "done"
    except LeaseLostError as error:
        log.warning("job lost", error=str(error))
        return "lost"
    finally:
        over.set()
        # A thread that the interpreter's end finds inside the database would keep locks that the end itself needs.
        beat.join(_BEAT_SECONDS)
        lease.unlock()


def _beat(queue: TrainingQueue, lease: Lease, over: threading.Event, end: Callable[[int], Any]) -> None:
    settings = queue.config
    last = time.monotonic()
    while not over.wait(settings.heartbeat_seconds):
        asked = time.monotonic()
        try:
            queue.heartbeat(lease)
            last = asked
        except LeaseLostError:
            if not over.is_set():
                end(LOST)
            return
        except QueueError as error:
            logs.get("queue").warning("no sign of life could be given", error=str(error))
        # Without an answer for a whole lease the job may already be another's.
        if time.monotonic() - last > settings.lease_seconds and not over.is_set():
            end(LOST)
            return


def _wake_main_thread() -> None:
    """Have the first signal reach the main thread, whichever thread the kernel gave it to.

    Python runs handlers in the main thread only. A process that has just been resumed (SIGCONT) gets a SIGTERM in
    any of its threads; the main one then sleeps on in its system call and never hears of it.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def pass_on() -> None:
        signal.pthread_kill(main_thread, os.read(reader, 1)[0])

    threading.Thread(target=pass_on, daemon=True).start()


def main() -> int:
    """`python -m barcast.operations.queue_worker`: the process of one job; reads its settings from standard input."""

    told = False

    def stop(*_: object) -> None:
        nonlocal told
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the job is being given back: once is enough
        if not told:  # the same signal, passed on, may have come before it was ignored
            told = True
            raise _StoppedError

    try:
        _wake_main_thread()
        signal.signal(signal.SIGTERM, stop)
        given = json.load(sys.stdin)
        sys.path[:] = given["path"]
        config = Config.model_validate_json(given["config"])
        settings = QueueConfig.model_validate_json(given["queue"])
        ended = run_one(TrainingQueue(config.open_workspace(), settings), config, job_function(settings.job))
    except _StoppedError:
        return 143
    except BarcastError as error:
        print(f"barcast: {error}", file=sys.stderr)
        return error.exit_code
    return LOST if ended == "lost" else 0


if __name__ == "__main__":
    sys.exit(main())

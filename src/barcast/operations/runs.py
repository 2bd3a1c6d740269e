"""Pipeline runs on this machine: one at a time per workspace, each in its own folder, watched as it goes.

`<workspace>/runs/<run id>/` holds arguments.json, steps.jsonl (written by the steps), kfp.log, outcome.json.
A run is a child process; killed at any moment, the next run starts again and finds what finished steps stored.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast import clock
from barcast.config import Config
from barcast.errors import BarcastError, RefusedError
from barcast.workspace import Workspace


class RunFailedError(BarcastError):
    """A step failed; message and exit code are the step's own."""

    def __init__(self, message: str, *, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Event:
    """One line of steps.jsonl."""

    step: str
    event: str
    text: str
    more: dict[str, Any]


def new_run_id(pipeline: str) -> str:
    """A name that sorts by time: `training-20260102-030405-123456`."""
    return f"{pipeline}-{clock.now():%Y%m%d-%H%M%S-%f}"


def run_pipeline(config: Config, pipeline: str, run_id: str, **arguments: Any) -> Iterator[Event]:
    """Run a compiled pipeline here and yield what its steps report.

    Args:
        config: handed to every step.
        pipeline: `training`, `promotion`, …
        run_id: from `new_run_id`.
        arguments: the pipeline's further parameters.

    Raises:
        RefusedError: another run of the workspace is still going on.
        RunFailedError: a step failed.
    """
    workspace = config.open_workspace()
    folder = workspace.runs / run_id
    folder.mkdir(parents=True)
    lock = _lock(workspace)
    (folder / "arguments.json").write_text(
        json.dumps({"config": config.model_dump_json(), "run_id": run_id, **arguments})
    )
    with (folder / "kfp.log").open("w") as log:
        # The child inherits the lock's descriptor: an orphaned run still holds it.
        child = subprocess.Popen(
            [sys.executable, "-m", "barcast.adapters.kubeflow", pipeline, str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
        )
    os.close(lock)
    failure: Event | None = None
    try:
        for event in _follow(folder / "steps.jsonl", child):
            if event.event == "failed" and failure is None:
                failure = event
            yield event
    finally:
        if child.poll() is None:
            os.killpg(child.pid, 15)
            child.wait()
    if child.returncode or failure:
        raise _failed(folder, failure)


def _failed(folder: Path, failure: Event | None) -> RunFailedError:
    if failure is None:
        tail = "\n".join((folder / "kfp.log").read_text().strip().splitlines()[-5:])
        return RunFailedError(
            f"The run stopped before any step could say why:\n{tail}",
            hint=f"The whole log is {folder / 'kfp.log'}.",
            exit_code=1,
        )
    return RunFailedError(
        f"Step {failure.step}: {failure.text}",
        hint=failure.more.get("hint") or f"The whole log is {folder / 'kfp.log'}.",
        exit_code=int(failure.more.get("exit_code", 1)),
    )


def _lock(workspace: Workspace) -> int:
    path = workspace.root / "run.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError(
            f"A run of workspace {workspace.name!r} is still going on.",
            hint="Wait for it (`barcast status`), or use another workspace.",
        ) from None
    return descriptor


def _follow(path: Path, child: subprocess.Popen[bytes]) -> Iterator[Event]:
    position = 0
    while True:
        ended = child.poll() is not None
        if path.exists():
            with path.open() as file:
                file.seek(position)
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    position = file.tell()
                    fields = json.loads(line)
                    yield Event(fields.pop("step"), fields.pop("event"), fields.pop("text"), fields)
        if ended:
            return
        time.sleep(0.1)


def outcome(config: Config, run_id: str) -> dict[str, Any]:
    """How a run ended, as its exit step wrote it; empty when it never came so far."""
    path = config.open_workspace().runs / run_id / "outcome.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def latest(config: Config) -> list[dict[str, Any]]:
    """All runs of the workspace, newest first: id, state and report."""
    folder = config.open_workspace().runs
    ids = sorted((path.name for path in folder.glob("*-*") if path.is_dir()), key=lambda i: i.split("-")[1:])
    return [{"run_id": i, **(outcome(config, i) or {"state": "UNFINISHED"})} for i in reversed(ids)]

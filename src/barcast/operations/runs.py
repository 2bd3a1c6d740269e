"""Pipeline runs on this machine: one at a time per workspace, each in its own folder, watched as it goes.

`<workspace>/runs/<run id>/` holds arguments.json, steps.jsonl (written by the steps), kfp.log, outcome.json.
A run is a child process; killed at any moment, the next run starts again and finds what finished steps stored.
Promotions take no turn: the registry lets one change of what is live follow the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast import clock
from barcast.config import Config
from barcast.errors import BarcastError, ConfigError, RefusedError, did_you_mean
from barcast.wording import state_of_run
from barcast.workspace import Workspace

RUN_FOLDER = "BARCAST_RUN_FOLDER"  # names the run's folder to the steps of a run on this machine
_SIDE_BY_SIDE = ("promotion",)
_PATIENCE_SECONDS = 10.0


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


def first_line(text: str) -> str:
    """What a step said when it failed, for a place that has one line."""
    return text.strip().partition("\n")[0]


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
        ConfigError: there is no such pipeline, it has no such parameter, a value that no step could take, or a
            feature store that cannot be read.
        RefusedError: another run of the workspace is still going on.
        RunFailedError: a step failed, or the run was cancelled.
    """
    from barcast.adapters.kubeflow import check_arguments, check_models

    check_arguments(pipeline, arguments)
    check_models(config, arguments.get("models", ""))
    workspace = config.open_workspace()
    if config.feast.feature_store_yaml is not None:
        from barcast.adapters.feast_config import repo_config

        repo_config(workspace, config)  # refused now, not by the fifth step
    workspace.root.mkdir(parents=True, exist_ok=True)
    locks = [] if pipeline in _SIDE_BY_SIDE else [_lock(workspace)]
    folder = workspace.runs / run_id
    try:
        folder.mkdir(parents=True)
        (folder / "arguments.json").write_text(
            json.dumps({"config": config.model_dump_json(), "run_id": run_id, **arguments})
        )
        with (folder / "kfp.log").open("w") as log:
            # The child inherits the lock's descriptor: an orphaned run still holds it.
            child = subprocess.Popen(
                [sys.executable, "-m", "barcast.adapters.kubeflow", pipeline, str(folder)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, RUN_FOLDER: str(folder)},
                pass_fds=locks,
                start_new_session=True,
            )
    finally:  # a full disk must not leave the turn with a scheduler that lives on
        for lock in locks:
            os.close(lock)
    (folder / "pid").write_text(str(child.pid))
    failure: Event | None = None
    try:
        for event in _follow(folder / "steps.jsonl", lambda: child.poll() is not None):
            if event.event == "failed" and failure is None:
                failure = event
            yield event
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            _close(folder, "CANCELED", f"the command that started it was stopped{_during(folder)}")
    if child.returncode or failure:
        _close(folder, "FAILED", _said(folder, failure))
    else:
        _close(folder, "SUCCEEDED")
    if child.returncode or failure:
        raise _failed(folder, failure)


def _said(folder: Path, failure: Event | None) -> str:
    """Why a run failed, in one line."""
    if failure is not None:
        return f"{failure.step}: {first_line(failure.text)}"
    return f"stopped before any step could say why; see {folder / 'kfp.log'}"


def _during(folder: Path) -> str:
    """Which step goes on, as the end of a sentence; empty between two steps."""
    going: list[str] = []
    for line in read_steps(folder):
        if line["event"] == "started":
            going.append(line["step"])
        elif line["event"] in ("done", "failed") and line["step"] in going:
            going.remove(line["step"])
    return f", during {going[-1]}" if going else ""


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """What the steps of a run reported so far; nothing when none began. A line still being written is left out."""
    path = folder / "steps.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _close(folder: Path, state: str, error: str = "") -> None:
    """Write how the run ended and why, where neither its exit step nor a cancellation did."""
    if not (folder / "outcome.json").exists():
        temporary = folder / ".outcome.json"
        temporary.write_text(json.dumps({"state": state, "ended": clock.now().isoformat(), "error": error}))
        temporary.replace(folder / "outcome.json")


def _failed(folder: Path, failure: Event | None) -> RunFailedError:
    if json.loads((folder / "outcome.json").read_text())["state"] == "CANCELED":
        return RunFailedError(f"Run {folder.name} was cancelled.", hint="", exit_code=130)
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


def _follow(path: Path, ended_now: Callable[[], bool]) -> Iterator[Event]:
    position = 0
    while True:
        ended = ended_now()
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


def standing(config: Config, run_id: str) -> dict[str, Any]:
    """How a run stands: how it ended, else RUNNING, else UNFINISHED where its process was killed."""
    if found := outcome(config, run_id):
        return found
    if alive(config, run_id):
        return {"state": "RUNNING"}
    during = _during(config.open_workspace().runs / run_id)
    return {"state": "UNFINISHED", "error": f"its process was killed{during}"}


def latest(config: Config) -> list[dict[str, Any]]:
    """All runs of the workspace, newest first: id and how each stands, with error and report where there are."""
    return [{"run_id": name, **standing(config, name)} for name in reversed(_known(config))]


def find(config: Config, run_id: str | None = None) -> str:
    """The run of this id; the newest where none is given.

    Raises:
        ConfigError: there is none.
    """
    known = _known(config)
    if not known:
        raise ConfigError(f"Workspace {config.workspace!r} has no runs yet.", hint="Start one: barcast run.")
    if run_id is not None and run_id not in known:
        raise ConfigError(
            f"Workspace {config.workspace!r} has no run {run_id!r}.",
            hint=did_you_mean(run_id, known) or "See: barcast runs list.",
        )
    return run_id or known[-1]


def _known(config: Config) -> list[str]:
    found = config.open_workspace().runs.glob("*/arguments.json")
    return sorted((path.parent.name for path in found), key=lambda name: name.split("-")[1:])


def alive(config: Config, run_id: str) -> bool:
    """Whether the run's process lives."""
    return _process(config.open_workspace().runs / run_id) is not None


def _process(folder: Path) -> int | None:
    """The run's process; None once it ended (its number may be another's by then)."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text())
        if str(folder) in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return pid
    return None


def watch(config: Config, run_id: str) -> Iterator[Event]:
    """What the steps of a run reported so far and go on to report, until it ends."""
    folder = config.open_workspace().runs / find(config, run_id)
    yield from _follow(folder / "steps.jsonl", lambda: _process(folder) is None)


def cancel(config: Config, run_id: str) -> None:
    """End a run and every step of it.

    Raises:
        RefusedError: it has ended already.
    """
    folder = config.open_workspace().runs / find(config, run_id)
    pid = _process(folder)
    if pid is None:
        state = state_of_run(outcome(config, folder.name).get("state", "unfinished"))
        raise RefusedError(
            f"Run {folder.name} does not go on: it is {state}.", hint="See: barcast runs list."
        )
    _close(folder, "CANCELED", f"by barcast runs cancel{_during(folder)}")
    until = time.monotonic() + _PATIENCE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
        while _process(folder) is not None and time.monotonic() < until:
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)  # steps that outlived it


def arguments_of(config: Config, run_id: str) -> tuple[str, Config, dict[str, Any]]:
    """What starts the same run again: its pipeline, the configuration it had, its further parameters."""
    name = find(config, run_id)
    given = json.loads((config.open_workspace().runs / name / "arguments.json").read_text())
    del given["run_id"]
    return name.partition("-")[0], Config.model_validate_json(given.pop("config")), given

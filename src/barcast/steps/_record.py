"""What every step shares: the parsed configuration, the workspace, and a line of progress per event.

On one machine `<workspace>/runs/<run id>/steps.jsonl` gets a line when a step starts, ends or fails; `barcast run`
names that folder in BARCAST_RUN_FOLDER and shows the lines as they come. On the cluster there is no such folder: a
step prints its lines into the pod's log and works in a temporary folder, so that no step can lean on another's.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from barcast import clock, logs
from barcast.config import Config
from barcast.errors import BarcastError
from barcast.operations.runs import RUN_FOLDER
from barcast.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Run:
    """One pipeline run as a step sees it.

    Attributes:
        key: the run's name; for a step whose result is cached, the content hash of the data that it sees.
    """

    config: Config
    workspace: Workspace
    key: str
    step: str

    @functools.cached_property
    def folder(self) -> Path:
        """This machine's folder of the run; on the cluster a temporary one, which ends with the pod."""
        given = os.environ.get(RUN_FOLDER)
        return Path(given) if given else Path(tempfile.mkdtemp(prefix="barcast-step-"))

    @property
    def local(self) -> bool:
        """Whether the run belongs to this machine alone."""
        return RUN_FOLDER in os.environ

    def event(self, kind: str, text: str = "", **more: Any) -> None:
        """Append one line: `started`, `note`, `done` or `failed`."""
        line = json.dumps(
            {"time": clock.now().isoformat(), "step": self.step, "event": kind, "text": text, **more}
        )
        if not self.local:
            print(line, flush=True)
            return
        with (self.folder / "steps.jsonl").open("a") as file:
            file.write(line + "\n")

    def note(self, text: str) -> None:
        """What a person watching the run wants to know about this step, in a few words."""
        self.event("note", text)


def step(function: Callable[Concatenate[Run, P], R]) -> Callable[Concatenate[str, str, P], R]:
    """Turn `function(run, ...)` into what a component calls: `function(config_json, run_id or data, ...)`."""

    def call(config: str, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        parsed = Config.model_validate_json(config)
        run = Run(parsed, parsed.open_workspace(), key, function.__name__)
        run.event("started")
        try:
            with logs.bound(run=run.folder.name if run.local else run.key, step=run.step):
                result = function(run, *args, **kwargs)
        except BaseException as error:
            hint = error.hint if isinstance(error, BarcastError) else ""
            text = error.message if isinstance(error, BarcastError) else f"{type(error).__name__}: {error}"
            code = error.exit_code if isinstance(error, BarcastError) else 1
            run.event("failed", text, hint=hint, exit_code=code, seconds=_process_seconds())
            raise
        run.event("done", seconds=_process_seconds())
        return result

    call.__doc__ = function.__doc__
    return call


def _process_seconds() -> float:
    """Seconds since this process began: a step's imports count too."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return round(time.process_time(), 1)
    started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return round(uptime - started_ticks / os.sysconf("SC_CLK_TCK"), 1)

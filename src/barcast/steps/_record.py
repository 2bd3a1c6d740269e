"""What every step shares: the parsed configuration, the workspace, and a line of progress per event.

`<workspace>/runs/<run id>/steps.jsonl` gets a line when a step starts, ends or fails; `barcast run` shows them
as they come. On the cluster that folder lives and dies with the pod, and Kubeflow shows the steps instead.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from barcast import clock, logs
from barcast.config import Config
from barcast.errors import BarcastError
from barcast.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Run:
    """One pipeline run as a step sees it."""

    config: Config
    workspace: Workspace
    run_id: str
    step: str

    @property
    def folder(self) -> Path:
        """`<workspace>/runs/<run id>`, made when first asked for."""
        folder = self.workspace.runs / self.run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def event(self, kind: str, text: str = "", **more: Any) -> None:
        """Append one line: `started`, `note`, `done` or `failed`."""
        line = {"time": clock.now().isoformat(), "step": self.step, "event": kind, "text": text, **more}
        with (self.folder / "steps.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def note(self, text: str) -> None:
        """What a person watching the run wants to know about this step, in a few words."""
        self.event("note", text)


def step(function: Callable[Concatenate[Run, P], R]) -> Callable[Concatenate[str, str, P], R]:
    """Turn `function(run, ...)` into what a component calls: `function(config_json, run_id, ...)`."""

    def call(config: str, run_id: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        parsed = Config.model_validate_json(config)
        run = Run(parsed, parsed.open_workspace(), run_id, function.__name__)
        run.event("started")
        try:
            with logs.bound(run=run_id, step=run.step):
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

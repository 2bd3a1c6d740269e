"""One version of one model on its way from START to END."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from barcast.serving.model_server.status import StatusError

if TYPE_CHECKING:
    from barcast.serving.model_server.servable import Servable


class State(IntEnum):
    """ModelVersionStatus.State of TensorFlow Serving."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Version:
    """What the life cycle knows of a version; changed only under the manager's lock."""

    def __init__(self, name: str, number: int, path: Path) -> None:
        self.name = name
        self.number = number
        self.path = path
        self.state = State.START
        self.aspired = True
        self.error: StatusError | None = None
        self.servable: Servable | None = None
        self.users = 0
        self.attempts = 0
        #: the next attempt to load, when one is due
        self.retry: Timer | None = None

    @property
    def describes_failure(self) -> str:
        """`{{name: m version: 1} due to error: NOT_FOUND: ...}`, as TensorFlow Serving reports a failed load."""
        text = f"{self.error.code.name}: {self.error.message}" if self.error else "unknown"
        return f"{{{{name: {self.name} version: {self.number}}} due to error: {text}}}"

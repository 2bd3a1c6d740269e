"""What monitoring says: readings of one thing each, grouped by model and for the whole, with alerts and actions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["critical", "warning"]
WHOLE = "workspace"  # the subject of what belongs to no single model or symbol


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reading(_Plain):
    """One measured thing.

    Attributes:
        name: what was measured; also its name in the history and the metrics.
        value: None where it could not be judged yet; `text` says why.
        bound: where it begins to be bad; None for what is only shown.
        alert: the alert that it raises, empty while all is well.
        text: in words, with units.
    """

    name: str
    value: float | None
    bound: float | None = None
    alert: str = ""
    text: str = ""


class ModelReport(_Plain):
    """One live model.

    Attributes:
        model, version, word: registered name, live version, and how a person names it (`universal`, a symbol).
        since: when this version went live.
        answers, outcomes: rows of the prediction log of this version since then, and those with a known outcome.
    """

    model: str
    version: int
    word: str
    kind: str
    since: datetime
    answers: int
    outcomes: int
    readings: tuple[Reading, ...]


class Alert(_Plain):
    """Something to look at; `docs/guides/runbook.md` has a section of the same name."""

    name: str
    severity: Severity
    subject: str
    text: str
    since: datetime


class Action(_Plain):
    """What monitoring did, or would not do.

    Attributes:
        kind: "retrain" (asked for), "recalibrate" (asked for: nothing but the probabilities is wrong), "rollback"
            (done), "waits" (a limit or a person is in the way).
    """

    at: datetime
    kind: Literal["retrain", "recalibrate", "rollback", "waits"]
    subject: str
    text: str


class Report(_Plain):
    """The whole workspace at one moment.

    Attributes:
        at: the wall clock.
        as_of: what data is judged against: the wall clock where bars come in live, else the newest bar's close.
        whole: readings of data, serving, queue, schedules, registry and disk.
        stopped: why the emergency stop is active, and who pulled it; empty while it is not.
    """

    workspace: str
    at: datetime
    as_of: datetime
    models: tuple[ModelReport, ...]
    whole: tuple[Reading, ...]
    alerts: tuple[Alert, ...]
    actions: tuple[Action, ...] = ()
    stopped: str = ""

    @property
    def readings(self) -> list[tuple[str, Reading]]:
        """All readings with what they speak of: `WHOLE`, or a model's word."""
        found = [(WHOLE, reading) for reading in self.whole]
        return found + [(model.word, reading) for model in self.models for reading in model.readings]

    @property
    def worst(self) -> str:
        """critical, warning or ok."""
        found = {alert.severity for alert in self.alerts}
        return "critical" if "critical" in found else "warning" if found else "ok"

"""The registry's state as a pure fold over the ledger: what is live, what waits, what each version went through.

No second record of these facts exists; MLflow's aliases and models.config are compared with this state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from barcast.registry.ledger import Entry
from barcast.registry.live import STABLE, Labels

# An operation moves what is live: a `begun` line before, one of these after.
COMPLETED = ("promoted", "rolled_back", "traffic", "retired")


@dataclass
class Version:
    """One registered version. `status`: registered, challenger, approved, rejected, superseded, champion,
    retired, rolled back."""

    number: int
    registered: Entry
    status: str = "registered"
    judged: Entry | None = None
    challenger: Entry | None = None
    decided: Entry | None = None
    was_champion: bool = False
    reported: Entry | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the files that were evaluated."""
        return str(self.registered.details["digest"])

    @property
    def kind(self) -> str:
        """`network`, `linear`, ..."""
        return str(self.registered.details.get("kind", ""))


@dataclass
class Model:
    """One registered model and everything decided about it."""

    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    labels: Labels = field(default_factory=dict)
    traffic: dict[str, Any] = field(default_factory=dict)
    challenger: int | None = None
    changes: list[Entry] = field(default_factory=list)

    @property
    def champion(self) -> int | None:
        """The version that answers, or None."""
        return self.labels.get(STABLE)

    @property
    def waiting(self) -> bool:
        """Whether the challenger waits for a decision."""
        return self.challenger is not None and self.versions[self.challenger].status == "challenger"

    def earlier_champion(self, *besides: int) -> int | None:
        """The latest former champion that nobody rolled back from, neither the present one nor one of `besides`."""
        skip = {self.champion, *besides}
        for change in reversed(self.changes):
            number = change.details["labels"].get(STABLE)
            if number is not None and number not in skip and self.versions[number].status != "rolled back":
                return int(number)
        return None


@dataclass
class State:
    """All models, and the operation that was begun and not completed (its process died), if any."""

    models: dict[str, Model] = field(default_factory=dict)
    pending: Entry | None = None
    alarms: list[Entry] = field(default_factory=list)

    def live(self) -> dict[str, Labels]:
        """What models.config must say."""
        return {name: dict(model.labels) for name, model in self.models.items() if model.labels}


def fold(entries: Iterable[Entry], until: datetime | None = None) -> State:
    """The state after `entries` (those up to `until`, where given)."""
    state = State()
    for entry in entries:
        if until is not None and entry.time > until:
            break
        _apply(state, entry)
    return state


def _apply(state: State, entry: Entry) -> None:
    if entry.action == "begun":
        state.pending = entry
        return
    if entry.action == "abandoned":
        state.pending = None
        return
    if entry.action == "alarm":
        state.alarms.append(entry)
        return
    if entry.action == "repaired":
        state.alarms = [alarm for alarm in state.alarms if alarm.model != entry.model]
        return
    if not entry.model:
        return
    model = state.models.setdefault(entry.model, Model(entry.model))
    if entry.action == "registered" and entry.version is not None:
        model.versions[entry.version] = Version(entry.version, entry)
        return
    version = model.versions.get(entry.version) if entry.version is not None else None
    if entry.action == "judged" and version is not None:
        version.judged = entry
    elif entry.action == "reported" and version is not None:
        version.reported = entry
    elif entry.action == "challenger" and version is not None:
        former = model.versions.get(model.challenger) if model.challenger is not None else None
        if former is not None and former is not version and former.status in ("challenger", "approved"):
            former.status = "superseded"
        model.challenger = version.number
        version.status, version.challenger, version.decided = "challenger", entry, None
    elif entry.action in ("approved", "rejected") and version is not None:
        version.status, version.decided = entry.action, entry
        if entry.action == "rejected" and model.challenger == version.number:
            model.challenger = None
    elif entry.action in COMPLETED:
        _move(state, model, version, entry)


def _move(state: State, model: Model, version: Version | None, entry: Entry) -> None:
    state.pending = None
    before = model.champion
    model.labels = {str(k): int(v) for k, v in entry.details["labels"].items()}
    model.traffic = dict(entry.details.get("traffic", {}))
    model.changes.append(entry)
    if before is not None and before != model.champion:
        gone = entry.action in ("rolled_back", "retired")
        model.versions[before].status = "rolled back" if gone else "retired"
    if model.champion is not None:
        champion = model.versions[model.champion]
        champion.status, champion.was_champion = "champion", True
    if entry.action == "promoted" and version is not None and model.challenger == version.number:
        model.challenger = None
    if before != model.champion:
        for other in model.versions.values():
            # An approval given before this change compared with a champion that is gone.
            if other.status == "approved":
                other.status = "superseded"

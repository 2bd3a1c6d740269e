"""The registry's ground: its parts, names, and the questions that change nothing."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from barcast import logs, names
from barcast.adapters.mlflow import Tracking
from barcast.config.registry import RegistryConfig
from barcast.errors import RegistryError, did_you_mean
from barcast.registry.ledger import Entry, Ledger
from barcast.registry.live import LiveModels
from barcast.registry.state import Model, State, Version, fold
from barcast.workspace import Workspace

CHAMPION, CHALLENGER = "champion", "challenger"
HEAD_TAG = "barcast.ledger_head"
log = logs.get("registry")


class Core:
    """Workspace, ledger, served folder and MLflow, and what every change does first."""

    def __init__(self, workspace: Workspace, config: Any = None, *, approval: str | None = None) -> None:
        settings = getattr(config, "registry", config)
        self.config: RegistryConfig = settings if settings is not None else RegistryConfig()
        self.approval = approval or str(getattr(config, "approval", "manual"))
        self.workspace = workspace
        self.ledger = Ledger(workspace.ledger)
        self.live = LiveModels(workspace.models, self.config.served_base_path)
        self.tracking = Tracking(
            self.config.tracking_uri or workspace.mlflow_uri,
            self.config.artifact_location
            or ("" if self.config.tracking_uri else str(workspace.mlflow_artifacts)),
            workspace.name,
            attempts=self.config.retry_attempts,
            wait_seconds=self.config.retry_wait_seconds,
            timeout_seconds=self.config.request_timeout_seconds,
        )

    def model_name(self, symbol: str | None) -> str:
        """The registered name of a symbol's own model; of the universal one for None or "universal"; "_linear" and
        "_ensemble" too."""
        if symbol is None or symbol == names.UNIVERSAL:
            return names.model_name(self.workspace.name, None)
        if symbol in (names.LINEAR, names.ENSEMBLE):
            return f"{self.workspace.name}.{symbol}"
        return names.model_name(self.workspace.name, symbol)

    def state(self, until: datetime | None = None) -> State:
        """What the ledger says now, or said at `until`.

        Raises:
            RegistryError: the ledger was tampered with.
        """
        return fold(self.ledger.read(), until)

    def model(self, state: State, symbol: str | None) -> Model:
        """The model of `symbol`.

        Raises:
            RegistryError: nothing was ever registered for it.
        """
        name = self.model_name(symbol)
        if name not in state.models:
            known = [n.partition(".")[2] for n in state.models]
            raise RegistryError(
                f"The registry of workspace {self.workspace.name!r} knows no model for "
                f"{symbol or 'universal'!r}.",
                hint=did_you_mean(symbol or "", known) or "`barcast models list` shows what is registered.",
            )
        return state.models[name]

    def version(self, model: Model, number: int) -> Version:
        """One version of `model`.

        Raises:
            RegistryError: it was never registered.
        """
        if number not in model.versions:
            raise RegistryError(
                f"{model.name} has no version {number} in the ledger.",
                hint=f"It has {', '.join(map(str, sorted(model.versions))) or 'none'}. "
                "A version made in MLflow by hand is not registered.",
            )
        return model.versions[number]

    def fingerprint_path(self, model: str, version: int) -> Path:
        """Where the recorded answer of a version lies (a dotted name: no server takes it for a version)."""
        return self.workspace.models / model / ".fingerprints" / f"{version}.json"

    @property
    def traffic_path(self) -> Path:
        """The routing policy that the prediction engine follows."""
        return self.workspace.models / "traffic.json"

    def anchor(self, model: str) -> None:
        """Keep the ledger's head in MLflow too, so that a shortened ledger is noticed."""
        head = self.ledger.head()
        if head is not None:
            self.tracking.tag_model(model, HEAD_TAG, f"{head[0]}:{head[1]}")

    @staticmethod
    def entry_dict(entry: Entry) -> dict[str, Any]:
        """A ledger line for listings."""
        return {**asdict(entry), "time": entry.time.isoformat()}


def need_person(by: str, reason: str) -> tuple[str, str]:
    """Who and why, trimmed.

    Raises:
        RegistryError: either is empty.
    """
    by, reason = by.strip(), reason.strip()
    if not by or not reason:
        raise RegistryError(
            "A decision needs who made it and why.", hint="Give --by NAME and --reason TEXT, both not empty."
        )
    return by, reason

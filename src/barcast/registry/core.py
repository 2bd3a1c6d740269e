"""The registry's ground: its parts, its one lock, the check before every change, and recovery after a death.

A change of what is live goes: `begun` line in the ledger → alias in MLflow → models.config (one rename: the
moment it takes effect) → closing line. A process that dies before the rename leaves the old champion serving;
the next change puts the alias back. One that dies after it leaves a change that is whole; the next change
writes the closing line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from barcast import logs, names
from barcast.adapters.mlflow import Tracking
from barcast.config.registry import RegistryConfig
from barcast.durable import exclusive, write_atomic
from barcast.errors import RegistryError, did_you_mean
from barcast.registry.ledger import Entry, Ledger
from barcast.registry.live import STABLE, Labels, LiveModels
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
        """The registered name of a symbol's own model; of the universal one for None or "universal";
        "_linear" too."""
        if symbol is None or symbol == names.UNIVERSAL:
            return names.model_name(self.workspace.name, None)
        if symbol == names.LINEAR:
            return names.linear_name(self.workspace.name)
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

    @contextmanager
    def change(self) -> Iterator[State]:
        """Alone in the workspace: read the ledger, finish or undo what a dead process began, then let the
        caller act."""
        with exclusive(self.workspace.root / "registry.lock", self.config.lock_timeout_seconds):
            state = self.state()
            if state.pending is not None:
                self._recover(state.pending)
                state = self.state()
            yield state

    def _recover(self, pending: Entry) -> None:
        """Close the operation that `pending` began: complete it if it had taken effect, else undo it."""
        live = self.live.read().get(pending.model, {})
        before: Labels = pending.details["before"]
        after: Labels = pending.details["after"]
        if live == after:
            self.tracking.set_alias(pending.model, CHAMPION, after.get(STABLE))
            self._close(pending, recovered=True)
        elif live == before:
            self._alias_back(pending.model, before.get(STABLE))
            self.ledger.append(
                "abandoned",
                model=pending.model,
                version=pending.version,
                by="system",
                reason=f"The process that began {pending.details['operation']} died before it took effect.",
            )
        else:
            self.alarm(pending.model, f"models.config says {live}, neither {before} nor {after}")
        log.warning("recovered", model=pending.model, operation=pending.details["operation"], live=live)

    def _alias_back(self, model: str, champion: int | None) -> None:
        if self.tracking.aliases(model).get(CHAMPION) != champion:
            self.tracking.set_alias(model, CHAMPION, champion)

    def _close(self, begun: Entry, **more: Any) -> Entry:
        details = {**begun.details["closing"], "labels": begun.details["after"], "since": begun.time, **more}
        entry = self.ledger.append(
            begun.details["operation"],
            model=begun.model,
            version=begun.version,
            by=begun.by,
            reason=begun.reason,
            details=details,
        )
        self._write_traffic()
        return entry

    def _write_traffic(self) -> None:
        policies = {name: model.traffic for name, model in self.state().models.items() if model.traffic}
        write_atomic(self.traffic_path, json.dumps(policies, indent=1, sort_keys=True))

    def move(
        self,
        state: State,
        model: Model,
        operation: str,
        after: Labels,
        *,
        version: int | None,
        by: str,
        reason: str,
        details: dict[str, Any] | None = None,
        alias_may_wait: bool = False,
    ) -> Entry:
        """Make `after` the labels of `model`: the one way in which what is live changes. Call inside
        `change`.

        Args:
            operation: the closing line's action.
            alias_may_wait: go on when MLflow is away (a rollback is urgent); the alias follows at the next
                change.

        Raises:
            RegistryError: MLflow or the disk failed; what was live before is live still.
        """
        begun = self.ledger.append(
            "begun",
            model=model.name,
            version=version,
            by=by,
            reason=reason,
            details={
                "operation": operation,
                "before": model.labels,
                "after": after,
                "closing": details or {},
            },
        )
        waits = False
        try:
            if after.get(STABLE) != model.champion:
                try:
                    self.tracking.set_alias(model.name, CHAMPION, after.get(STABLE))
                except RegistryError:
                    if not alias_may_wait:
                        raise
                    waits = True
            live = state.live()
            self.live.write({**live, model.name: after})
        except (RegistryError, OSError) as error:
            self._undo(begun, model, str(error))
            if isinstance(error, RegistryError):
                raise
            raise RegistryError(
                f"{self.live.path} could not be written: {error}; the former champion is live.",
                hint="Check the disk, then ask again.",
            ) from error
        return self._close(begun, **({"alias_waits": True} if waits else {}))

    def _undo(self, begun: Entry, model: Model, why: str) -> None:
        """Put the alias back and say so. If MLflow is away now, `begun` stays open and the next change does
        it."""
        try:
            self._alias_back(model.name, model.champion)
        except RegistryError:
            return
        self.ledger.append("abandoned", model=model.name, version=begun.version, by="system", reason=why)

    def alarm(self, model: str, problem: str) -> None:
        """Record an inconsistency once, and stop.

        Raises:
            RegistryError: always.
        """
        known = [a for a in self.state().alarms if a.model == model and a.reason == problem]
        if not known:
            self.ledger.append("alarm", model=model, by="system", reason=problem)
        log.error("alarm", model=model, problem=problem)
        raise RegistryError(
            f"{model}: {problem}. No entry of the ledger explains it, so nothing is promoted.",
            hint="Find out who did it, then `barcast models repair SYMBOL --by NAME --reason TEXT` restores "
            "what the "
            "ledger says.",
        )

    def guard(self, model: Model, state: State, *, mlflow_may_be_away: bool = False) -> None:
        """Refuse to build on a state that the ledger does not explain.

        Raises:
            RegistryError: MLflow's alias or models.config differs from the ledger (an alarm is recorded), or
                MLflow is away.
        """
        live = self.live.read()
        if live != state.live():
            wrong = sorted(n for n in {*live, *state.live()} if live.get(n) != state.live().get(n))
            name = model.name if model.name in wrong else wrong[0]
            self.alarm(name, f"models.config says {live.get(name)}, the ledger {state.live().get(name)}")
        try:
            alias = self.tracking.aliases(model.name).get(CHAMPION)
        except RegistryError:
            if mlflow_may_be_away:
                return
            raise
        if alias == model.champion:
            return
        if model.changes and model.changes[-1].details.get("alias_waits"):
            self.tracking.set_alias(model.name, CHAMPION, model.champion)
            return
        self.alarm(
            model.name, f"MLflow's alias 'champion' points at {alias}, the ledger says {model.champion}"
        )

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

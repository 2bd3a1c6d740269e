"""How what is live changes: one lock, a check before, and recovery after a death.

A change of what is live goes: `begun` line in the ledger → where a server runs, the new version is loaded
beside the old one and must give its recorded answer → alias in MLflow → models.config (one rename: the moment
it takes effect) → closing line. A process that dies before that rename leaves the old champion serving; the
next change undoes the rest. One that dies after it leaves a change that is whole; the next change writes the
closing line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from barcast.durable import exclusive, write_atomic
from barcast.errors import RegistryError
from barcast.registry import fingerprint
from barcast.registry.core import CHAMPION, Core, log
from barcast.registry.fingerprint import Ask
from barcast.registry.ledger import Entry
from barcast.registry.live import STABLE, STAGED, Labels
from barcast.registry.state import Model, State


class Changing(Core):
    """The one way in which what is live changes."""

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
        whole = self.live.read()
        live = {k: v for k, v in whole.get(pending.model, {}).items() if k != STAGED}
        before: Labels = pending.details["before"]
        after: Labels = pending.details["after"]
        if live == after:
            self.tracking.set_alias(pending.model, CHAMPION, after.get(STABLE))
            self._close(pending, recovered=True)
        elif live == before:
            self._alias_back(pending.model, before.get(STABLE))
            self.live.write({**whole, pending.model: before})
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
        ask: Ask | None = None,
    ) -> Entry:
        """Make `after` the labels of `model`: the one way in which what is live changes. Call inside `change`.

        Args:
            operation: the closing line's action.
            alias_may_wait: go on when MLflow is away (a rollback is urgent); the alias follows at the next change.
            ask: asks the running model server. The newest version of `after` is first loaded without a label
                and asked for its recorded answer: TensorFlow Serving refuses to move a label in use to a
                    version that is not loaded, and no request meets a version before it has proved itself.

        Raises:
            RegistryError: the served answer was wrong or did not come, or MLflow or the disk failed; what was
                live before is live still.
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
        more: dict[str, Any] = {}
        try:
            if ask is not None and version is not None and version in after.values():
                more["confirmed"] = self._stage(state, model, version, ask)
            if after.get(STABLE) != model.champion:
                try:
                    self.tracking.set_alias(model.name, CHAMPION, after.get(STABLE))
                except RegistryError:
                    if not alias_may_wait:
                        raise
                    more["alias_waits"] = True
            self.live.write({**state.live(), model.name: after})
        except (RegistryError, OSError) as error:
            self._undo(begun, state, model, str(error))
            if isinstance(error, RegistryError):
                raise
            raise RegistryError(
                f"{self.live.path} could not be written: {error}; the former champion is live.",
                hint="Check the disk, then ask again. On a cluster only the promotion pipeline may write there: "
                "`barcast submit promotion`, or `barcast models rollback --host URL`.",
            ) from error
        return self._close(begun, **more)

    def _stage(self, state: State, model: Model, version: int, ask: Ask) -> dict[str, float]:
        """Have the server load `version` beside what is live, and compare its answer with the recorded one."""
        if version not in model.labels.values():
            self.live.write({**state.live(), model.name: {**model.labels, STAGED: version}})
        return self.compare(model, version, ask)

    def compare(self, model: Model, version: int, ask: Ask) -> dict[str, float]:
        """Ask the server for the recorded request of a loaded version.

        Returns:
            Largest difference per output, and `seconds` to the first answer.

        Raises:
            RegistryError: no answer in time, or another one.
        """
        seal = self.version(model, version).registered.details["fingerprint_digest"]
        return fingerprint.check(
            ask,
            model.name,
            version,
            fingerprint.load(self.fingerprint_path(model.name, version), seal),
            tolerance=self.config.fingerprint_tolerance,
            timeout_seconds=self.config.fingerprint_timeout_seconds,
        )

    def _undo(self, begun: Entry, state: State, model: Model, why: str) -> None:
        """Put everything back and say so. What cannot be put back now, the next change does: `begun` stays open."""
        try:
            if self.live.read() != state.live():
                self.live.write(state.live())
            self._alias_back(model.name, model.champion)
        except (RegistryError, OSError) as error:
            log.warning("undo waits for the next change", model=model.name, error=str(error))
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
            "what the ledger says.",
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

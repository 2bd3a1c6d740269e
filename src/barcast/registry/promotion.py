"""Changes of what is live: promotion, rollback, retirement, and what a challenger gets of the traffic.

approved version → files from MLflow, hashes checked → version directory → alias, models.config, ledger →
served answer compared with the recorded one.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import Any

from barcast import clock, names
from barcast.errors import RefusedError, RegistryError
from barcast.registry.approvals import waiting
from barcast.registry.changing import Changing
from barcast.registry.core import CHALLENGER, log, need_person
from barcast.registry.fingerprint import Ask
from barcast.registry.live import PREVIOUS, STABLE, Labels
from barcast.registry.state import Model

DEGRADATION = "policy:degradation"


def place(core: Changing, model: Model, number: int) -> None:
    """Have the verified version directory of `number` stand; fetch its files from MLflow where needed.

    Raises:
        RegistryError: the stored files are not those that were registered, MLflow is away, or nothing can be written
            here.
    """
    version = core.version(model, number)
    try:
        core.live.verify(model.name, number, version.digest)
        return
    except RegistryError:
        pass  # not there yet, or damaged: make it again
    parent = core.workspace.models / model.name
    download = parent / f".download-{number}"
    shutil.rmtree(download, ignore_errors=True)
    try:
        source = core.tracking.fetch(model.name, number, "model", download)
        core.live.place(source, model.name, number, version.digest)
    except OSError as error:
        raise RegistryError(
            f"{core.live.folder} cannot be written: {error.strerror}; what was live is live still.",
            hint="Check the disk. On a cluster only the promotion pipeline may write there; it puts live what was "
            "approved (`barcast submit promotion --host URL`) or back (`barcast models rollback --host URL`).",
        ) from error
    finally:
        shutil.rmtree(download, ignore_errors=True)


def promote(
    core: Changing,
    symbol: str | None,
    version: int | None = None,
    *,
    by: str = "",
    reason: str = "",
    ask: Ask | None = None,
    run: str = "",
) -> int:
    """Serve the approved challenger. Asked again after a crash it completes; for the champion it only checks.

    Args:
        version: must be the approved one, where given.
        by, reason: default to those of the approval.
        ask: asks the running model server. The version is loaded beside the champion and must give its
            recorded answer before it takes over. Without it no server may run: it would refuse a label on a
            version that it has not loaded.
        run: the pipeline run that does it; the ledger keeps it.

    Raises:
        RegistryError: not approved, superseded, files changed, MLflow away, or a wrong served answer.
    """
    with core.change() as state:
        model = core.model(state, symbol)
        core.guard(model, state)
        number = version if version is not None else model.challenger
        if number is not None and number == model.champion:
            place(core, model, number)
            if ask is not None:
                core.compare(model, number, ask)
        else:
            candidate = waiting(core, model, number)
            number = candidate.number
            if candidate.status != "approved" or candidate.decided is None:
                raise RegistryError(
                    f"{model.name} version {number} waits for approval; it is not served before.",
                    hint="`barcast models approve SYMBOL --by NAME --reason TEXT`.",
                )
            place(core, model, number)
            labels: Labels = {STABLE: number}
            if core.config.keep_previous and model.champion is not None:
                labels[PREVIOUS] = model.champion
            core.move(
                state,
                model,
                "promoted",
                labels,
                version=number,
                by=by or candidate.decided.by,
                reason=reason or candidate.decided.reason,
                details={"from": model.champion, "approved_by": candidate.decided.by, "run": run},
                ask=ask,
            )
            if core.tracking.aliases(model.name).get(CHALLENGER) == number:
                core.tracking.set_alias(model.name, CHALLENGER, None)
            core.anchor(model.name)
    return number


def confirm(core: Changing, symbol: str | None, number: int, ask: Ask) -> dict[str, float]:
    """Ask the server for the recorded request of a live version and compare; the result goes into the ledger.

    Returns:
        Largest difference per output, and `seconds` to the first answer.

    Raises:
        RegistryError: no answer, or a different one.
    """
    model = core.model(core.state(), symbol)
    try:
        result = core.compare(model, number, ask)
    except RegistryError as error:
        core.ledger.append("unconfirmed", model=model.name, version=number, by="system", reason=str(error))
        raise
    core.ledger.append("confirmed", model=model.name, version=number, by="system", details=result)
    return result


def rollback(
    core: Changing,
    symbol: str | None,
    to_version: int | None = None,
    *,
    by: str,
    reason: str,
    ask: Ask | None = None,
    away_from: int | None = None,
) -> int:
    """Serve an earlier good version again: `to_version`, or the champion before the present one.

    Works while MLflow is away if the version's directory stands; the alias follows later.

    Args:
        away_from: the version to take back; where another one answers by now, nothing changes and that one is returned.

    Raises:
        RegistryError: there is no such earlier champion, its files are damaged and cannot be restored, or the
            served answer is not the recorded one.
    """
    by, reason = need_person(by, reason)
    with core.change() as state:
        model = core.model(state, symbol)
        core.guard(model, state, mlflow_may_be_away=True)
        if away_from is not None and model.champion not in (away_from, None):
            return int(model.champion)
        target = _rollback_target(core, model, symbol, to_version)
        place(core, model, target)
        labels: Labels = {STABLE: target}
        older = model.earlier_champion(target)
        if core.config.keep_previous and older is not None:
            labels[PREVIOUS] = older
        core.move(
            state,
            model,
            "rolled_back",
            labels,
            version=target,
            by=by,
            reason=reason,
            details={"from": model.champion},
            alias_may_wait=True,
            ask=ask,
        )
    return target


def _rollback_target(core: Changing, model: Model, symbol: str | None, to_version: int | None) -> int:
    target = to_version if to_version is not None else model.earlier_champion()
    if target is None and model.champion is None:
        former = max((v.number for v in model.versions.values() if v.was_champion), default=None)
        raise RegistryError(
            f"{model.name} is not live, so there is nothing to take back.",
            hint="`barcast models list` shows what is live."
            if former is None
            else f"`barcast models rollback {symbol or names.UNIVERSAL} --to {former}` serves it again.",
        )
    if target is None:
        behind = (
            f"`barcast models retire {symbol or names.UNIVERSAL}` lets what stands behind it answer instead."
        )
        if symbol == names.LINEAR:
            behind = "Nothing stands behind the baseline; a new version of it comes with the next run."
        raise RegistryError(
            f"{model.name} has no earlier good version to go back to.",
            hint=behind,
        )
    version = core.version(model, target)
    if target == model.champion:
        raise RegistryError(f"{model.name} version {target} is live already.", hint="Name another with --to.")
    if not version.was_champion:
        raise RegistryError(
            f"{model.name} version {target} never served; a rollback goes to a version that did.",
            hint="A challenger is served after `barcast models approve`.",
        )
    return target


def rollback_automatically(
    core: Changing,
    symbol: str | None,
    *,
    reason: str,
    evidence: dict[str, Any] | None = None,
    ask: Ask | None = None,
    version: int | None = None,
) -> int | None:
    """Rollback by policy, on degradation. Without an earlier good version the symbol's own model is retired.

    Args:
        version: the one that the evidence is about; where another one answers by now (a person or a pipeline was
            quicker), nothing changes. The present one, where not given.

    Returns:
        The version that answers now; None when the model was retired.

    Raises:
        RefusedError: the policy already rolled this model back as often as it may in a day; a person must look.
    """
    model = core.model(core.state(), symbol)
    version = version or model.champion
    if model.champion != version:
        return model.champion
    since = clock.now() - timedelta(days=1)
    recent = [e for e in model.changes if e.by == DEGRADATION and e.time > since]
    if len(recent) >= core.config.automatic_rollbacks_per_day:
        raise RefusedError(
            f"{model.name} was rolled back by policy {len(recent)} times in 24 hours; the limit is "
            f"{core.config.automatic_rollbacks_per_day}.",
            hint="The fault is probably not in the model. A person decides with `barcast models rollback`.",
        )
    core.ledger.append(
        "degraded",
        model=model.name,
        version=model.champion,
        by=DEGRADATION,
        reason=reason,
        details=evidence or {},
    )
    if model.earlier_champion() is not None:
        return rollback(core, symbol, by=DEGRADATION, reason=reason, ask=ask, away_from=version)
    if model.name == core.model_name(None):
        raise RefusedError(
            f"{model.name} has no earlier good version, and nothing stands behind the universal model but "
            f"the baseline.",
            hint="Look at it now: `barcast models history universal`.",
        )
    retire(core, symbol, by=DEGRADATION, reason=reason)
    return None


def retire(core: Changing, symbol: str | None, *, by: str, reason: str) -> None:
    """Take the model out of service; the universal model answers for the symbol then.

    Raises:
        RegistryError: it is not live.
    """
    by, reason = need_person(by, reason)
    with core.change() as state:
        model = core.model(state, symbol)
        core.guard(model, state, mlflow_may_be_away=True)
        if model.champion is None:
            raise RegistryError(f"{model.name} is not live.", hint="`barcast models list` shows what is.")
        core.move(
            state,
            model,
            "retired",
            {},
            version=model.champion,
            by=by,
            reason=reason,
            details={"from": model.champion},
            alias_may_wait=True,
        )
    log.warning("retired", model=model.name, by=by, reason=reason)

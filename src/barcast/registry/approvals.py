"""Verdicts and decisions: a version is judged, becomes the challenger, and is approved or rejected.

An approval holds for exactly one version, against exactly the champion that its evidence compared it with.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from barcast import names
from barcast.adapters.mlflow import EVIDENCE_PATH, JUDGED_PATH
from barcast.errors import RefusedError, RegistryError
from barcast.registry.changing import Changing
from barcast.registry.core import CHALLENGER, need_person
from barcast.registry.state import Model, Version

POLICY = "policy:automatic"
REPORT = "report.html"


def judge(core: Changing, symbol: str | None, version: int, verdict: Any, by: str = "gate") -> None:
    """Record the gate's verdict: an object or mapping with `outcome` (promote, keep, hold), `reasons`,
    `numbers`, `days_to_decide`.

    Raises:
        RegistryError: the version is not registered, or the outcome is unknown.
    """

    def part(name: str, default: Any) -> Any:
        return verdict.get(name, default) if isinstance(verdict, Mapping) else getattr(verdict, name, default)

    outcome = str(getattr(part("outcome", ""), "value", part("outcome", "")))
    if outcome not in ("promote", "keep", "hold"):
        raise RegistryError(
            f"A verdict's outcome is {outcome!r}; promote, keep or hold was expected.",
            hint="Pass what evaluation.gate.decide returned.",
        )
    with core.change() as state:
        model = core.model(state, symbol)
        core.version(model, version)
        core.ledger.append(
            "judged",
            model=model.name,
            version=version,
            by=by,
            reason=" ".join(str(r) for r in part("reasons", ())),
            details={
                "outcome": outcome,
                "reasons": [str(r) for r in part("reasons", ())],
                "numbers": dict(part("numbers", {})),
                "checks": [_check(c) for c in part("checks", ())],
                "days_to_decide": part("days_to_decide", None),
                "spent": part("spent", 0.0),
                "candidate": str(part("candidate", "") or ""),
                "incumbent": str(part("incumbent", "") or ""),
                "champion": model.champion,
            },
        )
    core.tracking.tag_version(model.name, version, {"barcast.verdict": outcome})


def keep_report(core: Changing, symbol: str | None, version: int, report: Path, by: str = "gate") -> None:
    """Put the run's report, the verdicts in it, beside the version's files; the one of its registration stays.

    Raises:
        RegistryError: the version is not registered, or MLflow is away.
    """
    model = core.model(core.state(), symbol)
    core.version(model, version)
    content = report.read_bytes()
    with tempfile.TemporaryDirectory(prefix="barcast-report-") as folder:
        named = Path(folder) / REPORT
        named.write_bytes(content)
        core.tracking.add_file(model.name, version, named, JUDGED_PATH)
    details = {"digest": hashlib.sha256(content).hexdigest()}
    core.ledger.append("reported", model=model.name, version=version, by=by, details=details)


def report_of(core: Changing, symbol: str | None, version: int, folder: Path) -> Path:
    """The newest report of a version, fetched into `folder`: with the gate's verdicts, else that of its registration.

    Raises:
        RegistryError: there is none, or it is not the one that was kept.
    """
    model = core.model(core.state(), symbol)
    kept = core.version(model, version).reported
    if kept is None:
        found = core.tracking.fetch(model.name, version, EVIDENCE_PATH, folder) / REPORT
        if not found.is_file():
            raise RegistryError(
                f"Version {version} of {model.name} carries no report.", hint="Its card says more."
            )
        return found
    found = core.tracking.fetch(model.name, version, JUDGED_PATH, folder) / REPORT
    if not found.is_file() or hashlib.sha256(found.read_bytes()).hexdigest() != kept.details["digest"]:
        raise RegistryError(
            f"The report of version {version} of {model.name} is not the one that was kept.",
            hint="Somebody changed it in MLflow's files.",
        )
    return found


def _check(check: Any) -> dict[str, Any]:
    fields = check if isinstance(check, Mapping) else vars(check)
    return {name: fields.get(name) for name in ("name", "passed", "detail", "on_failure")}


def set_challenger(core: Changing, symbol: str | None, version: int, by: str = "pipeline") -> None:
    """Let `version` wait for approval as the challenger; a challenger that waited before is superseded.

    Raises:
        RefusedError: the gate has not judged it, or said keep.
        RegistryError: the version is unknown or already decided, or MLflow is away.
    """
    with core.change() as state:
        model = core.model(state, symbol)
        candidate = core.version(model, version)
        if candidate.judged is None or candidate.judged.details["outcome"] == "keep":
            said = "has not judged it" if candidate.judged is None else "keeps the incumbent"
            raise RefusedError(
                f"{model.name} version {version} cannot become the challenger: the gate {said}.",
                hint="Only a verdict of promote or hold makes a challenger.",
            )
        if candidate.status not in ("registered", "challenger", "superseded"):
            raise RegistryError(
                f"{model.name} version {version} is {candidate.status} already.",
                hint="Register a new version.",
            )
        core.guard(model, state)
        core.tracking.set_alias(model.name, CHALLENGER, version)
        core.ledger.append(
            "challenger", model=model.name, version=version, by=by, details={"champion": model.champion}
        )


def waiting(core: Changing, model: Model, version: int | None) -> Version:
    """The challenger that a decision speaks of.

    Raises:
        RegistryError: nothing waits, or not this version, or the champion changed since it was evaluated.
    """
    number = version if version is not None else model.challenger
    if number is None:
        raise RegistryError(
            f"{model.name} has no challenger.", hint="`barcast models list` shows what waits."
        )
    candidate = core.version(model, number)
    compared = candidate.challenger.details.get("champion") if candidate.challenger else None
    if candidate.status in ("challenger", "approved", "superseded") and compared != model.champion:
        raise RegistryError(
            f"{model.name} version {number} was evaluated against champion {compared}, but version "
            f"{model.champion} is live now: the evidence is superseded.",
            hint="Run the pipeline again, so that it is compared with what answers now.",
        )
    if candidate.status == "superseded" or (candidate.status == "challenger" and model.challenger != number):
        raise RegistryError(
            f"{model.name} version {number} was superseded by version {model.challenger or model.champion}; "
            "its approval is void.",
            hint="Decide on the version that waits now (`barcast models list`).",
        )
    if candidate.status == "registered" and candidate.judged is not None:
        raise RegistryError(
            f"The gate said {candidate.judged.details['outcome']!r} of {model.name} version {number}: it does not wait "
            "for a decision.",
            hint=f"`barcast models show {names.word_of(model.name)} --version {number}` says why.",
        )
    if candidate.status not in ("challenger", "approved"):
        raise RegistryError(
            f"{model.name} version {number} is {candidate.status}, not waiting for a decision.",
            hint=f"`barcast models history {names.word_of(model.name)}` says who decided.",
        )
    return candidate


def approve(core: Changing, symbol: str | None, by: str, reason: str, version: int | None = None) -> int:
    """Approve the challenger (of number `version`, where given); `promote` then serves exactly it.

    Raises:
        RegistryError: nothing waits, it was superseded or decided already, or the registry is inconsistent.
    """
    by, reason = need_person(by, reason)
    with core.change() as state:
        model = core.model(state, symbol)
        candidate = waiting(core, model, version)
        if candidate.status == "approved":
            return candidate.number
        core.guard(model, state)
        core.ledger.append(
            "approved",
            model=model.name,
            version=candidate.number,
            by=by,
            reason=reason,
            details={"digest": candidate.digest, "champion": model.champion},
        )
    return candidate.number


def approve_automatically(core: Changing, symbol: str | None, version: int | None = None) -> int:
    """Approve by the policy written in the configuration: `approval: automatic`, and the gate said promote.

    Raises:
        RefusedError: the policy asks for a person.
    """
    model = core.model(core.state(), symbol)
    candidate = waiting(core, model, version)
    outcome = candidate.judged.details["outcome"] if candidate.judged else "not judged"
    if core.approval != "automatic" or outcome != "promote":
        raise RefusedError(
            f"{model.name} version {candidate.number} waits for a person (approval: {core.approval}, "
            f"verdict: {outcome}).",
            hint="`barcast models approve SYMBOL --by NAME --reason TEXT`.",
        )
    why = candidate.judged.reason if candidate.judged else ""
    return approve(core, symbol, POLICY, f"approval: automatic. {why}".strip(), candidate.number)


def reject(core: Changing, symbol: str | None, by: str, reason: str, version: int | None = None) -> int:
    """Reject the challenger; it is never promoted.

    Raises:
        RegistryError: nothing waits, or it was decided already.
    """
    by, reason = need_person(by, reason)
    with core.change() as state:
        model = core.model(state, symbol)
        number = version if version is not None else model.challenger
        if number is None:
            raise RegistryError(
                f"{model.name} has no challenger.", hint="`barcast models list` shows what waits."
            )
        candidate = core.version(model, number)
        if candidate.status not in ("challenger", "approved", "registered"):
            raise RegistryError(
                f"{model.name} version {number} is {candidate.status}; it cannot be rejected.",
                hint="A champion is replaced with `barcast models rollback`.",
            )
        if number == model.challenger:
            core.tracking.set_alias(model.name, CHALLENGER, None)
        core.ledger.append("rejected", model=model.name, version=number, by=by, reason=reason)
    return number

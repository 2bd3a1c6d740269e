"""Looking back and checking: who decided what served when, and whether everything on disk is what the ledger says."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from barcast import names
from barcast.errors import RegistryError
from barcast.registry import fingerprint
from barcast.registry.changing import Changing
from barcast.registry.core import CHAMPION, HEAD_TAG, need_person
from barcast.registry.ledger import Entry, Finding, Ledger
from barcast.registry.live import STABLE
from barcast.registry.promotion import place
from barcast.registry.state import Model, State, fold

_LOOKS = 3  # of a verification that changes keep coming in between
WORDS = {
    "promoted": "promotion",
    "rolled_back": "rollback",
    "retired": "retirement",
    "traffic": "traffic",
}


def effective(entry: Entry) -> datetime:
    """When a change took effect (before its closing line, if that was written by a recovery)."""
    since = entry.details.get("since")
    return datetime.fromisoformat(since) if since and entry.details.get("recovered") else entry.time


def spans(model: Model) -> list[dict[str, Any]]:
    """The model's life as spans in which one version answered, oldest first; `until` is None for the present one."""
    found: list[dict[str, Any]] = []
    for change in model.changes:
        number = change.details["labels"].get(STABLE)
        if found and found[-1]["version"] == number:
            continue  # the labels of others moved
        at = effective(change)
        if found:
            found[-1]["until"] = at
        version = model.versions.get(number) if number is not None else None
        found.append(
            {
                "model": model.name,
                "version": number,
                "kind": version.kind if version else None,
                "since": at,
                "until": None,
                "by": change.by,
                "reason": change.reason,
                "change": WORDS[change.action],
            }
        )
    return found


def served_on(core: Changing, symbol: str | None, day: date) -> list[dict[str, Any]]:
    """What answered for `symbol` on `day` (UTC) and who decided it: its own model, else the ensemble, the
    universal one, the baseline; oldest first. Empty when nothing was live."""
    start = datetime.combine(day, time.min, UTC)
    end = start + timedelta(days=1) if day < date.max else datetime.combine(day, time.max, UTC)
    state = core.state()
    answer: list[dict[str, Any]] = []
    chain = [core.model_name(word) for word in (symbol, names.ENSEMBLE, None, names.LINEAR)]
    uncovered = [(start, end)]
    for name in dict.fromkeys(chain):
        if name not in state.models:
            continue
        rest: list[tuple[datetime, datetime]] = []
        live = [s for s in spans(state.models[name]) if s["version"] is not None]
        for begin, finish in uncovered:
            at = begin
            for span in live:
                since, until = max(span["since"], at), min(span["until"] or finish, finish)
                if since >= until:
                    continue
                answer.append({**span, "served_from": since, "served_until": until})
                if since > at:
                    rest.append((at, since))
                at = until
            if at < finish:
                rest.append((at, finish))
        uncovered = rest
    return sorted(answer, key=lambda s: s["served_from"])


def history(core: Changing, symbol: str | None) -> list[Entry]:
    """Every line of the ledger about `symbol`'s model, oldest first.

    Raises:
        RegistryError: nothing was ever registered for it.
    """
    name = core.model(core.state(), symbol).name
    return [e for e in core.ledger.read() if e.model == name and e.action != "begun"]


def verify(core: Changing, *, mlflow: bool = True) -> list[Finding]:
    """Every inconsistency between ledger, models.config, version directories, recorded answers and MLflow.

    A change that goes on meanwhile would look like one: the ledger is older then than what is held against it. So
    what was found while the ledger grew is looked for again.
    """
    findings: list[Finding] = []
    for _ in range(_LOOKS):
        head = core.ledger.head()
        findings = _look(core, mlflow=mlflow)
        if not findings or core.ledger.head() == head:
            break
    return findings


def _look(core: Changing, *, mlflow: bool) -> list[Finding]:
    entries, findings = core.ledger.inspect()
    if findings:
        return findings  # nothing can be judged by a ledger that cannot be believed
    state = fold(entries)
    if state.pending is not None:
        findings.append(
            Finding(
                state.pending.model, "a change was begun and not closed; the next change closes or undoes it."
            )
        )
    try:
        live = core.live.read()
        if live != state.live() and state.pending is None:
            findings.append(Finding("models.config", f"says {live}, the ledger {state.live()}."))
    except RegistryError as error:
        findings.append(Finding("models.config", error.message))
    for model in state.models.values():
        findings.extend(_verify_files(core, model))
        if mlflow:
            findings.extend(_verify_mlflow(core, model, entries, state))
    return findings


def _verify_files(core: Changing, model: Model) -> list[Finding]:
    findings = []
    for number, version in model.versions.items():
        directory = core.live.directory(model.name, number)
        if directory.exists() or number in model.labels.values():
            try:
                core.live.verify(model.name, number, version.digest)
            except RegistryError as error:
                findings.append(Finding(f"{model.name} version {number}", error.message))
        try:
            seal = version.registered.details["fingerprint_digest"]
            fingerprint.load(core.fingerprint_path(model.name, number), seal)
        except RegistryError as error:
            findings.append(Finding(f"{model.name} version {number}", error.message))
    folder = core.workspace.models / model.name
    for item in folder.iterdir() if folder.exists() else ():
        if item.name.isdigit() and int(item.name) not in model.versions:
            findings.append(Finding(str(item), "is a version directory that was never registered."))
    return findings


def _verify_mlflow(core: Changing, model: Model, entries: list[Entry], state: State) -> list[Finding]:
    try:
        aliases = core.tracking.aliases(model.name)
        numbers = core.tracking.versions(model.name)
        tag = core.tracking.model_tags(model.name).get(HEAD_TAG, "")
        gone = [n for n in numbers if n in model.versions and not core.tracking.holds(model.name, n)]
    except RegistryError as error:
        return [Finding("MLflow", error.message)]
    findings = []
    waits = bool(model.changes) and bool(model.changes[-1].details.get("alias_waits"))
    if aliases.get(CHAMPION) != model.champion and not waits and state.pending is None:
        findings.append(
            Finding(
                model.name,
                f"MLflow's alias 'champion' points at {aliases.get(CHAMPION)}, the ledger says "
                f"{model.champion}.",
            )
        )
    for number in sorted(set(numbers) ^ set(model.versions)):
        where = "MLflow, not in the ledger" if number in numbers else "the ledger, not in MLflow"
        findings.append(Finding(f"{model.name} version {number}", f"is known to {where}."))
    findings.extend(
        Finding(f"{model.name} version {n}", "its stored files are gone from MLflow; only a backup has them.")
        for n in gone
    )
    if tag:
        number_text, _, digest = tag.partition(":")
        findings.extend(
            Ledger.check_anchor(entries, (int(number_text), digest), f"MLflow's tag on {model.name}")
        )
    return findings


def repair(core: Changing, symbol: str | None, *, by: str, reason: str) -> list[str]:
    """Restore what the ledger says for `symbol`'s model: version directories, models.config, alias.

    Returns:
        What was restored, in words.

    Raises:
        RegistryError: the ledger itself is damaged, or MLflow is away.
    """
    by, reason = need_person(by, reason)
    done: list[str] = []
    with core.change() as state:
        model = core.model(state, symbol)
        for number in sorted(set(model.labels.values())):
            try:
                core.live.verify(model.name, number, core.version(model, number).digest)
            except RegistryError:
                shutil.rmtree(core.live.folder / model.name / f".download-{number}", ignore_errors=True)
                place(core, model, number)
                done.append(f"version directory {number}")
        try:
            live = core.live.read()
        except RegistryError:
            live = {}
        if live != state.live():
            core.live.write(state.live())
            done.append("models.config")
        if core.tracking.aliases(model.name).get(CHAMPION) != model.champion:
            core.tracking.set_alias(model.name, CHAMPION, model.champion)
            done.append("alias champion")
        core.ledger.append("repaired", model=model.name, by=by, reason=reason, details={"restored": done})
    return done

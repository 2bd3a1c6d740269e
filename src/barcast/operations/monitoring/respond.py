"""What follows from alerts on models: a retraining is asked for; a harmful model is rolled back by policy.

Both are limited: a model is retrained at most once in `retrain_days`, all together `retrain_per_day` times a day, and
the registry's policy rolls a model back only so often in a day before a person must look.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from barcast import names
from barcast.errors import BarcastError
from barcast.operations import queue_facts
from barcast.operations.monitoring.collect import Collected
from barcast.operations.monitoring.history import History
from barcast.operations.monitoring.types import Action, ModelReport
from barcast.operations.queue import RECALIBRATE, TrainingQueue
from barcast.operations.queue_priority import Facts, automatic_priority
from barcast.registry.asking import server

ASKED = ("retrain", "recalibrate")
RETRAIN = ("ModelHarmful", "ConceptDrift", "CalibrationDrift", "FeatureDrift")


def respond(
    collected: Collected, reports: list[ModelReport], history: History, *, queue_all: bool
) -> list[Action]:
    """Act on the models' alerts; what was done, and what a limit kept from being done.

    Args:
        queue_all: put recalibrations into the training queue too; otherwise the caller does them (a pipeline).
    """
    done: list[Action] = []
    for report in reports:
        raised = {reading.alert for reading in report.readings if reading.alert}
        if (
            "ModelHarmful" in raised
            and collected.settings.rollback
            and not _waits(collected, report, history)
        ):
            done.append(_roll_back(collected, report))
    return done + _ask(collected, reports, history, queue_all=queue_all)


def _waits(collected: Collected, report: ModelReport, history: History) -> bool:
    """Whether policy already tried today and a person must look: the ledger is not filled with repeats."""
    since = max(collected.now - timedelta(days=1), report.since)
    return any(
        a.subject == report.word and a.text.startswith("rollback") for a in history.actions(since, ["waits"])
    )


def _roll_back(collected: Collected, report: ModelReport) -> Action:
    reading = next(r for r in report.readings if r.alert == "ModelHarmful")
    assert collected.registry is not None
    evidence = {r.name: r.value for r in report.readings if r.value is not None}
    try:
        with server(collected.config.serving.endpoint) as ask:
            version = collected.registry.rollback_automatically(
                report.word,
                reason=f"monitoring: {reading.text}",
                evidence=evidence,
                ask=ask,
                version=report.version,
            )
    except BarcastError as error:
        return Action(at=collected.now, kind="waits", subject=report.word, text=f"rollback: {error}")
    live = (
        f"version {version} answers again"
        if version is not None
        else "retired; the model of all symbols answers"
    )
    return Action(
        at=collected.now,
        kind="rollback",
        subject=report.word,
        text=f"version {report.version} rolled back, {live}: {reading.text}",
    )


@dataclass(frozen=True)
class _Wish:
    """A training that something asks for."""

    kind: Literal["retrain", "recalibrate"]
    why: str
    drift: float | None = None


def _wishes(collected: Collected, reports: list[ModelReport]) -> dict[str, _Wish]:
    """By model: degraded ones, and symbols with bars enough and no model of their own."""
    found = dict.fromkeys(_uncovered(collected, reports), _Wish("retrain", "it has no model of its own"))
    for report in reports:
        raised = sorted({r.alert for r in report.readings if r.alert in RETRAIN})
        if raised:
            kind: Literal["retrain", "recalibrate"] = (
                "recalibrate" if raised == ["CalibrationDrift"] else "retrain"
            )
            found[report.word] = _Wish(
                kind, f"monitoring: {', '.join(raised)}", _value(report, "feature_psi")
            )
    return found


def _uncovered(collected: Collected, reports: list[ModelReport]) -> list[str]:
    """Symbols without a model of their own, where there is a universal one; not those tried lately."""
    if not collected.settings.cover or names.UNIVERSAL not in {r.word for r in reports}:
        return []
    assert collected.registry is not None
    since = collected.now - timedelta(days=collected.settings.retrain_days)
    tried = {
        names.word_of(model.name)
        for model in collected.registry.state().models.values()
        if any(v.registered.time >= since for v in model.versions.values())
    }
    rows = dict(collected.bars.group_by("symbol").len().iter_rows())
    return [s for s in queue_facts.uncovered(collected.config, rows) if s not in tried]


def _ask(
    collected: Collected, reports: list[ModelReport], history: History, *, queue_all: bool
) -> list[Action]:
    settings, now = collected.settings, collected.now
    wishes = _wishes(collected, reports)
    lately = history.actions(now - timedelta(days=settings.retrain_days), ASKED)
    told = [a for a in history.actions(now - timedelta(days=1), ["waits"]) if a.text.startswith("training")]
    known = {a.subject for a in [*lately, *told]}  # saying it again at every look would only be noise
    wishes = {word: wish for word, wish in wishes.items() if word not in known}
    if not wishes:
        return []
    today = sum(a.at >= now - timedelta(days=1) for a in lately)
    drifts = {word: wish.drift for word, wish in wishes.items() if wish.drift is not None}
    facts = queue_facts.gather(collected.config, drift=drifts)
    queue = TrainingQueue(collected.workspace, collected.config.operations.queue)
    priorities = {
        word: automatic_priority(facts.get(word, Facts(drift=drifts.get(word))), queue.config.priority)
        for word in wishes
    }
    done = []
    for word, wish in sorted(wishes.items(), key=lambda item: -priorities[item[0]]):
        if today >= settings.retrain_per_day:
            text = f"training ({wish.why}): {today} were asked for in 24 hours, the limit is {settings.retrain_per_day}"
            done.append(Action(at=now, kind="waits", subject=word, text=text))
            continue
        today += 1
        text = f"{wish.kind} asked for: {wish.why}"
        if wish.kind == "retrain" or queue_all:
            reason = wish.why if wish.kind == "retrain" else RECALIBRATE
            queue.request_training(word, priorities[word], reason=reason)
            text = f"{text} (priority {priorities[word]:.0f})"
        done.append(Action(at=now, kind=wish.kind, subject=word, text=text))
    return done


def _value(report: ModelReport, name: str) -> float | None:
    return next((r.value for r in report.readings if r.name == name), None)

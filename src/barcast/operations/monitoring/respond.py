"""What follows from alerts on models: a retraining is asked for; a harmful model is rolled back by policy.

Both are limited: a model is retrained at most once in `retrain_days`, all together `retrain_per_day` times a day, and
the registry's policy rolls a model back only so often in a day before a person must look.
"""

from __future__ import annotations

from datetime import timedelta

from barcast import names
from barcast.errors import BarcastError
from barcast.operations import queue_facts
from barcast.operations.monitoring.collect import Collected
from barcast.operations.monitoring.history import History
from barcast.operations.monitoring.types import Action, ModelReport
from barcast.operations.queue import TrainingQueue
from barcast.operations.queue_priority import Facts, automatic_priority
from barcast.registry.asking import server

RETRAIN = ("ModelHarmful", "ConceptDrift", "CalibrationDrift", "FeatureDrift")


def respond(collected: Collected, reports: list[ModelReport], history: History) -> list[Action]:
    """Act on the models' alerts; what was done, and what a limit kept from being done."""
    done: list[Action] = []
    for report in reports:
        raised = {reading.alert for reading in report.readings if reading.alert}
        if (
            "ModelHarmful" in raised
            and collected.settings.rollback
            and not _waits(collected, report, history)
        ):
            done.append(_roll_back(collected, report))
    return done + _retrain(collected, reports, history)


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
    word = _registry_word(report.word)
    try:
        with server(collected.config.serving.endpoint) as ask:
            version = collected.registry.rollback_automatically(
                word, reason=f"monitoring: {reading.text}", evidence=evidence, ask=ask
            )
    except BarcastError as error:
        return Action(at=collected.now, kind="waits", subject=report.word, text=f"rollback: {error}")
    live = (
        f"version {version} answers again" if version is not None else "retired; the universal model answers"
    )
    return Action(
        at=collected.now,
        kind="rollback",
        subject=report.word,
        text=f"version {report.version} rolled back, {live}: {reading.text}",
    )


def _retrain(collected: Collected, reports: list[ModelReport], history: History) -> list[Action]:
    settings, now = collected.settings, collected.now
    wanted = {}
    for report in reports:
        raised = sorted({r.alert for r in report.readings if r.alert in RETRAIN})
        if raised and report.word != names.LINEAR:
            wanted[report.word] = (", ".join(raised), report)
    if not wanted:
        return []
    recent = {a.subject for a in history.actions(now - timedelta(days=settings.retrain_days), ["retrain"])}
    recent |= {
        a.subject
        for a in history.actions(now - timedelta(days=1), ["waits"])
        if a.text.startswith("retraining")
    }
    today = len(history.actions(now - timedelta(days=1), ["retrain"]))
    drifts = {word: _value(report, "feature_psi") for word, (_, report) in wanted.items()}
    facts = queue_facts.gather(collected.config, drift={w: d for w, d in drifts.items() if d is not None})
    queue = TrainingQueue(collected.workspace, collected.config.operations.queue)
    priorities = {
        word: automatic_priority(facts.get(word, Facts(drift=drifts[word])), queue.config.priority)
        for word in wanted
    }
    done = []
    for word in sorted(wanted, key=lambda w: -priorities[w]):
        why = wanted[word][0]
        if word in recent:
            continue  # asked for already; saying so at every look would only be noise
        if today >= settings.retrain_per_day:
            text = f"retraining ({why}): {today} were asked for in 24 hours, the limit is {settings.retrain_per_day}"
            done.append(Action(at=now, kind="waits", subject=word, text=text))
            continue
        queue.request_training(word, priorities[word], reason=f"monitoring: {why}")
        today += 1
        text = f"retraining asked for with priority {priorities[word]:.0f}: {why}"
        done.append(Action(at=now, kind="retrain", subject=word, text=text))
    return done


def _value(report: ModelReport, name: str) -> float | None:
    return next((r.value for r in report.readings if r.name == name), None)


def _registry_word(word: str) -> str | None:
    return None if word == names.UNIVERSAL else word

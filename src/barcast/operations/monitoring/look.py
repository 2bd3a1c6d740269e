"""One look at everything: collect → judge models, data, serving, system → alerts → what follows → history."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from barcast import logs
from barcast.config import Config
from barcast.errors import BarcastError
from barcast.operations.monitoring import data, models, serving, system
from barcast.operations.monitoring.collect import Collected, References
from barcast.operations.monitoring.history import History
from barcast.operations.monitoring.respond import respond
from barcast.operations.monitoring.types import WHOLE, Action, ModelReport, Reading, Report
from barcast.serving.state import load_emergency

_log = logs.get("monitoring")


class StoppedError(Exception):
    """The look was given up half-way because the program is being stopped; nothing of it was kept."""


class Monitor:
    """Looks again and again; what does not change between two looks is kept.

    Args:
        config: the workspace's configuration.
        stop: once it is set, a look ends before its next part.
    """

    def __init__(self, config: Config, stop: threading.Event | None = None) -> None:
        self.config = config
        self._stop = stop or threading.Event()
        self.history = History(config.open_workspace().state / "monitoring.db")
        self._references = References()

    def look(self, *, act: bool = True, queue_all: bool = True) -> Report:
        """Judge everything once and keep the report.

        Args:
            act: ask for retrainings, roll back harmful models, and write outcomes into the prediction log.
            queue_all: put recalibrations into the training queue too, not only retrainings.

        Raises:
            HistoryError: the history cannot be written. A part that cannot be read is an alert, not an error.
            StoppedError: `stop` was set.
        """
        collected = Collected(self.config, self._references)
        failed: list[Reading] = []
        totals = self.history.totals()

        def guarded(name: str, part: Callable[[], Sequence[Any]]) -> list[Any]:
            if self._stop.is_set():
                raise StoppedError
            try:
                return list(part())
            except (BarcastError, sqlite3.Error, OSError, ValueError) as error:
                text = f"{name}: {str(error) or type(error).__name__}"
                failed.append(
                    Reading(name=f"{name}_failed", value=1.0, bound=0.0, alert="MonitoringFailed", text=text)
                )
                return []

        def served() -> list[Reading]:
            nonlocal totals
            readings, totals = serving.judge(collected, totals)
            return readings

        if act:
            guarded("outcomes", lambda: _join_outcomes(collected))
        judged: list[ModelReport] = guarded("models", lambda: models.judge(collected))
        self._references.forget_the_rest()
        whole: list[Reading] = [
            *guarded("data", lambda: data.judge(collected)),
            *guarded("serving", served),
            *guarded("queue", lambda: system.queue(collected)),
            *guarded("schedules", lambda: system.schedules(collected)),
            *guarded("registry", lambda: system.registry(collected)),
            *guarded("disk", lambda: system.disk(collected)),
        ]
        actions: list[Action] = (
            guarded("respond", lambda: respond(collected, judged, self.history, queue_all=queue_all))
            if act
            else []
        )
        whole += failed
        seen = Report(
            workspace=self.config.workspace,
            at=collected.now,
            as_of=collected.as_of,
            models=tuple(judged),
            whole=tuple(whole),
            alerts=(),
            actions=tuple(actions),
            stopped=load_emergency(collected.workspace).reason,
        )
        raised: dict[tuple[str, str], str] = {}
        for subject, reading in seen.readings:
            if reading.alert:
                key = (reading.alert, subject)
                raised[key] = "; ".join(filter(None, [raised.get(key), reading.text]))
        report = seen.model_copy(update={"alerts": self.history.raise_alerts(raised, collected.now)})
        self.history.add(report, totals, self.config.operations.monitoring.keep_days)
        _tell(report)
        return report


def monitor(config: Config, *, act: bool = True) -> Report:
    """Look once: the entry function of the pipeline `monitoring`, of `barcast monitor` and of schedules.

    Everything is read from what is recorded already (bars, prediction log, registry, queue, Prometheus pages). The
    report is typed and JSON-ready (`report.model_dump_json()`); its history lies in `state/monitoring.db`. Retrainings
    go into the training queue, rollbacks through the registry's policy; `report.actions` says which. Models that need
    no more than a recalibration (`kind == "recalibrate"`) are named and left to the caller.

    Args:
        act: False only looks.

    Raises:
        HistoryError: the history cannot be written.
    """
    return Monitor(config).look(act=act, queue_all=False)


def _join_outcomes(collected: Collected) -> list[Any]:
    """Write what followed into logged predictions whose horizon has passed; move finished ones to the table, where
    they stay, and old ones out of the local log, which every look reads."""
    path = collected.workspace.logs / "predictions.db"
    if path.exists() and not collected.bars.is_empty():
        from barcast.serving.prediction_log import PredictionLog

        log = PredictionLog(path)
        try:
            log.join_outcomes(collected.bars, collected.config.horizon_bars)
            log.flush(
                collected.workspace.logs / "predictions", min_rows=collected.config.serving.log_flush_rows
            )
            log.prune(collected.as_of - timedelta(days=collected.settings.keep_days))
        finally:
            log.close()
    return []


def _tell(report: Report) -> None:
    versions = {model.word: model.version for model in report.models}

    def about(subject: str) -> dict[str, Any]:
        return {} if subject == WHOLE else {"symbol": subject, "version": versions.get(subject)}

    for alert in report.alerts:
        write = _log.error if alert.severity == "critical" else _log.warning
        write("alert", alert=alert.name, text=alert.text, **about(alert.subject))
    for action in report.actions:
        _log.warning("action", kind=action.kind, text=action.text, **about(action.subject))

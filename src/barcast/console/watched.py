"""The health page: monitoring's newest look, its alerts and actions, and each reading over time as a small plot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Any

from markupsafe import Markup

from barcast.console.views import spoken, when
from barcast.operations.monitoring import ALERTS, History, Reading
from barcast.operations.monitoring.types import WHOLE
from barcast.wording import count
from barcast.workspace import Workspace

WIDTH, HEIGHT = 150, 34
MOST_POINTS = 300
DAYS = 30


def watched(workspace: Workspace) -> dict[str, Any]:
    """What the page shows; `report` is None before monitoring has looked.

    Raises:
        HistoryError: the history cannot be read.
    """
    path = workspace.state / "monitoring.db"
    history = History(path) if path.exists() else None
    report = history.latest() if history else None
    if history is None or report is None:
        return {"report": None, "groups": [], "alerts": [], "actions": []}
    groups = [{"title": "The whole", "note": "", "rows": _rows(history, WHOLE, report.whole)}]
    for model in report.models:
        note = (
            f"version {model.version} ({model.kind}) since {when(model.since)} UTC, {count(model.answers, 'answer')}, "
            f"{model.outcomes:,} with outcome"
        )
        title = spoken(model.word)
        groups.append({"title": title, "note": note, "rows": _rows(history, model.word, model.readings)})
    return {
        "report": report,
        "looked": when(report.at),
        "groups": groups,
        "alerts": [
            {
                **a.model_dump(),
                "since": when(a.since),
                "means": ALERTS[a.name].means,
                "about": spoken(a.subject),
            }
            for a in report.alerts
        ],
        "actions": [
            {**a.model_dump(), "at": when(a.at), "about": spoken(a.subject)}
            for a in reversed(history.actions(report.at - timedelta(days=DAYS)))
        ],
    }


def _rows(history: History, subject: str, readings: Sequence[Reading]) -> list[dict[str, Any]]:
    return [
        {
            "name": r.name.replace("_", " "),
            "value": "–" if r.value is None else f"{r.value:,.4g}",
            "bound": "" if r.bound is None else f"{r.bound:,.4g}",
            "alert": r.alert,
            "text": r.text,
            "plot": Markup(line(history.series(subject, r.name), r.bound, r.name)),
        }
        for r in readings
    ]


def line(points: Sequence[tuple[datetime, float]], bound: float | None, name: str) -> str:
    """A reading over time with its bound as a dashed line; empty with fewer than two points."""
    points = points[:: max(1, -(-len(points) // MOST_POINTS))]
    if len(points) < 2:
        return ""
    times = [at.timestamp() for at, _ in points]
    values = [value for _, value in points]
    shown = values if bound is None else [*values, bound]
    low, high = min(shown), max(shown)
    span, size = times[-1] - times[0] or 1.0, high - low or 1.0

    def y(value: float) -> float:
        return 3 + (HEIGHT - 6) * (1 - (value - low) / size)

    path = " ".join(
        f"{(t - times[0]) / span * WIDTH:.1f},{y(v):.1f}" for t, v in zip(times, values, strict=True)
    )
    limit = ""
    if bound is not None:
        limit = f'<line x1="0" x2="{WIDTH}" y1="{y(bound):.1f}" y2="{y(bound):.1f}" class="limit"/>'
    label = f"{name} from {points[0][0]:%Y-%m-%d %H:%M}: {values[0]:.4g} to {values[-1]:.4g}"
    return (
        f'<svg class="trend" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'{limit}<polyline points="{path}" class="line"/></svg>'
    )

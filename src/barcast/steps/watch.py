"""The step that watches: one look at everything, kept as JSON and as a page."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from barcast.steps._record import Run, step

if TYPE_CHECKING:
    from barcast.operations.monitoring import Report

_PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}}
table{{border-collapse:collapse}}td,th{{text-align:left;padding:.2em .8em;border-bottom:1px solid #ddd}}</style>
<h1>{title}</h1><p>{lead}</p>{tables}"""


@step
def monitor(run: Run, findings_path: str, report_path: str) -> tuple[dict[str, float], list[str]]:
    """Judge data, models, serving and work once; ask for retrainings and roll back within the limits.

    Returns:
        Alerts by severity and actions by kind; models that need only a new calibration.
    """
    from barcast.operations.monitoring import monitor as look

    report = look(run.config)
    Path(findings_path).write_text(report.model_dump_json(indent=2))
    page = _page(report)
    Path(report_path).write_text(page)
    (run.folder / "monitoring.html").write_text(page)
    counts = Counter(f"alerts_{alert.severity}" for alert in report.alerts)
    counts.update(f"actions_{action.kind}" for action in report.actions)
    run.note(f"{report.worst}: {len(report.alerts)} alerts, {len(report.actions)} actions")
    named = [action.subject for action in report.actions if action.kind == "recalibrate"]
    return {name: float(count) for name, count in counts.items()}, named


def _page(report: Report) -> str:
    tables = [
        _table("Alerts", ["alert", "about", "since", "what"],
               [[a.name, a.subject, f"{a.since:%Y-%m-%d %H:%M}", a.text] for a in report.alerts]),
        _table("Actions", ["action", "about", "what"],
               [[a.kind, a.subject, a.text] for a in report.actions]),
        _table("Models", ["model", "version", "reading", "value", "bound", "what"],
               [[m.word, m.version, r.name, r.value, r.bound, r.text] for m in report.models for r in m.readings]),
        _table("The whole", ["reading", "value", "bound", "what"],
               [[r.name, r.value, r.bound, r.text] for r in report.whole]),
    ]  # fmt: skip
    title = f"{report.workspace} at {report.as_of:%Y-%m-%d %H:%M} UTC"
    return _PAGE.format(title=html.escape(title), lead=f"State: {report.worst}.", tables="".join(tables))


def _table(title: str, heads: list[str], rows: list[list[object]]) -> str:
    if not rows:
        return f"<h2>{title}</h2><p>None.</p>"
    cells = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr>{cells}</table>"


def _cell(value: object) -> str:
    return "–" if value is None else html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))

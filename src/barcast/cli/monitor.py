"""`barcast monitor`: look at models, data, serving and queue; act on what is wrong."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli._options import ConfigOption, JsonOption, current
from barcast.wording import count

if TYPE_CHECKING:
    from barcast.operations.monitoring import Reading, Report


def monitor(
    follow: Annotated[
        bool, typer.Option("--follow", help="Look again and again, with a Prometheus page.")
    ] = False,
    act: Annotated[
        bool, typer.Option(help="Ask for retrainings and roll harmful models back; --no-act only looks.")
    ] = True,
    grace: Annotated[
        float,
        typer.Option(help="With --follow: seconds the first look waits for a model server that starts."),
    ] = 0.0,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Drift, calibration, data, serving, queue: what is wrong, since when, and what was done about it."""
    from barcast import logs
    from barcast.operations.monitoring import Monitor
    from barcast.operations.monitoring import metrics as page

    settings = current(config)
    stop = threading.Event()
    one = Monitor(settings, stop)

    def show(report: Report) -> None:
        if json:
            typer.echo(report.model_dump_json(indent=None if follow else 2))
        else:
            _show(report, brief=follow)

    if not follow:
        with logs.without("alert", "action"):
            report = one.look(act=act)
        show(report)
        return
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    host = settings.operations.monitoring.host
    page.follow(
        one,
        stop,
        act=act,
        grace_seconds=grace,
        seen=show,
        ready=lambda port: typer.echo(f"Metrics at http://{host}:{port}/metrics", err=True),
    )


def _show(report: Report, *, brief: bool) -> None:
    lines = [f"{report.at:%Y-%m-%d %H:%M:%S} UTC  {report.worst}"]
    if report.stopped:
        lines.append(f"{'STOPPED':9} {report.stopped}")
    for alert in report.alerts:
        lines.append(f"{alert.severity:9} {alert.name:20} {alert.subject:12} {alert.text}")
        lines.append(f"{'':9} since {alert.since:%Y-%m-%d %H:%M} UTC; runbook: {alert.name}")
    for action in report.actions:
        lines.append(f"{action.kind:9} {'':20} {action.subject:12} {action.text}")
    if not brief:
        lines += [_line("workspace", reading) for reading in report.whole]
        for model in report.models:
            since = f"since {model.since:%Y-%m-%d %H:%M} UTC"
            head = f"{count(model.answers, 'answer')}, {model.outcomes} with outcome, {since}"
            lines.append(f"{model.word} v{model.version} ({model.kind}): {head}")
            lines += [_line(model.word, reading) for reading in model.readings]
    typer.echo("\n".join(lines))


def _line(subject: str, reading: Reading) -> str:
    value = "-" if reading.value is None else f"{reading.value:.4g}"
    bound = "" if reading.bound is None else f"of {reading.bound:.4g}"
    mark = "!" if reading.alert else " "
    return f"  {mark} {subject:12} {reading.name:22} {value:>9} {bound:12} {reading.text}".rstrip()

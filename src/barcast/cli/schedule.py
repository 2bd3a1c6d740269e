"""`barcast schedule`: recurring runs, on this machine or on a cluster with --host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from barcast.cli._options import (
    ConfigOption,
    HostOption,
    JsonOption,
    NamespaceOption,
    SetOption,
    TokenOption,
    current,
    print_json,
)
from barcast.errors import ConfigError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Recurring runs, here or on a cluster.")
Name = Annotated[str, typer.Argument(help="The schedule's name.")]


@app.command()
def create(
    name: Name,
    action: Annotated[
        str,
        typer.Argument(
            help="A pipeline, `queue` (ask for trainings by automatic priority) or `learn` (as `feedback learn`)."
        ),
    ] = "training",
    cron: Annotated[str | None, typer.Option(help="Cron line in UTC, e.g. '30 6 * * 1-5'.")] = None,
    every: Annotated[str | None, typer.Option(help="Interval, e.g. 30m, 6h, 1d.")] = None,
    at: Annotated[str | None, typer.Option(help="One single time, ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Fires no more after this time, ISO 8601.")] = None,
    catch_up: Annotated[
        bool, typer.Option(help="Do late, once, what was missed while nothing ran.")
    ] = True,
    settings_of_run: SetOption = None,
    host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None, json: JsonOption = False,
) -> None:  # fmt: skip
    """Make a schedule."""
    from barcast.adapters import kubeflow, kubeflow_cluster
    from barcast.operations import schedules, triggers

    settings = current(config)
    times: dict[str, Any] = {
        "cron": cron, "every": _interval(every), "at": _moment(at, "--at"), "until": _moment(until, "--until")
    }  # fmt: skip
    schedules.check_action(action)
    if action not in (schedules.QUEUE, schedules.LEARN):
        arguments = kubeflow.read_arguments(action, settings_of_run or [])
    elif settings_of_run:
        raise ConfigError(f"`{action}` takes no parameters.", hint="Leave --set out.")
    else:
        arguments = {}
    if host:
        from barcast.operations.cron import for_cluster

        if action in (schedules.QUEUE, schedules.LEARN) or at is not None:
            raise ConfigError(
                "On the cluster a schedule runs a pipeline, by --cron or --every.",
                hint="Leave --host out for `queue`, `learn` and --at.",
            )
        triggers.make(**times)
        row = kubeflow_cluster.create_recurring(
            name,
            action,
            {"config": kubeflow_cluster.for_cluster(settings), **arguments},
            service_account=kubeflow_cluster.account_of(action, settings),
            cron=for_cluster(cron) if cron else None,
            every_seconds=int(times["every"].total_seconds()) if times["every"] else None,
            until=times["until"],
            catch_up=catch_up,
            host=host,
            namespace=namespace,
            token=token,
        )
    else:
        row = schedules.Schedules(settings).create(name, action, arguments, **times, catch_up=catch_up)
    _show([row], json)


@app.command("list")
def list_schedules(
    host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None, json: JsonOption = False,
) -> None:  # fmt: skip
    """All schedules with their next time and how the last run ended."""
    if host:
        from barcast.adapters import kubeflow_cluster

        rows = kubeflow_cluster.list_recurring(host=host, namespace=namespace, token=token)
    else:
        from barcast.operations.schedules import Schedules

        rows = Schedules(current(config)).rows()
    _show(rows, json)


def _change(word: str, name: str, host: str | None, namespace: str, token: str | None, config: Any) -> None:
    if host:
        from barcast.adapters import kubeflow_cluster

        kubeflow_cluster.change_recurring(word, name, host=host, namespace=namespace, token=token)
    else:
        from barcast.operations.schedules import Schedules

        getattr(Schedules(current(config)), word)(name)
    typer.echo(f"{name}: {word}d")


@app.command()
def pause(
    name: Name, host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Let a schedule rest."""
    _change("pause", name, host, namespace, token, config)


@app.command()
def resume(
    name: Name, host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Let a schedule fire again."""
    _change("resume", name, host, namespace, token, config)


@app.command()
def delete(
    name: Name, host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Remove a schedule."""
    _change("delete", name, host, namespace, token, config)


@app.command()
def run(config: ConfigOption = None) -> None:
    """Be this machine's scheduler until interrupted."""
    from barcast.operations.schedules import Schedules

    def ready() -> None:
        typer.echo("Scheduler runs. Ctrl+C stops it.")

    Schedules(current(config)).run(ready=ready)


def _interval(text: str | None) -> timedelta | None:
    from barcast import intervals

    return None if text is None else intervals.parse(text)


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r} is not a time.", hint="Write it as 2026-01-31T06:30 (UTC)."
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _show(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json(rows)
        return
    for row in rows:
        following = f"next {row['next_at']:%Y-%m-%d %H:%M:%S} UTC" if row.get("next_at") else ""
        last = f"last {row['last']['state']}: {row['last']['detail']}" if row.get("last") else ""
        typer.echo(
            f"{row['name']:20} {row['action']:12} {row['state']:7} {row['when']}  {following}  {last}".rstrip()
        )
    if not rows:
        typer.echo("No schedules.")

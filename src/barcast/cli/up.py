"""`barcast up`: everything of a workspace on this machine, kept running until stopped."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli._options import ConfigOption, current, remember
from barcast.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from barcast.config import Config
    from barcast.operations.supervisor import Program

_GRACE_SECONDS = 180  # a model server that takes longer to load its models is worth an alert


def up(
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave one out: server, gateway, console, worker, scheduler, monitor or feed."),
    ] = None,
    feed: Annotated[
        bool | None,
        typer.Option("--feed/--no-feed", help="Follow the live feed; by default where the source is live."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run feed, queue worker, model server, gateway, console, scheduler and monitor; Ctrl+C stops all."""
    from barcast.bars.ingest import LIVE_KINDS
    from barcast.bars.live import refuse_still
    from barcast.durable import alone
    from barcast.operations.supervisor import Supervisor

    settings = current(config)
    workspace = settings.open_workspace()
    workspace.state.mkdir(parents=True, exist_ok=True)
    known = programs(settings, workspace.state / "up.yaml")
    for name in without or []:
        if name not in known:
            raise ConfigError(f"There is no program {name!r}.", hint=did_you_mean(name, known))
    follows = settings.source.kind in LIVE_KINDS if feed is None else feed
    left_out = {*(without or []), *([] if follows else ["feed"])}
    if "feed" not in left_out:
        refuse_still(settings)
    chosen = [program for name, program in known.items() if name not in left_out]
    remember(settings)
    _write(settings, workspace.state / "up.yaml")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    folder = workspace.logs / "programs"
    what = f"`barcast up` of workspace {workspace.name!r}"
    with alone(workspace.state / "up.lock", what, "Stop it first, or use another workspace."):
        typer.echo(f"Workspace {workspace.name}; output in {folder}. Ctrl+C stops everything.")
        for program in chosen:
            if program.name in _PLACES:
                typer.echo(f"  {program.name:9} {_PLACES[program.name](settings, folder)}")
        Supervisor(chosen, folder, say=lambda text: typer.echo(text)).run(stop)
        typer.echo("Stopped.")


def _has_persons(settings: Config) -> bool:
    from barcast.console.access import PERSONS_FILE

    return (settings.open_workspace().state / PERSONS_FILE).exists()


_PLACES: dict[str, Callable[[Config, Path], str]] = {
    "server": lambda c, _: f"gRPC at {c.serving.endpoint}, once a model is live",
    "gateway": lambda c, _: f"http://{c.gateway.host}:{c.gateway.port}, once a model is live",
    "console": lambda c, f: (
        f"http://127.0.0.1:{c.registry.console_port}, "
        + ("each person with the own token" if _has_persons(c) else f"its token in {f / 'console.log'}")
    ),
    "monitor": lambda c, _: (
        f"metrics at http://{c.operations.monitoring.host}:{c.operations.monitoring.port}/metrics"
    ),
}


def programs(settings: Config, path: Path) -> dict[str, Program]:
    """The programs by name, each reading the configuration file `path`."""
    from barcast.operations.supervisor import Program

    live = settings.open_workspace().models_config

    def barcast(*words: str) -> list[str]:
        start = "import sys; from barcast.cli import main; sys.argv[0] = 'barcast'; main()"
        return [sys.executable, "-c", start, *words, "--config", str(path)]

    found = [
        Program("server", barcast("serve"), live),
        Program("gateway", barcast("gateway", "serve"), live),
        Program("console", barcast("console")),
        Program("worker", barcast("queue", "work")),
        Program("scheduler", barcast("schedule", "run")),
        Program("monitor", barcast("monitor", "--follow", "--grace", str(_GRACE_SECONDS))),
        Program("feed", barcast("bars", "feed", "--predict")),
    ]
    return {program.name: program for program in found}


def _write(settings: Config, path: Path) -> None:
    import yaml

    from barcast import durable

    durable.write_atomic(
        path, yaml.safe_dump(settings.model_dump(mode="json", exclude={"storage"}), sort_keys=False)
    )

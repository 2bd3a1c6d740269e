"""The `barcast` command. Each room's commands live in a module of their own, imported only when asked for."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from barcast import __version__
from barcast.errors import BarcastError, ConfigError, did_you_mean

# name → (module, attribute: a function or a Typer application, one line of help), in the order of a user's way.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("run", "init", "Write a configuration for your own bars."),
    "run": ("run", "run", "Bars to an approved model that answers, on this machine."),
    "submit": ("submit", "submit", "The same pipeline on Kubeflow Pipelines."),
    "runs": ("runs", "app", "Runs of pipelines: list, show, watch, cancel, rerun."),
    "ingest": ("ingest", "ingest", "Bring bars into the table."),
    "bars": ("ingest", "app", "What the table of bars holds; the live feed."),
    "features": ("features", "app", "List or compute features."),
    "queue": ("queue", "app", "Training queue: request, list, work, dead, retry."),
    "schedule": ("schedule", "app", "Recurring runs, here or on a cluster."),
    "up": ("up", "up", "Feed, queue, model server, gateway and console together."),
    "train": ("train", "train", "Train one symbol's own model."),
    "tune": ("search", "tune", "Search hyper-parameters."),
    "experiment": ("search", "experiment_app", "Compare configurations and models."),
    "backtest": ("backtest", "app", "Replay history with retraining, calibration and gate."),
    "models": ("models", "app", "List, show, approve, reject, roll back."),
    "ab": ("ab", "app", "Compare champion and challenger on what they answered."),
    "serve": ("serve", "serve", "Start the model server for what is live."),
    "predict": ("predict", "predict", "Ask for predictions."),
    "gateway": ("gateway", "app", "Serve predictions over HTTP."),
    "paper": ("paper", "app", "Keep a simulated account."),
    "feedback": ("feedback", "app", "Report a trade's outcome."),
    "console": ("console", "console", "The web page for those who approve."),
    "parity": ("parity", "parity", "Compare batch, stream, store and served values."),
    "monitor": ("monitor", "monitor", "What is wrong, since when, and what was done about it."),
    "status": ("status", "status", "The whole at a glance."),
    "doctor": ("status", "doctor", "Check this machine and workspace."),
}


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        target: Any = getattr(importlib.import_module(f"barcast.cli.{module}"), attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name)(target)
            target = single
        command = typer.main.get_command(target)
        command.name = name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            suggestion = did_you_mean(args[0], COMMANDS)
            raise ConfigError(f"There is no command {args[0]!r}.", hint=suggestion or "See barcast --help.")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])
        with formatter.section("Options"):
            formatter.write_dl([record for p in self.get_params(ctx) if (record := p.get_help_record(ctx))])


app = typer.Typer(
    cls=_Lazy,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"barcast {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    ctx: typer.Context,
    log_level: Annotated[
        str, typer.Option(envvar="BARCAST_LOG", help="How much to log: debug, info, warning or error.")
    ] = "warning",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """From price bars of many symbols to served, explained and governed predictions."""
    from barcast import logs

    if log_level not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"There is no log level {log_level!r}.", hint="Use debug, info, warning or error.")
    logs.configure(log_level, json=log_json)
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> None:
    """Entry point: errors meant for people become a message and an exit code, never a traceback."""
    # An end by `kill` cleans up as Ctrl-C does: child processes must not be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(prog_name="barcast")
    except BarcastError as error:
        fail(error)
    except KeyboardInterrupt:
        print("barcast: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        fail(
            BarcastError(
                f"The disk has no room: {error.filename or error.strerror}. What was stored before is whole.",
                hint="Free space (`barcast doctor` shows how much there is), then do it again.",
            )
        )


def fail(error: BarcastError) -> None:
    """Print the message and the hint, leave with the error's exit code."""
    print(f"barcast: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    sys.exit(error.exit_code)

"""The `barcast` command. Each room's commands live in a module of their own, imported only when asked for."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click
import typer

from barcast.errors import BarcastError, did_you_mean

# name → (module, attribute: a function or a Typer application, one line of help), in the order of a user's way.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("run", "init", "Write a configuration for your own bars."),
    "run": ("run", "run", "Bars to an approved model that answers, on this machine."),
    "submit": ("submit", "submit", "The same pipeline on Kubeflow Pipelines."),
    "ingest": ("ingest", "ingest", "Bring bars into the table."),
    "features": ("features", "app", "List or compute features."),
    "train": ("train", "train", "Train one symbol's own model."),
    "tune": ("train", "tune", "Search hyper-parameters."),
    "experiment": ("train", "experiment_app", "Compare configurations and models."),
    "backtest": ("backtest", "app", "Replay history with retraining, calibration and gate."),
    "models": ("models", "app", "List, show, approve, reject, roll back."),
    "serve": ("serve", "serve", "Start the model server for what is live."),
    "predict": ("predict", "predict", "Ask for predictions."),
    "gateway": ("gateway", "app", "Serve predictions over HTTP."),
    "paper": ("paper", "app", "Keep a simulated account."),
    "feedback": ("feedback", "app", "Report a trade's outcome."),
    "console": ("console", "console", "The web page for those who approve."),
    "parity": ("parity", "parity", "Compare batch, stream, store and served values."),
    "status": ("status", "status", "The whole at a glance."),
    "doctor": ("status", "doctor", "Check this machine and workspace."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        target: Any = getattr(importlib.import_module(f"barcast.cli.{module}"), attribute)
        if not isinstance(target, typer.Typer):
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            app.command(name)(target)
            target = app
        command = typer.main.get_command(target)
        command.name = name
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            raise click.UsageError(f"There is no command {args[0]!r}. {did_you_mean(args[0], COMMANDS)}".strip(), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="barcast", message="barcast %(version)s")
@click.option("--log-level", default=lambda: os.environ.get("BARCAST_LOG", "warning"), show_default="warning",
              type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log to standard error.")
@click.option("--log-json", is_flag=True, help="Log JSON lines.")
def app(log_level: str, log_json: bool) -> None:
    """From price bars of many symbols to served, explained and governed predictions."""
    from barcast import logs

    logs.configure(log_level, json=log_json)


def main() -> None:
    """Entry point: errors meant for people become a message and an exit code, never a traceback."""
    try:
        app(prog_name="barcast", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("barcast: stopped.", file=sys.stderr)
        sys.exit(130)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except BarcastError as error:
        fail(error)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def fail(error: BarcastError) -> None:
    """Print the message and the hint, leave with the error's exit code."""
    print(f"barcast: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    sys.exit(error.exit_code)

"""`barcast queue`: ask for trainings, see how they stand, work them off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from barcast.config import Config
    from barcast.operations.queue import TrainingQueue

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Training queue.")


def _open(config: Path | None) -> tuple[Config, TrainingQueue]:
    from barcast.operations.queue import TrainingQueue

    settings = current(config)
    return settings, TrainingQueue(settings.open_workspace(), settings.operations.queue)


@app.command()
def request(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols to train; see also --all.")] = None,
    priority: Annotated[
        float | None, typer.Option(help="0 to 100, higher first; computed from what is known without it.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who look at the queue.")] = "asked for",
    everything: Annotated[bool, typer.Option("--all", help="All symbols in the table of bars.")] = False,
    without_own: Annotated[
        bool, typer.Option("--uncovered", help="Symbols that the universal model answers for.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Ask for trainings; a symbol that already waits keeps its place or moves up."""
    from barcast.bars.ingest import open_store
    from barcast.operations import queue_facts

    settings, queue = _open(config)
    facts = queue_facts.gather(settings)
    if not facts:
        raise DataError("The table of bars is empty.", hint="Run `barcast ingest` first.")
    chosen = list(symbols or [])
    for symbol in chosen:
        if symbol not in facts:
            raise DataError(
                f"There are no bars of {symbol!r}.",
                hint=did_you_mean(symbol, facts) or f"The table holds {', '.join(list(facts)[:10])}.",
            )
    if everything:
        chosen = list(facts)
    elif without_own:
        bars = open_store(settings, settings.open_workspace()).read().group_by("symbol").len()
        chosen = queue_facts.uncovered(settings, dict(bars.iter_rows()))
        reason = "answered by the universal model"
    elif not chosen:
        raise ConfigError("No symbol is named.", hint="Name symbols, or give --all or --uncovered.")
    jobs = queue.request_batch(chosen, priority, reason=reason, facts=facts)
    rows = [row for row in queue.status() if row["id"] in jobs.values()]
    _show(rows, json, empty="No symbol needs a training.")


@app.command("list")
def list_jobs(config: ConfigOption = None, json: JsonOption = False) -> None:
    """The newest job of every symbol: running, waiting by priority, dead, done."""
    _show(_open(config)[1].status(), json, empty="The queue is empty.")


@app.command()
def status(
    symbol: Annotated[str | None, typer.Argument(help="All jobs of this symbol; counts without it.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """How the queue, or one symbol, stands."""
    queue = _open(config)[1]
    if symbol is not None:
        _show(queue.status(symbol), json)
        return
    counts = queue.counts()
    if json:
        print_json(counts)
    else:
        typer.echo(", ".join(f"{number} {state}" for state, number in counts.items()))


@app.command()
def work(
    workers: Annotated[int | None, typer.Option(min=1, help="Processes side by side.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due.")] = False,
    config: ConfigOption = None,
) -> None:
    """Work the queue until interrupted."""
    from barcast.operations import queue_worker

    settings = current(config)
    queue_worker.work(
        settings,
        settings.operations.queue,
        workers=workers,
        once=once,
        say=lambda text: typer.echo(text, err=True),
    )


@app.command()
def dead(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Jobs that were given up, with the last error."""
    _show(_open(config)[1].dead(), json, empty="No job was given up.")


@app.command()
def retry(
    symbol: Annotated[str | None, typer.Argument(help="One symbol; all dead letters without it.")] = None,
    config: ConfigOption = None,
) -> None:
    """Queue dead letters again."""
    symbols = _open(config)[1].retry(symbol)
    if symbol is not None and not symbols:
        raise ConfigError(f"There is no dead letter of {symbol!r}.", hint="See: barcast queue dead.")
    typer.echo(f"Queued again: {', '.join(symbols) or 'nothing'}")


def _show(rows: list[dict[str, Any]], json: bool, empty: str = "") -> None:
    if json:
        print_json(rows)
        return
    for row in rows:
        when = row["finished_at"] or row["started_at"] or row["requested_at"]
        text = row["error"] or row["reason"]
        typer.echo(
            f"{row['symbol']:12} {row['state']:8} {row['priority']:5.1f}  start {row['attempts']}  "
            f"{when:%Y-%m-%d %H:%M:%S}  {text}"
        )
    if not rows:
        typer.echo(empty)

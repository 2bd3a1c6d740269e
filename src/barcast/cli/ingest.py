"""`barcast ingest`: bars into the table; `barcast bars …`: what the table holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count

Symbols = Annotated[list[str] | None, typer.Argument(help="Only these symbols; without any: all.")]
app = typer.Typer(add_completion=False, help="Look into the bar table.", no_args_is_help=True)


def ingest(
    symbols: Symbols = None,
    config: ConfigOption = None,
    start: Annotated[str, typer.Option(help="Only bars that close after this time (ISO 8601, UTC).")] = "",
    end: Annotated[str, typer.Option(help="Only bars that close up to this time (ISO 8601, UTC).")] = "",
    json: JsonOption = False,
) -> None:
    """Bring bars from the configured source into the table. Running it again adds nothing twice."""
    from barcast.bars.ingest import ingest as bring
    from barcast.bars.sources import instant

    settings = current(config)
    done = bring(
        settings,
        settings.open_workspace(),
        symbols=symbols or None,
        start=instant(start, "--start"),
        end=instant(end, "--end"),
    )
    facts = {
        "table": str(done.store.path),
        "version": done.store.version,
        "added": done.added,
        "replaced": done.replaced,
        "unchanged": done.unchanged,
        "missing_bars": int(done.gaps["missing_bars"].sum()),
        "content_hash": done.store.content_hash(),
        "notice": done.notice,
    }
    _show(facts, json)


@app.command()
def history(config: ConfigOption = None, json: JsonOption = False) -> None:
    """The table's versions: when, from where, how many bars."""
    store = _store(config)
    _table(store.history(), json)


@app.command()
def corrections(symbols: Symbols = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Bars that a later or corrected bar replaced."""
    _table(_store(config).corrections(symbols or None).to_dicts(), json)


@app.command()
def gaps(symbols: Symbols = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Expected bars that are missing. They are never filled."""
    from barcast.bars import calendars

    settings = current(config)
    store = _store(config)
    found = calendars.gaps(store.read(symbols or None), settings.interval, calendars.calendars_of(settings))
    _table(found.to_dicts(), json)


@app.command()
def check(
    config: ConfigOption = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the HTML and JSON report.")] = None,
    json: JsonOption = False,
) -> None:
    """Judge the bars in the table; leaves with code 4 if a critical expectation fails."""
    from barcast import clock
    from barcast.bars.quality import validate_bars

    settings = current(config)
    outcome = validate_bars(_store(config).read(), settings.interval, clock.now(), settings)
    if report is not None:
        outcome.write(report, "bars-quality")
    if json:
        print_json(outcome.to_dict())
    else:
        for result in outcome.results:
            typer.echo(str(result))
    outcome.raise_if_critical()


@app.command()
def split(
    symbol: str,
    ratio: Annotated[float, typer.Argument(help="New shares for one old: 2 for a 2:1 split.")],
    effective: Annotated[
        str, typer.Argument(help="Time from which prices are after the split (ISO 8601, UTC).")
    ],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Restate a symbol's factors for a split; the change is recorded. Prices as traded stay as they are."""
    from barcast import clock
    from barcast.bars.sources import instant
    from barcast.bars.splits import restate
    from barcast.errors import ConfigError

    store = _store(config)
    moment = instant(effective, "effective")
    if moment is None:
        raise ConfigError("The split has no time.", hint="Write it like 2024-06-10T13:30:00Z.")
    restated = restate(
        store.read([symbol]), symbol=symbol, split_ratio=ratio, effective=moment, known_at=clock.now()
    )
    _show(store.append(restated, origin=f"split {ratio:g}:1 of {symbol}").summary(), json)


@app.command()
def feed(
    config: ConfigOption = None,
    replay: Annotated[
        float,
        typer.Option(
            min=0, help="Replay the table's bars at this many times real speed; 0: follow the source."
        ),
    ] = 0.0,
    max_batches: Annotated[int, typer.Option(min=0, help="Stop after so many closes; 0: never.")] = 0,
    predict: Annotated[
        bool,
        typer.Option("--predict", help="Features, online store, prediction and decision for each close."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Follow the source: each close as it comes, kept in the local log and moved to the table in batches.

    With --replay the table's own bars go through the same door and nothing is stored.
    """
    from contextlib import ExitStack

    from barcast import tracing
    from barcast.bars.live import follow, replay_feed
    from barcast.errors import ConfigError

    if predict and replay > 0:
        raise ConfigError(
            "--predict and --replay do not go together: a replay stores nothing and answers nothing.",
            hint="For answers on bars of the past: `barcast paper run`, or `barcast run --pipeline backfill`.",
        )
    settings = current(config)
    place = settings.open_workspace()

    def show(batch: Any) -> None:
        missing = f", missing: {', '.join(batch.missing)}" if batch.missing else ""
        closed = f"{batch.event_timestamp:%Y-%m-%d %H:%M:%SZ}"
        if not json:
            typer.echo(f"{closed} {batch.kind} {count(batch.bars.height, 'bar')}{missing}")

    counts = {"batches": 0, "bars": 0}
    try:
        if replay > 0:
            running = replay_feed(settings, place, speed=replay)
            for batch in running.run():
                show(batch)
                counts = {"batches": counts["batches"] + 1, "bars": counts["bars"] + batch.bars.height}
                if counts["batches"] == max_batches:
                    break
            health = running.health
        else:
            tracing.configure(settings, "feed")
            with ExitStack() as stack:
                on_batch, on_moved = show, None
                if predict:
                    from barcast.operations.live import Live
                    from barcast.serving import memory

                    live = stack.enter_context(Live(settings))
                    memory.prepare()
                    on_moved = live.moved

                    def on_batch(batch: Any) -> None:
                        show(batch)
                        _advise(live(batch), json)

                done = follow(
                    settings, place, on_batch=on_batch, on_moved=on_moved, max_batches=max_batches or None
                )
            counts, health = {"batches": done.batches, "bars": done.bars}, done.health
    except KeyboardInterrupt:
        typer.echo("stopped; all bars are in the table")
        return
    met = {name: value for name, value in vars(health).items() if value not in ("", [], None)}
    _show({**counts, **met}, json)


def _advise(answers: list[Any], json: bool) -> None:
    """One line an answer."""
    for answer in answers:
        if json:
            typer.echo(answer.model_dump_json())
        else:
            said = answer.decision.action if answer.decision else f"refused: {answer.reason}"
            typer.echo(f"  {answer.symbol:12} {said}  {answer.model or ''} v{answer.model_version or '-'}")


def _store(config: Path | None) -> Any:
    from barcast.bars.ingest import open_store

    settings = current(config)
    return open_store(settings, settings.open_workspace())


def _show(facts: dict[str, Any], json: bool) -> None:
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        if value != "":
            typer.echo(f"{name.replace('_', ' '):14} {value}")


def _table(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json(rows)
        return
    from rich.table import Table
    from rich.text import Text

    from barcast.cli._console import console

    if not rows:
        typer.echo("none")
        return
    table = Table(*(str(name) for name in rows[0]))
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    console().print(table)

"""`barcast feedback`: report finished trades, see rewards, bring outcomes into the prediction log."""

from __future__ import annotations

import json as jsonlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count

if TYPE_CHECKING:
    from barcast.config import Config
    from barcast.serving.prediction_log import PredictionLog

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Report a trade's outcome.")
MAX_BYTES = 50_000_000
_MORE = re.compile(r"\S")


def open_log(settings: Config) -> PredictionLog:
    """The workspace's prediction log."""
    from barcast.serving.prediction_log import PredictionLog

    return PredictionLog(settings.open_workspace().logs / "predictions.db")


@app.command()
def report(
    file: Annotated[
        Path, typer.Argument(help="JSON: one trade, a list, or one after another; '-' reads standard input.")
    ],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Keep finished trades; the same trade id twice is the same trade."""
    from barcast.serving.feedback import record

    settings = current(config)
    log = open_log(settings)
    rows = []
    for trade in _trades(file):
        result = record(log, trade, settings.decisions)
        rows.append(
            {
                "trade_id": trade.trade_id,
                "accepted": result.accepted,
                "net_return": trade.net_return,
                "reward": result.reward.total,
                "parts": dict(result.reward.parts),
            }
        )
    if json:
        print_json(rows)
        return
    for row in rows:
        parts = ", ".join(f"{k} {v:+g}" for k, v in row["parts"].items()) or "nothing"
        word = "kept" if row["accepted"] else "known already"
        print(
            f"{row['trade_id']}: {word}, net {row['net_return']:+.2%}, reward {row['reward']:+.2f} ({parts})"
        )


@app.command()
def join(config: ConfigOption = None) -> None:
    """Write what followed into logged predictions whose horizon has passed; flush finished ones to the
    Delta table."""
    from barcast.bars.ingest import open_store

    settings = current(config)
    workspace = settings.open_workspace()
    log = open_log(settings)
    joined = log.join_outcomes(open_store(settings, workspace).read(), settings.horizon_bars)
    moved = log.flush(workspace.logs / "predictions", min_rows=settings.serving.log_flush_rows)
    print(f"{count(joined, 'outcome')} joined, {count(moved, 'row')} moved to the Delta table.")


@app.command()
def learn(config: ConfigOption = None) -> None:
    """Let the shadow of the universal model learn from outcomes; the champion is not touched."""
    from barcast.serving.learn import look

    print(look(current(config).model_dump_json()))


@app.command()
def offer(config: ConfigOption = None) -> None:
    """Take the shadow to the gate: registered, judged against its champion, a challenger only if it passes."""
    from barcast.steps.offer import offer as take

    version, verdict = take(current(config))
    print(f"universal version {version}: {verdict.outcome}.")
    for reason in verdict.reasons:
        print(f"  {reason}")


@app.command("list")
def list_trades(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Trades reported so far."""
    trades = open_log(current(config)).trades()
    rows = trades.select("trade_id", "symbol", "net_return", "reward", "prediction_id", "learned").to_dicts()
    if json:
        print_json(rows)
        return
    for row in rows:
        reward = "" if row["reward"] is None else f"{row['reward']:+.2f}"
        print(f"{row['trade_id']:24} {row['symbol']:12} {row['net_return']:+.2%} {reward}")


def _trades(file: Path) -> list[Any]:
    from pydantic import TypeAdapter, ValidationError

    from barcast.errors import DataError
    from barcast.serving.prediction_log import TradeReport

    if str(file) == "-":
        text = sys.stdin.read(MAX_BYTES)
    elif not file.is_file():
        raise DataError(f"There is no file {file}.", hint="Give a JSON file with the trades.")
    elif file.stat().st_size > MAX_BYTES:
        raise DataError(f"{file} is larger than {MAX_BYTES} bytes.", hint="Split it.")
    else:
        text = file.read_text(encoding="utf-8")
    try:
        return TypeAdapter(list[TradeReport]).validate_python(_documents(text.strip()))
    except ValidationError as error:
        first = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
        raise DataError(
            f"{file} holds trades that cannot be read: {'; '.join(first)}"
            f"{' …' if error.error_count() > 5 else ''}.",
            hint="The number is the trade's place, from 0. See the guide on predictions for the form.",
        ) from error
    except ValueError as error:
        raise DataError(
            f"{file} is not JSON: {error}.", hint="One trade, a list, or one after another."
        ) from error


def _documents(text: str) -> list[Any]:
    """One JSON list's items, or the JSON values that follow one another, over however many lines."""
    decoder, at = jsonlib.JSONDecoder(), 0
    found: list[Any] = []
    while not found or at < len(text):
        value, end = decoder.raw_decode(text, at)
        found.append(value)
        at = len(text) if (more := _MORE.search(text, end)) is None else more.start()
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found

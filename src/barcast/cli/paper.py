"""`barcast paper`: a simulated account on stored or newly arrived bars, and the emergency stop. Nothing is
ordered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count

if TYPE_CHECKING:
    import polars as pl

    from barcast.decisions.paper import PaperAccount
    from barcast.decisions.types import Advice
    from barcast.workspace import Workspace

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Keep a simulated account.")
By = Annotated[str, typer.Option(help="Your name.")]
Reason = Annotated[str, typer.Option(help="Why.")]


@app.command()
def run(
    since: Annotated[
        datetime | None, typer.Option(help="First bar of a new account, e.g. 2012-01-01.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Start again instead of going on.")] = False,
    endpoint: Annotated[str | None, typer.Option(help="Model server, host:port.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take the account through all bars that have closed since its last one.

    Bars that the model was trained on flatter it: the summary says until when it was trained.
    """
    from barcast.bars.ingest import open_store
    from barcast.durable import write_atomic
    from barcast.serving import replay, state
    from barcast.serving.predictor import open_predictor

    settings = current(config)
    workspace = settings.open_workspace()
    with _account_alone(workspace):
        store = open_store(settings, workspace)
        account = None if new else load_account(workspace)
        if account is None:
            account = fresh_account(settings, store.symbols())
        bars = store.read()
        start = account.last if account.last is not None else (since.replace(tzinfo=UTC) if since else None)
        with open_predictor(settings, workspace, endpoint) as predictor:
            signals = replay.model_signals(predictor, bars, after=start)

        def stopped(now: PaperAccount) -> str:
            return state.save_account(workspace, now.view(), settings).emergency_reason

        asked: Counter[str] = Counter()

        def seen(_: datetime, advice: Mapping[str, Advice]) -> None:
            for one in advice.values():
                asked["advice"] += 1
                asked["acted"] += one.side != 0
                asked.update(refusal.rule for refusal in one.refusals)

        # the stop's trigger is looked at on every bar, but only the last state is written
        replay.run(
            account,
            bars,
            signals,
            settings,
            since=start,
            emergency_reason=_once(stopped, settings, workspace),
            seen=seen,
        )
        state.save_account(workspace, account.view(), settings)
        write_atomic(path_of(workspace), account.model_dump_json())
    _show(account, settings, json, dict(asked))


@app.command()
def show(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Equity, positions and where the profit came from."""
    settings = current(config)
    _show(_known(settings.open_workspace()), settings, json)


@app.command()
def attribution(
    by: Annotated[str, typer.Option(help="symbol, regime, band or model_version.")] = "symbol",
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Net profit in parts of the starting capital."""
    from barcast.decisions.paper import attribution_by

    parts = attribution_by(_known(current(config).open_workspace()), by)
    if json:
        print_json(parts)
        return
    for name, value in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"{name:32} {value:+.4%}")
    if not parts:
        print("No trade has changed the account yet.")


@app.command()
def stop(by: By, reason: Reason, config: ConfigOption = None) -> None:
    """Pull the emergency stop: no advice to trade until a person lifts it; survives restarts."""
    from barcast.serving import state

    print(f"Stopped: {state.pull(current(config).open_workspace(), by, reason).reason}")


@app.command()
def lift(by: By, reason: Reason, config: ConfigOption = None) -> None:
    """Lift the emergency stop."""
    from barcast.durable import write_atomic
    from barcast.serving import state

    workspace = current(config).open_workspace()
    with _account_alone(workspace):  # a run that goes on would write its own peak over this one
        account = load_account(workspace)
        state.lift(workspace, by, reason)
        # From here on its drawdown counts anew, or the next bar would pull the stop again.
        if account is not None:
            account.peak = account.equity
            write_atomic(path_of(workspace), account.model_dump_json())
    print("The emergency stop is lifted.")


@app.command()
def stress(json: JsonOption = False, config: ConfigOption = None) -> None:
    """What the account's positions would lose on the worst days of the past and under shocks."""
    import numpy as np

    from barcast.bars import adjusted
    from barcast.bars.ingest import open_store
    from barcast.decisions import stress as tests
    from barcast.serving import state

    settings = current(config)
    workspace = settings.open_workspace()
    frame = adjusted(open_store(settings, workspace).read())
    daily = _daily(frame)
    symbols = tuple(c for c in daily.columns if c != "event_timestamp")
    prices = daily.select(symbols).to_numpy().astype(np.float64)
    report = tests.run(
        state.load_account(workspace, settings),
        symbols,
        prices[1:] / prices[:-1] - 1.0,
        tuple(daily["event_timestamp"].to_list()[1:]),
        settings.decisions,
    )
    if json:
        print_json(
            {"passed": report.passed, "limit": report.limit, "scenarios": [vars(s) for s in report.scenarios]}
        )
        return
    if not report.scenarios or all(scenario.change == 0 for scenario in report.scenarios):
        print("The account holds nothing, so no scenario changes it.")
        return
    for scenario in report.scenarios:
        print(f"{scenario.change:+8.2%}  {scenario.name}")
    print("passed" if report.passed else f"FAILED: a scenario loses more than {report.limit:.0%} of equity")


def path_of(workspace: Workspace) -> Path:
    """Where the paper account is kept."""
    return workspace.state / "paper.json"


def _account_alone(workspace: Workspace) -> AbstractContextManager[None]:
    """One command at a time changes the account: of two runs at once the second would undo what the first wrote."""
    from barcast.durable import alone

    return alone(
        workspace.state / "paper.lock",
        f"`barcast paper run` of workspace {workspace.name!r}",
        "Let it finish, then ask again.",
    )


def load_account(workspace: Workspace) -> PaperAccount | None:
    """The paper account, or None."""
    from pydantic import ValidationError

    from barcast.decisions.paper import PaperAccount
    from barcast.errors import ServingError

    path = path_of(workspace)
    if not path.exists():
        return None
    try:
        return PaperAccount.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ServingError(
            f"{path} is damaged.", hint="Start a new account: barcast paper run --new."
        ) from error


def fresh_account(settings: Any, symbols: list[str]) -> PaperAccount:
    """A new account for these symbols."""
    from barcast import intervals
    from barcast.decisions.paper import PaperAccount
    from barcast.errors import DataError

    if not symbols:
        raise DataError("The workspace has no bars.", hint="Run `barcast ingest` first.")
    return PaperAccount(
        capital=settings.decisions.starting_equity,
        horizon_bars=settings.horizon_bars,
        interval_seconds=intervals.seconds(settings.interval),
        symbols=symbols,
    )


def _known(workspace: Workspace) -> PaperAccount:
    from barcast.errors import ServingError

    account = load_account(workspace)
    if account is None:
        raise ServingError("There is no paper account yet.", hint="Start one: barcast paper run")
    return account


def _daily(bars: pl.DataFrame) -> pl.DataFrame:
    """The symbols' last closes by day (UTC), a column each; where a market rested that of the day before."""
    import polars as pl

    wide = bars.pivot(on="symbol", index="event_timestamp", values="close").sort("event_timestamp")
    closes = pl.exclude("event_timestamp")
    days = wide.group_by_dynamic("event_timestamp", every="1d").agg(closes.drop_nulls().last())
    return days.with_columns(closes.forward_fill())


def _once(save: Any, settings: Any, workspace: Workspace) -> Any:
    """The stop's reason at each bar; the files are touched only when the trigger pulls it."""
    from barcast.decisions import emergency
    from barcast.serving import state

    kept = [state.load_emergency(workspace).reason]

    def reason(account: PaperAccount) -> str:
        if not kept[0] and emergency.due(account.view(), settings.decisions):
            kept[0] = save(account)
        return kept[0]

    return reason


def _show(account: PaperAccount, settings: Any, json: bool, asked: dict[str, int] | None = None) -> None:
    from barcast.decisions.paper import attribution_by

    summary = {
        "capital": account.capital,
        "equity": account.equity * account.capital,
        "settled_equity": account.settled(settings.costs) * account.capital,
        "net_return": account.equity - 1.0,
        "drawdown": account.view().drawdown,
        "trades": len(account.trades),
        "last_bar": account.last,
        "positions": [p.model_dump() for p in account.view().positions],
        "attribution": {k: attribution_by(account, k) for k in ("symbol", "regime", "band", "model_version")},
    }
    if json:
        print_json({**summary, "asked": asked} if asked is not None else summary)
        return
    last = f"last bar {account.last:%Y-%m-%d %H:%M} UTC" if account.last else "no bar seen yet"
    print(
        f"Equity {summary['equity']:,.2f} of {account.capital:,.2f} ({summary['net_return']:+.2%} after "
        f"costs), "
        f"drawdown {summary['drawdown']:.1%}, {count(len(account.trades), 'finished trade')}, {last}."
    )
    if asked:
        rules = {rule: n for rule, n in asked.items() if rule not in ("advice", "acted")}
        most = ", ".join(f"{rule} {n}" for rule, n in sorted(rules.items(), key=lambda item: -item[1])[:5])
        print(
            f"Asked {count(asked['advice'], 'time')}, {asked['acted']} to trade; refused by: {most or 'no rule'}."
        )
    for position in account.view().positions:
        print(f"  {position.symbol:12} {position.quantity:+.6g} at {position.price:,.6g}")
    for name, value in sorted(attribution_by(account, "symbol").items()):
        print(f"  {name:12} {value:+.3%} of the capital")

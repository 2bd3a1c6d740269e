"""`barcast models`: what is registered, what waits, what is live; approve, reject, roll back, look back, check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import (
    ConfigOption,
    HostOption,
    JsonOption,
    NamespaceOption,
    TokenOption,
    current,
    print_json,
)
from barcast.wording import count

if TYPE_CHECKING:
    from barcast.registry import Ask, Registry

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Versions, decisions and what is live.")

SymbolArgument = Annotated[
    str, typer.Argument(help="A symbol, `universal`, `_ensemble`, or `_linear` for the baseline.")
]
ByOption = Annotated[str, typer.Option("--by", help="Who decides.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why.")]
VersionOption = Annotated[
    int | None, typer.Option("--version", help="Which version; else the one that waits.")
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="Model server, host:port; else serving.endpoint.")
]


@contextmanager
def _opened(config: Any, endpoint: str | None) -> Iterator[tuple[Registry, Ask | None, str]]:
    """The registry, and a way to ask the model server if one is running."""
    from barcast.registry import Registry
    from barcast.registry.asking import server

    settings = current(config)
    place = endpoint or settings.serving.endpoint
    with server(place) as ask:
        yield Registry(settings.open_workspace(), settings), ask, place


def _registry(config: Any) -> Registry:
    from barcast.registry import Registry

    settings = current(config)
    return Registry(settings.open_workspace(), settings)


def _table(columns: list[str], rows: list[list[Any]]) -> None:
    from barcast.cli._console import show_table

    show_table(columns, [[_cell(cell) for cell in row] for row in rows])


def _cell(value: Any) -> str:
    if value in (None, "", {}, []):
        return "-"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@app.command("list")
def list_models(json: JsonOption = False, config: ConfigOption = None) -> None:
    """What is live and what waits for a decision, one row a model."""
    rows = _registry(config).list()
    if json:
        print_json(rows)
        return
    if not rows:
        print("Nothing is registered yet. `barcast run` trains and registers.")
        return
    columns = ["symbol", "champion", "kind", "since", "by", "challenger", "verdict", "versions"]
    _table(
        columns,
        [
            [
                row["symbol"],
                row["champion"],
                row["kind"],
                (row["since"] or "")[:10],  # the day: `history` has the time
                row["by"],
                _challenger(row),
                row["verdict"],
                row["num_versions"],
            ]
            for row in rows
        ],
    )


def _challenger(row: dict[str, Any]) -> str:
    """The version that waits, or that gets requests, and which of both where it is more than a challenger."""
    traffic, number = row["traffic"], row["challenger"]
    found = str(number or "")
    if number and row["challenger_status"] != "challenger":
        found += f" ({row['challenger_status']})"
    if not traffic:
        return found
    mode = "shadow" if traffic["mode"] == "shadow" else f"{traffic['share']:.0%}"
    gets = f"{traffic['version']} ({mode})"
    return gets if number in (None, traffic["version"]) else f"{found}, {gets}"


@app.command()
def show(
    symbol: SymbolArgument,
    version: VersionOption = None,
    card: Annotated[bool, typer.Option("--card", help="Print the model card.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Everything about one version: what made it, how it did, who decided."""
    registry = _registry(config)
    found = registry.show(symbol, version)
    if json:
        print_json(found)
    elif card:
        print(registry.card(symbol, found["version"]))
    else:
        _table(
            ["", ""],
            [
                [k, v]
                for k, v in found.items()
                if k not in ("model_card", "metrics", "parameters", "verdict", "decided")
            ],
        )
        if found["verdict"]:
            print(f"\nVerdict: {found['verdict']['outcome']}. {' '.join(found['verdict']['reasons'])}")
        if found["decided"]:
            decided = found["decided"]
            print(f"Decided: {decided['action']} by {decided['by']}: {decided['reason']}")
        for title in ("metrics", "parameters"):
            print(f"\n{title.capitalize()}")
            _table(["", ""], sorted(found[title].items()))


@app.command()
def approve(
    symbol: SymbolArgument,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    endpoint: EndpointOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = "kubeflow",
    token: TokenOption = None,
    config: ConfigOption = None,
) -> None:
    """Approve the waiting challenger and serve exactly what was evaluated.

    Both are the promotion pipeline's work: here at once, with --host on a cluster, where nothing else may write
    served models.
    """
    if host:
        from barcast.adapters import kubeflow_cluster

        number = _registry(config).approve(symbol, by=by, reason=reason, version=version)
        run_id = kubeflow_cluster.promote(current(config), host=host, namespace=namespace, token=token)
        print(f"{symbol}: version {number} is approved by {by}; promotion runs as {run_id}.")
        return
    from barcast.cli.run import run_watched

    settings = current(config)
    if endpoint:
        serving = settings.serving.model_copy(update={"endpoint": endpoint})
        settings = settings.model_copy(update={"serving": serving})
    number = _registry(config).approve(symbol, by=by, reason=reason, version=version)
    run_watched(settings, "promotion")
    print(f"{symbol}: version {number} is live, approved by {by}, and gave the recorded answer.")


@app.command()
def reject(
    symbol: SymbolArgument,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    config: ConfigOption = None,
) -> None:
    """Reject the waiting challenger; it is never served."""
    number = _registry(config).reject(symbol, by=by, reason=reason, version=version)
    print(f"{symbol}: version {number} is rejected by {by}; what answers now goes on.")


@app.command()
def rollback(
    symbol: SymbolArgument,
    by: ByOption,
    reason: ReasonOption,
    to: Annotated[
        int | None, typer.Option("--to", help="Which earlier champion; else the last good one.")
    ] = None,
    endpoint: EndpointOption = None,
    host: HostOption = None,
    namespace: NamespaceOption = "kubeflow",
    token: TokenOption = None,
    config: ConfigOption = None,
) -> None:
    """Serve an earlier good version again; with --host by the promotion pipeline of that cluster."""
    if host:
        from barcast.adapters import kubeflow_cluster

        run_id = kubeflow_cluster.promote(
            current(config), host=host, namespace=namespace, token=token,
            rollback=symbol, to=to or 0, by=by, reason=reason,
        )  # fmt: skip
        print(f"{symbol}: the rollback runs as {run_id}.")
        return
    with _opened(config, endpoint) as (registry, ask, place):
        number = registry.rollback(symbol, to, by=by, reason=reason, ask=ask)
        print(f"{symbol}: version {number} is live again. {_checked(ask, place)}")


@app.command()
def retire(symbol: SymbolArgument, by: ByOption, reason: ReasonOption, config: ConfigOption = None) -> None:
    """Take a symbol's own model out of service; the universal model answers then."""
    from barcast import logs

    with logs.without("retired"):
        _registry(config).retire(symbol, by=by, reason=reason)
    print(
        f"{symbol} is out of service; what stands behind it answers. `barcast models rollback` with --to undoes it."
    )


@app.command()
def traffic(
    symbol: SymbolArgument,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    mode: Annotated[str, typer.Option(help="shadow (a copy of all), ab (a share), or off.")] = "shadow",
    share: Annotated[float, typer.Option(help="Share of requests that the challenger answers (ab).")] = 0.1,
    endpoint: EndpointOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a challenger a copy or a share of the requests."""
    from barcast.errors import RegistryError

    with _opened(config, endpoint) as (registry, ask, _):
        if mode == "off":
            registry.clear_traffic(symbol, by=by, reason=reason)
            print(f"{symbol}: the challenger gets no requests any more.")
            return
        waits = next((row for row in registry.list() if row["symbol"] == symbol), {})
        number = version or waits.get("challenger")
        if number is None:
            raise RegistryError(
                f"{symbol} has no challenger.", hint="Name a registered version with --version."
            )
        registry.set_traffic(symbol, number, mode=mode, share=share, by=by, reason=reason, ask=ask)
        print(
            f"{symbol}: version {number} gets "
            f"{'a copy of all' if mode == 'shadow' else f'{share:.0%} of the'} requests."
        )


@app.command()
def history(
    symbol: SymbolArgument,
    day: Annotated[
        str | None, typer.Option("--day", help="YYYY-MM-DD (UTC): what answered then, and who decided.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Every decision about a model; with --day, what served the symbol on that day and who decided."""
    from datetime import date

    from barcast.errors import ConfigError

    try:
        wanted = date.fromisoformat(day) if day else None
    except ValueError:
        raise ConfigError(f"--day {day!r} is no date.", hint="Write it as YYYY-MM-DD.") from None
    rows = _registry(config).history(symbol, wanted)
    if json:
        print_json(rows)
    elif wanted is None:
        _table(
            ["#", "time (UTC)", "action", "version", "by", "reason"],
            [
                [
                    r["number"],
                    r["time"][:16].replace("T", " "),
                    r["action"],
                    r["version"],
                    r["by"],
                    r["reason"],
                ]
                for r in rows
            ],
        )
    elif not rows:
        print(f"Nothing answered for {symbol} on {wanted}.")
    else:
        _table(
            ["from (UTC)", "until", "model", "version", "kind", "by", "decided as", "reason"],
            [
                [
                    f"{r['served_from']:%H:%M:%S}",
                    f"{r['served_until']:%H:%M:%S}" if r["served_until"].date() == wanted else "24:00:00",
                    r["model"],
                    r["version"],
                    r["kind"],
                    r["by"],
                    f"{r['change']} of {r['since']:%Y-%m-%d}",
                    r["reason"],
                ]
                for r in rows
            ],
        )


@app.command()
def verify(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Check ledger, models.config, version directories, recorded answers and MLflow with its stored files."""
    from barcast.errors import RegistryError

    registry = _registry(config)
    findings = registry.verify()
    if json:
        print_json([{"where": f.where, "problem": f.problem} for f in findings])
    else:
        for finding in findings:
            print(f"{finding.where}: {finding.problem}")
    if findings:
        raise RegistryError(
            f"{count(len(findings), 'fault')} found.",
            hint="`barcast models repair` restores what an intact ledger says.",
        )
    if json:
        return
    place = f"workspace {registry.workspace.name!r} at {registry.workspace.root}"
    entries, models = registry.ledger.read(), registry.state().models
    if not models:
        print(f"Nothing is registered in {place}: there is nothing to check.")
        return
    versions = sum(len(model.versions) for model in models.values())
    lines = count(len(entries), "ledger line")
    print(f"Checked {place}: {lines}, {count(len(models), 'model')}, {count(versions, 'version')}.")
    print("Everything is what the ledger says.")


@app.command()
def repair(symbol: SymbolArgument, by: ByOption, reason: ReasonOption, config: ConfigOption = None) -> None:
    """Restore version directories, models.config and alias of a model to what the ledger says."""
    done = _registry(config).repair(symbol, by=by, reason=reason)
    print(f"{symbol}: restored {', '.join(done)}." if done else f"{symbol}: nothing was wrong.")


def _checked(ask: Ask | None, place: str) -> str:
    if ask is None:
        return f"No model server runs at {place}; `barcast serve` starts one."
    return f"The server at {place} gave the recorded answer."

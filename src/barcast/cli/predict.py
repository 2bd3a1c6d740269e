"""`barcast predict`: ask for predictions and print them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count

if TYPE_CHECKING:
    import polars as pl

    from barcast.config import Config


def predict(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols to predict.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All symbols of the workspace, the most promising first.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why.")] = False,
    bars: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet file with bars to answer for, instead of the stored ones."),
    ] = None,
    json: JsonOption = False,
    endpoint: Annotated[str | None, typer.Option(help="Model server, host:port.")] = None,
    config: ConfigOption = None,
) -> None:
    """Ask for predictions.

    Leaves with code 7 when no symbol could be answered.
    """
    from barcast import logs
    from barcast.errors import ConfigError, ServingError
    from barcast.serving.predictor import open_predictor
    from barcast.serving.state import load_account

    if bool(symbols) == everything and (everything or bars is None):
        raise ConfigError(
            "Name the symbols, or give --all (not both).", hint="For example: barcast predict AAPL"
        )
    settings = current(config)
    workspace = settings.open_workspace()
    if bars is None and not _has_run(settings):
        raise ServingError(
            f"Workspace {workspace.name!r} at {workspace.root} has no bars and no live model.", hint=_RUN
        )
    # Said under the table, as what answered instead or as a rule that refused.
    told = logs.without("online store failed", "model server absent", "members not heard")
    with told, open_predictor(settings, workspace, endpoint) as predictor:
        account = load_account(workspace, settings)
        if bars is None:
            answers = predictor.predict(None if everything else symbols, explain=explain, account=account)
        else:
            given = _read(bars, symbols, settings)
            answers = predictor.predict_given(given, explain=explain, account=account)
    if everything:
        answers.sort(key=lambda answer: -(answer.opportunity or 0.0))
    if json:
        print_json([answer.model_dump(mode="json") for answer in answers])
    else:
        from barcast.cli._prediction_table import show

        show(answers)
    if all(answer.status == "refused" for answer in answers):
        raise ServingError(
            f"None of {count(len(answers), 'symbol')} could be answered: {answers[0].reason}.",
            hint=_hint(settings, symbols or [], endpoint or settings.serving.endpoint),
        )


_RUN = "`barcast run` brings bars, trains and puts the first model live."


def _has_run(settings: Config) -> bool:
    """Whether there is anything to answer with: bars for the rules, or a live model."""
    from barcast.bars.ingest import open_store

    workspace = settings.open_workspace()
    return workspace.models_config.exists() or open_store(settings, workspace).exists


def _hint(settings: Config, symbols: list[str], endpoint: str) -> str:
    from barcast.bars.ingest import open_store
    from barcast.errors import did_you_mean
    from barcast.registry.asking import listens

    workspace = settings.open_workspace()
    known = open_store(settings, workspace).symbols()
    unknown = next((symbol for symbol in symbols if known and symbol not in known), None)
    if unknown is not None:
        return did_you_mean(unknown, known) or f"Known are {', '.join(known[:10])}."
    if not workspace.models_config.exists():
        return _RUN
    if not listens(endpoint):
        return "Start the model server with `barcast serve`."
    return "`barcast status` shows what is there."


def _read(path: Path, symbols: list[str] | None, settings: Config) -> pl.DataFrame:
    """Bars of a file, its columns named as `source.files` of the configuration says."""
    from barcast.bars import calendars_of
    from barcast.bars.sources.files import FilesSource
    from barcast.errors import DataError

    if not path.exists():
        raise DataError(f"There is no file {path}.", hint="Give --bars a CSV or Parquet file.")
    files = settings.source.files.model_copy(update={"path": str(path)})
    return FilesSource(files, settings.interval, calendars_of(settings)).fetch(symbols)

"""`barcast train SYMBOL`: a model trained outside a pipeline run, beside what it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json


def say(text: str) -> None:
    """Progress, beside the result."""
    typer.echo(text, err=True)


def stored_dataset(settings: Any) -> Any:
    """The dataset of the workspace's bars under these settings."""
    from barcast.bars.ingest import open_store
    from barcast.training.prepare import from_bars

    return from_bars(open_store(settings, settings.open_workspace()).read(), settings)


def train(
    symbol: Annotated[str, typer.Argument(help="The symbol, or `universal` for the model of all symbols.")],
    config: ConfigOption = None,
    parent: Annotated[
        Path | None,
        typer.Option(help="Folder of the model to start from; the live universal model without it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to export into; a new one among the workspace's runs without it."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train one symbol's own model from its parent and compare both on the held-out span.

    The model is exported, not put live: a pipeline run (`barcast run`) takes models through the gate.
    """
    from barcast import clock, names, splits, training
    from barcast.errors import DataError, ModelError, did_you_mean
    from barcast.training.compare import scores

    settings = current(config)
    workspace = settings.open_workspace()
    dataset = stored_dataset(settings)
    if symbol != names.UNIVERSAL and symbol not in dataset.symbols:
        raise DataError(
            f"There are no usable rows of {symbol!r}.",
            hint=did_you_mean(symbol, dataset.symbols) or f"Known: {', '.join(dataset.symbols[:10])}.",
        )
    fold = splits.holdout(dataset.rows, settings.splits)
    work = workspace.runs / f"train-{names.slug(symbol)}-{clock.now():%Y%m%dT%H%M%S}"
    if symbol == names.UNIVERSAL:
        model = training.train_universal(dataset, fold, settings, work / "fit", progress=say)
        rows, against = fold.test, training.train_linear(dataset, fold, settings)
    else:
        parent = parent or _live_universal(settings, workspace)
        if parent is None:
            raise ModelError("There is no universal model to start from.", hint="Run `barcast run` first.")
        against = training.TrainedModel.load(parent)
        model = training.train_symbol(against, dataset, symbol, fold, settings, work / "fit", progress=say)
        rows = fold.test[[s == symbol for s in dataset.rows["symbol"][fold.test]]]
    path = model.export(out or work / "export")
    label = dataset.classes(model.info.thresholds)
    results = {
        candidate.default_name(): scores(candidate, dataset, rows, label) for candidate in (model, against)
    }
    if json:
        print_json(
            {
                "symbol": symbol,
                "model": str(path),
                "rows": len(rows),
                "scores": results,
                "training": model.summary(),
            }
        )
        return
    typer.echo(f"{symbol}: exported to {path}")
    for name, values in results.items():
        typer.echo(f"  {name:10} " + ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in values.items()))


def _live_universal(settings: Any, workspace: Any) -> Path | None:
    from barcast.registry import Registry

    registry = Registry(workspace, settings.registry)
    model = registry.state().models.get(registry.model_name(None))
    if model is None or model.champion is None:
        return None
    folder: Path = workspace.models / model.name / str(model.champion)
    return folder

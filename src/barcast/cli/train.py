"""`barcast train SYMBOL`: a model trained outside a pipeline run, beside what it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.quiet_tensorflow import load_tensorflow


def say(text: str) -> None:
    """Progress, beside the result."""
    typer.echo(text, err=True)


def stored_dataset(settings: Any, symbols: Sequence[str] | None = None) -> Any:
    """The dataset of the workspace's bars under these settings; `symbols` numbers them as a model does."""
    from barcast.bars.ingest import open_store
    from barcast.training.prepare import from_bars

    bars = open_store(settings, settings.open_workspace()).read()
    return from_bars(bars, settings, symbols=symbols)


def train(
    symbol: Annotated[str, typer.Argument(help="The symbol, or `universal` for the model of all symbols.")],
    config: ConfigOption = None,
    parent: Annotated[
        Path | None,
        typer.Option(help="Folder of the model to start from; without it the live one."),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Teach the model the bars that came since it was trained, as training.continual says.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to export into; a new one among the workspace's runs without it."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train one symbol's own model from the universal one, or go on with a model, and compare both on unseen bars.

    The model is exported, not put live: a pipeline run (`barcast run`) takes models through the gate.
    """
    from barcast import clock, names, splits, training
    from barcast.errors import DataError, did_you_mean

    settings = current(config)
    workspace = settings.open_workspace()
    universal = symbol == names.UNIVERSAL
    if not universal:
        _check_symbol(settings, workspace, symbol)
    load_tensorflow()
    from barcast.training import common, continual
    from barcast.training.compare import scores

    start = None
    if go_on or not universal:
        start = training.TrainedModel.load(parent or _live(settings, workspace, symbol if go_on else None))
    dataset = stored_dataset(settings, start.info.symbols if start else None)
    if not universal and not len(dataset.of_symbol(symbol)):
        raise DataError(
            f"There are no usable rows of {symbol!r}.",
            hint=did_you_mean(symbol, dataset.symbols) or f"Known: {', '.join(dataset.symbols[:10])}.",
        )
    work = workspace.runs / f"train-{names.slug(symbol)}-{clock.now():%Y%m%dT%H%M%S}"
    fold, old = splits.holdout(dataset.rows, settings.splits), None
    if go_on and start is not None:
        fold, old = continual.since(
            start, dataset, fold if universal else common.of_symbol(dataset, fold, symbol)
        )
        against = {"before": start}
        model = continual.update(start, dataset, fold, settings, work / "fit", old_rows=old, progress=say)
    elif start is None:
        against = {"linear": training.train_linear(dataset, fold, settings)}
        model = training.train_universal(dataset, fold, settings, work / "fit", progress=say)
    else:
        against = {"parent": start}
        model = training.train_symbol(start, dataset, symbol, fold, settings, work / "fit", progress=say)
    model = training.compressed(model, dataset, fold, settings)
    rows = fold.test if universal else common.of_symbol(dataset, fold, symbol).test
    path = model.export(out or work / "export")
    label = dataset.classes(model.info.thresholds)
    both = {"new": model, **against}
    results = {name: scores(m, dataset, rows, label) for name, m in both.items()}
    if old is not None:
        # What the model had learned before: has it forgotten?
        known = common.spread(old, 2000)
        results |= {f"{name}, old bars": scores(m, dataset, known, label) for name, m in both.items()}
    if json:
        facts = {"symbol": symbol, "model": str(path), "rows": len(rows), "scores": results}
        print_json({**facts, "training": model.summary()})
        return
    typer.echo(f"{symbol}: exported to {path}; on {len(rows)} unseen rows:")
    for name, values in results.items():
        typer.echo(f"  {name:16} " + ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in values.items()))


def _check_symbol(settings: Any, workspace: Any, symbol: str) -> None:
    """Refuse an unknown symbol before anything slow begins."""
    from barcast.bars.ingest import open_store
    from barcast.errors import DataError, did_you_mean

    known = open_store(settings, workspace).symbols()
    if known and symbol not in known:
        raise DataError(
            f"There are no bars of {symbol!r}.",
            hint=did_you_mean(symbol, known) or f"Known: {', '.join(known[:10])}.",
        )


def _live(settings: Any, workspace: Any, symbol: str | None) -> Path:
    """Folder of the champion of `symbol`, or of the universal model."""
    from barcast import names
    from barcast.errors import ModelError
    from barcast.registry import Registry

    registry = Registry(workspace, settings.registry)
    model = registry.state().models.get(registry.model_name(symbol))
    if model is None or model.champion is None:
        word = symbol or names.UNIVERSAL
        raise ModelError(
            f"There is no live {word} model to start from"
            + ("." if model is None else ": it is registered, but neither gate nor person put it live."),
            hint=f"`barcast models show {word}` says what the gate found; or give --parent FOLDER."
            if model
            else "Run `barcast run` first, or give --parent FOLDER.",
        )
    folder: Path = workspace.models / model.name / str(model.champion)
    return folder

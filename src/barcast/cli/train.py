"""`barcast train SYMBOL`, `barcast tune`, `barcast experiment compare`: training outside a pipeline run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json

experiment_app = typer.Typer(help="Compare configurations and models.", no_args_is_help=True)


@experiment_app.callback()
def _experiments() -> None:
    """Keeps `compare` a command of its own name."""


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _dataset(settings: Any) -> Any:
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
    dataset = _dataset(settings)
    if symbol != names.UNIVERSAL and symbol not in dataset.symbols:
        raise DataError(
            f"There are no usable rows of {symbol!r}.",
            hint=did_you_mean(symbol, dataset.symbols) or f"Known: {', '.join(dataset.symbols[:10])}.",
        )
    fold = splits.holdout(dataset.rows, settings.splits)
    work = workspace.runs / f"train-{names.slug(symbol)}-{clock.now():%Y%m%dT%H%M%S}"
    if symbol == names.UNIVERSAL:
        model = training.train_universal(dataset, fold, settings, work / "fit", progress=_say)
        rows, against = fold.test, training.train_linear(dataset, fold, settings)
    else:
        parent = parent or _live_universal(settings, workspace)
        if parent is None:
            raise ModelError("There is no universal model to start from.", hint="Run `barcast run` first.")
        against = training.TrainedModel.load(parent)
        model = training.train_symbol(against, dataset, symbol, fold, settings, work / "fit", progress=_say)
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


def tune(
    config: ConfigOption = None,
    trials: Annotated[int, typer.Option(help="Trials to add to the study.")] = 20,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    study: Annotated[str, typer.Option(help="Name of the study; the same name goes on with it.")] = "network",
    storage: Annotated[
        str,
        typer.Option(
            help="Optuna storage (sqlite:///… or postgresql+psycopg://…); the workspace's without it."
        ),
    ] = "",
    plots: Annotated[bool, typer.Option(help="Write plots beside the study.")] = True,
    json: JsonOption = False,
) -> None:
    """Search hyper-parameters; every trial is purged cross-validated before the held-out span, and counted."""
    from barcast import splits
    from barcast.training import tuning

    settings = current(config)
    folder = settings.open_workspace().state / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    storage = storage or f"sqlite:///{folder / 'studies.db'}"
    dataset = _dataset(settings)
    fold = splits.holdout(dataset.rows, settings.splits)
    found = tuning.search(
        dataset,
        fold,
        settings,
        study_name=study,
        storage=storage,
        sampler=sampler,
        trials=trials,
        progress=_say,
    )
    written = []
    if plots and found.states.get("complete", 0) > 1:
        opened = tuning.open_study(study, storage, sampler=sampler)
        written = [str(path) for path in tuning.plots(opened, folder / study)]
    facts = {"study": study, "storage": storage, **vars(found), "plots": written}
    if json:
        print_json(facts)
        return
    typer.echo(f"{found.num_trials} trials {found.states}; best log loss {found.value:.5f}")
    for name, value in found.best.items():
        typer.echo(f"  {name}: {value}")
    for path in written:
        typer.echo(f"  plot: {path}")


@experiment_app.command()
def compare(
    configs: Annotated[list[Path], typer.Argument(help="Configuration files of one workspace's bars.")],
    folds: Annotated[int, typer.Option(help="Walk-forward folds; 1 uses the held-out span only.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for models, table and plot.")] = None,
    json: JsonOption = False,
) -> None:
    """Train each configuration on the same bars and folds; one table and one plot."""
    from barcast import clock, splits
    from barcast.errors import ConfigError
    from barcast.training import compare as experiments

    loaded = {path.stem: current(path) for path in configs}
    first = next(iter(loaded.values()))
    for name, other in loaded.items():
        for key in ("workspace", "interval", "horizon_bars", "lookback_bars"):
            if getattr(other, key) != getattr(first, key):
                raise ConfigError(
                    f"{name} differs in {key}; only models of the same question can be compared.",
                    hint="Compare configurations that differ in model, training or labels.",
                )
    workspace = first.open_workspace()
    folder = out or workspace.runs / f"experiment-{clock.now():%Y%m%dT%H%M%S}"
    dataset = _dataset(first)
    if folds == 1:
        cuts = [splits.holdout(dataset.rows, first.splits)]
    else:
        cuts = splits.walk_forward(dataset.rows, first.splits.model_copy(update={"folds": folds}))
    table = experiments.compare(dataset, cuts, loaded, folder, progress=_say)
    table.write_csv(folder / "comparison.csv")
    picture = experiments.plot(table, folder / "comparison.png")
    if json:
        print_json({"folder": str(folder), "plot": str(picture), "results": table.to_dicts()})
        return
    for row in table.iter_rows(named=True):
        typer.echo(
            f"{row['experiment']:20} fold {row['fold']} {row['symbol']:10} rows {row['rows']:6} "
            f"log loss {row['log_loss']:.4f} accuracy {row['accuracy']:.3f} mcc {row['mcc']:+.3f} "
            f"rank ic {row['rank_ic']:+.3f}"
        )
    typer.echo(f"plot: {picture}")

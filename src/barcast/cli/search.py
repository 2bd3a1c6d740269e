"""`barcast tune` and `barcast experiment compare`: many configurations, each counted for the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.cli.train import say, stored_dataset
from barcast.quiet_tensorflow import load_tensorflow
from barcast.wording import count

experiment_app = typer.Typer(
    add_completion=False, help="Compare configurations and models.", no_args_is_help=True
)


@experiment_app.callback()
def _experiments() -> None:
    """Keeps `compare` a command of its own name."""


def tune(
    config: ConfigOption = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials to add; tuning.trials without it.")
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="tpe, random or grid; the configuration's tuning.sampler without it.")
    ] = "",
    study: Annotated[str, typer.Option(help="Name of the study; the same name goes on with it.")] = "network",
    storage: Annotated[
        str,
        typer.Option(
            envvar="BARCAST_STUDIES",
            help="Optuna storage (sqlite:///… or postgresql+psycopg://…); the workspace's without it.",
        ),
    ] = "",
    plots: Annotated[bool, typer.Option(help="Write plots beside the study.")] = True,
    json: JsonOption = False,
) -> None:
    """Search hyper-parameters; every trial is purged cross-validated before the held-out span, and counted.

    The same command in several processes or on several machines, with one storage, works on one study together.
    """
    import yaml

    from barcast import splits
    from barcast.registry import Registry

    load_tensorflow()
    from barcast.training import tuning

    settings = current(config)
    workspace = settings.open_workspace()
    folder = workspace.state / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = {
        "storage": storage or f"sqlite:///{folder / 'studies.db'}",
        "sampler": sampler or settings.tuning.sampler,
        "space": settings.tuning.axes(),
    }
    opened = tuning.open_study(study, **asked)  # refused before the data are prepared
    registry = Registry(workspace, settings)
    dataset = stored_dataset(settings)
    found = tuning.search(
        dataset,
        splits.holdout(dataset.rows, settings.splits),
        settings,
        study_name=study,
        trials=trials or settings.tuning.trials,
        counted=registry.count_trial,
        progress=say,
        **asked,
    )
    results = folder / study
    results.mkdir(exist_ok=True)
    best = results / "best.yaml"
    best.write_text(yaml.safe_dump(_with(settings, tuning.chosen(settings, found.best)), sort_keys=False))
    written = [str(path) for path in tuning.plots(opened, results)] if plots else []
    counted = registry.num_trials(None)
    if json:
        print_json({"study": study, **vars(found), "counted": counted, "config": str(best), "plots": written})
        return
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    typer.echo(
        f"Study {study}: {count(found.num_trials, 'trial')} ({states}); best mean log loss {found.value:.5f}."
    )
    for name, value in found.best.items():
        typer.echo(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    for path in written:
        typer.echo(f"  plot: {path}")
    typer.echo(f"The gate counts {count(counted, 'trial')} of this workspace when it judges the next models.")
    typer.echo(f"Run with the best values: barcast run {best}")


def _with(settings: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Everything a configuration file must say to be `settings` with `changes` in its sections."""
    plain: dict[str, Any] = settings.model_dump(mode="json", exclude={"storage"}, exclude_defaults=True)
    return _merged(plain, changes)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merged(old[k], v) for k, v in new.items() if isinstance(v, dict) and isinstance(old.get(k), dict)
    }
    return {**old, **new, **both}


@experiment_app.command()
def compare(
    configs: Annotated[list[Path], typer.Argument(help="Configuration files of one workspace's bars.")],
    folds: Annotated[int, typer.Option(min=1, help="Walk-forward folds; 1 uses the held-out span only.")] = 1,
    symbols: Annotated[
        bool, typer.Option("--symbols", help="Train each symbol's own model too, beside the universal one.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for models, table and plot.")] = None,
    json: JsonOption = False,
) -> None:
    """Train each configuration on the same bars and folds; one table and one plot.

    Every configuration is a trial that the gate counts, since its test rows were looked at.
    """
    from barcast import clock, splits
    from barcast.registry import Registry

    load_tensorflow()
    from barcast.training import compare as experiments

    loaded = experiments.same_question({path: current(path) for path in configs})
    first = next(iter(loaded.values()))
    workspace = first.open_workspace()
    name = f"experiment-{clock.now():%Y%m%dT%H%M%S}"
    folder = out or workspace.runs / name
    dataset = stored_dataset(first)
    if folds == 1:
        cuts = [splits.holdout(dataset.rows, first.splits)]
    else:
        cuts = splits.walk_forward(dataset.rows, first.splits.model_copy(update={"folds": folds}))
    registry = Registry(workspace, first)
    for number in range(len(loaded)):
        registry.count_trial(name, number)
    table = experiments.compare(dataset, cuts, loaded, folder, symbols=symbols, progress=say)
    table.write_csv(folder / "comparison.csv")
    picture = experiments.plot(table, folder / "comparison.png")
    if json:
        print_json({"folder": str(folder), "plot": str(picture), "results": table.to_dicts()})
        return
    typer.echo(experiments.text(table))
    typer.echo(f"table: {folder / 'comparison.csv'}\nplot:  {picture}")

"""Hyper-parameter search: every trial purged cross-validated, counted, pruned when hopeless, and resumable.

A dataset and a configuration go in; an Optuna study comes out, kept in SQLite or PostgreSQL. Test rows are never
touched: only rows before the fold's cutoff are cut into the trial's own folds. Workers on other machines join a
study by its name and storage.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.config.models import ModelConfig, TrainingConfig
from barcast.datasets import Dataset
from barcast.errors import ConfigError, ModelError
from barcast.labels import fit_thresholds
from barcast.splits import Fold, purged_folds
from barcast.training import common, trainer
from barcast.training import targets as target_rows
from barcast.training.settings import PlainSettings, Settings
from barcast.training.trained import make_network
from barcast.training.universal import return_scale

# The documented space first (seed document 1), then ours. Lists are choices, pairs are log-uniform bounds.
SPACE: dict[str, list[Any] | tuple[float, float]] = {
    "lstm_units": ["64,32,16", "128,64,32", "256,128,64"],
    "dropout": [0.1, 0.2, 0.3],
    "learning_rate": (1e-4, 1e-2),
    "batch_size": [32, 64, 128, 256],
    "attention_heads": [4, 8, 16],
    "weight_decay": (1e-4, 1e-1),
    "profit_weight": (1e-3, 1.0),
}
# A grid needs points on the continuous axes too.
GRID = {"learning_rate": [1e-4, 1e-3, 1e-2], "weight_decay": [0.01], "profit_weight": [0.1]}
SAMPLERS = ("tpe", "random", "grid")


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        best: the best trial's values by name.
        value: its mean log loss over the folds.
        num_trials: all trials of the study so far, pruned and failed ones too: the number the gate needs.
        states: trials by state.
    """

    best: dict[str, Any]
    value: float
    num_trials: int
    states: dict[str, int]


def open_study(
    name: str,
    storage: str | None,
    *,
    sampler: str = "tpe",
    seed: int = 7,
    space: dict[str, Any] | None = None,
) -> Any:
    """The study of this name, made if it is new.

    Args:
        storage: "sqlite:///path" or "postgresql+psycopg://..."; None keeps it in memory.
        sampler: "tpe", "random" or "grid".
        space: choices and bounds; SPACE when None.

    Raises:
        ConfigError: an unknown sampler.
        ModelError: the stored study searched another space.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space or SPACE
    if sampler not in SAMPLERS:
        raise ConfigError(f"Sampler {sampler!r} is not known.", hint=f"It is one of {SAMPLERS}.")
    made: Any
    if sampler == "grid":
        axes = {k: v if isinstance(v, list) else GRID.get(k, list(v)) for k, v in space.items()}
        made = optuna.samplers.GridSampler(axes, seed=seed)
    else:
        made = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler](
            seed=seed
        )
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=made,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        direction="minimize",
        load_if_exists=True,
    )
    mark = json.dumps(space, sort_keys=True)
    stored = study.user_attrs.get("space")
    if stored is not None and stored != mark:
        raise ModelError(
            f"Study {name!r} searched another space.", hint="Give the search another --study name."
        )
    if stored is None:
        study.set_user_attr("space", mark)
    return study


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """One value of each axis."""
    return {
        name: trial.suggest_categorical(name, axis)
        if isinstance(axis, list)
        else trial.suggest_float(name, axis[0], axis[1], log=True)
        for name, axis in space.items()
    }


def apply(settings: Settings, values: dict[str, Any]) -> PlainSettings:
    """Settings with the values of a trial put in their places.

    Raises:
        ConfigError: a name that is no axis.
    """
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    loss: dict[str, Any] = {}
    for name, value in values.items():
        if name == "lstm_units":
            model[name] = tuple(int(u) for u in str(value).split(","))
        elif name == "dropout":
            model |= {"lstm_dropout": value, "dense_dropout": value}
        elif name in ModelConfig.model_fields:
            model[name] = value
        elif name in ("profit_weight", "return_weight", "regime_weight"):
            loss[name] = value
        elif name in TrainingConfig.model_fields:
            training[name] = value
        else:
            raise ConfigError(f"{name!r} is no axis of a search.", hint=f"Known: {sorted(SPACE)}.")
    old = settings.training
    new_training = TrainingConfig(
        **{**old.model_dump(), **training, "loss": {**old.loss.model_dump(), **loss}}
    )
    return PlainSettings(
        labels=settings.labels,
        splits=settings.splits,
        model=ModelConfig(**{**settings.model.model_dump(), **model}),
        training=new_training,
        horizon_bars=settings.horizon_bars,
        lookback_bars=settings.lookback_bars,
        seed=settings.seed,
    )


def score_fold(
    dataset: Dataset,
    train: np.ndarray,
    test: np.ndarray,
    settings: Settings,
    *,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> float:
    """Log loss on `test` of a network trained on `train`, whose last fifth in time stops it early."""
    common.set_seed(settings.seed)
    order = train[np.argsort(dataset.column("event_timestamp")[train], kind="stable")]
    cut = int(len(order) * 0.8)
    ends = dataset.column("label_end_timestamp")
    begin = dataset.column("event_timestamp")[order[cut]]
    fit_rows, stop_rows = order[:cut], order[cut:]
    fit_rows = fit_rows[ends[fit_rows] < begin]
    thresholds = fit_thresholds(dataset.rows[fit_rows], settings.labels)
    targets = target_rows.make(dataset, fit_rows, thresholds, settings.training, settings.labels)
    mean, scale, selected, _ = target_rows.feature_statistics(dataset, fit_rows)
    from barcast.models.presets import architecture

    shape = architecture(
        settings.model,
        num_features=dataset.num_features,
        lookback_bars=dataset.lookback_bars,
        selected=selected,
        precision=settings.training.precision,
    )
    network = make_network("network", shape, settings.seed)
    network.normalise.adapt(mean[list(selected)], scale[list(selected)])
    network.statistics.return_scale.assign(return_scale(targets, fit_rows))
    plan = trainer.Plan.of(settings.training, settings.model.preset)
    trainer.fit(
        network,
        dataset,
        fit_rows,
        stop_rows,
        targets,
        settings.training,
        plan,
        seed=settings.seed,
        on_epoch=on_epoch,
    )
    return log_loss(network, dataset, test, targets.arrays["label"])


def log_loss(network: Any, dataset: Dataset, rows: np.ndarray, label: np.ndarray) -> float:
    """Mean log loss of the averaged answer on rows."""
    total = 0.0
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        p = np.asarray(network.answer(dataset.windows(part), dataset.symbol_id[part])["probabilities"])
        total -= float(np.log(np.clip(p[np.arange(len(part)), label[part]], 1e-7, None)).sum())
    return total / len(rows)


def search(
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    *,
    study_name: str = "network",
    storage: str | None = None,
    sampler: str = "tpe",
    trials: int = 20,
    space: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Run trials until the study has `trials` more finished ones, or the grid is done.

    Raises:
        ConfigError, ModelError: as in `open_study`.
    """
    import optuna

    space = space or SPACE
    study = open_study(study_name, storage, sampler=sampler, seed=settings.seed, space=space)
    known = np.sort(np.concatenate([fold.train, fold.validation]))
    inner = dataset.take(known)
    cuts = purged_folds(inner.rows, settings.splits.tuning_folds, embargo_bars=settings.splits.embargo_bars)

    def objective(trial: Any) -> float:
        chosen = apply(settings, suggest(trial, space))
        losses: list[float] = []
        for number, (train, test) in enumerate(cuts):
            losses.append(score_fold(inner, train, test, chosen))
            trial.report(float(np.mean(losses)), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("fold_losses", losses)
        return float(np.mean(losses))

    def told(_: Any, trial: Any) -> None:
        if progress is not None:
            value = "pruned" if trial.value is None else f"{trial.value:.4f}"
            progress(f"trial {trial.number}: {value} {trial.params}")

    study.optimize(objective, n_trials=trials, callbacks=[told], catch=(ModelError,))
    return summarise(study)


def summarise(study: Any) -> Result:
    """The best values and how many trials stand behind them."""
    states: dict[str, int] = {}
    for trial in study.trials:
        states[trial.state.name.lower()] = states.get(trial.state.name.lower(), 0) + 1
    if not states.get("complete"):
        raise ModelError(
            "No trial of the study finished.", hint="Look at the log, widen the space, try again."
        )
    return Result(dict(study.best_params), float(study.best_value), len(study.trials), states)


def plots(study: Any, folder: Path) -> list[Path]:
    """History, importance and slices of a study as PNG files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import optuna
    from optuna.visualization import matplotlib as drawn

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    kinds: dict[str, Any] = {"history": drawn.plot_optimization_history, "slices": drawn.plot_slice}
    if len(finished) > 3:
        kinds["importance"] = drawn.plot_param_importances
    paths = []
    for name, draw in kinds.items():
        draw(study)
        figure = plt.gcf()
        figure.set_size_inches(10, 5)
        figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")
        plt.close("all")
        paths.append(folder / f"{name}.png")
    return paths


def with_best(settings: Settings, result: Result) -> PlainSettings:
    """Settings with the best values in their places."""
    return replace(apply(settings, result.best))

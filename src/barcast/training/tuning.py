"""Hyper-parameter search: every trial purged cross-validated, counted, pruned when hopeless, and resumable.

A dataset and settings go in; the best values come out, every trial kept in a study (`training.studies`). Test rows are
never touched: only rows before the fold's cutoff are cut into the trial's own folds. Workers on other machines join a
study by its name and storage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from barcast.config.models import ModelConfig, TrainingConfig
from barcast.datasets import Dataset
from barcast.errors import ConfigError, ModelError
from barcast.labels import Thresholds, fit_thresholds
from barcast.splits import Fold, purged_folds
from barcast.training import common, trainer
from barcast.training import targets as target_rows
from barcast.training.inputs import Inputs, fit_inputs
from barcast.training.settings import PlainSettings, Settings
from barcast.training.studies import (
    LOSS_AXES,
    SPACE,
    Result,
    Space,
    identity,
    make_sampler,
    open_study,
    plots,
    suggest,
    summarise,
)
from barcast.training.universal import fit_linear, new_network

__all__ = ["SPACE", "Result", "apply", "chosen", "open_study", "plots", "search", "summarise"]

# Told of every trial before it begins: (study's identity, trial's number).
Counted = Callable[[str, int], None]


def chosen(settings: Settings, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a configuration file says to have these values: its sections `model` and `training`.

    Raises:
        ConfigError: a name that is no axis, or a value that its setting refuses.
    """
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    loss: dict[str, Any] = {}
    for name, value in values.items():
        if name == "lstm_units":
            model[name] = [int(u) for u in str(value).split(",")]
        elif name == "dropout":
            model |= {"lstm_dropout": value, "dense_dropout": value}
        elif name in ModelConfig.model_fields:
            model[name] = value
        elif name in LOSS_AXES:
            loss[name] = value
        elif name in TrainingConfig.model_fields:
            training[name] = value
        else:
            raise ConfigError(f"{name!r} is no axis of a search.", hint=f"Known: {', '.join(SPACE)}.")
    return {"model": model, "training": training | ({"loss": loss} if loss else {})}


def apply(settings: Settings, values: dict[str, Any]) -> PlainSettings:
    """Settings with the values of a trial put in their places; errors as in `chosen`."""
    from pydantic import ValidationError

    found = chosen(settings, values)
    old = settings.training.model_dump()
    loss = {**old["loss"], **found["training"].pop("loss", {})}
    try:
        model = ModelConfig(**{**settings.model.model_dump(), **found["model"]})
        training = TrainingConfig(**{**old, **found["training"], "loss": loss})
    except ValidationError as error:
        raise ConfigError(
            f"The values {values} cannot be set: {error.errors()[0]['msg']}.", hint="Correct the space."
        ) from error
    return PlainSettings(
        labels=settings.labels,
        splits=settings.splits,
        model=model,
        training=training,
        horizon_bars=settings.horizon_bars,
        lookback_bars=settings.lookback_bars,
        seed=settings.seed,
    )


@dataclass(frozen=True)
class Cut:
    """One fold of a search, with what every trial shares: class limits, normalisation, selection, linear baseline.

    Attributes:
        fit, stop, test: row numbers; the last fifth in time of the fold's training rows stops a trial early.
        start: weights of the linear baseline that every trial's network starts from.
    """

    fit: np.ndarray
    stop: np.ndarray
    test: np.ndarray
    thresholds: Thresholds
    inputs: Inputs
    start: list[np.ndarray]


def make_cut(dataset: Dataset, train: np.ndarray, test: np.ndarray, settings: Settings) -> Cut:
    """Everything of a fold that no axis of the search changes, fitted on its training rows."""
    order = train[np.argsort(dataset.column("event_timestamp")[train], kind="stable")]
    fit, stop = np.split(order, [int(len(order) * 0.8)])
    fit = fit[dataset.column("label_end_timestamp")[fit] < dataset.column("event_timestamp")[stop[0]]]
    thresholds = fit_thresholds(dataset.rows[fit], settings.labels)
    inputs = fit_inputs(dataset, fit, settings, thresholds=thresholds)
    targets = target_rows.make(dataset, fit, thresholds, settings.training, settings.labels)
    start = fit_linear(dataset, fit, stop, targets, inputs).weights()
    return Cut(fit, stop, test, thresholds, inputs, start)


def score_fold(dataset: Dataset, cut: Cut, settings: Settings) -> float:
    """Log loss on the cut's test rows of a network trained on its other rows."""
    common.begin(settings)
    targets = target_rows.make(dataset, cut.fit, cut.thresholds, settings.training, settings.labels)
    network = new_network(dataset, cut.fit, settings, cut.inputs, targets, cut.start)
    plan = trainer.Plan.of(settings.training, settings.model.preset)
    trainer.fit(network, dataset, cut.fit, cut.stop, targets, settings.training, plan, seed=settings.seed)
    return log_loss(network, dataset, cut.test, targets.arrays["label"])


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
    space: Space | None = None,
    counted: Counted | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Run `trials` more trials, or until the grid is done.

    Args:
        fold: its rows before the cutoff are searched; test rows are never read.
        storage: where the study is kept; None keeps it in memory.
        counted: told of every trial before it begins, so that a trial whose process dies counts too.

    Raises:
        ConfigError, ModelError: as in `open_study`; ModelError when no trial finished.
    """
    import optuna

    space = space or SPACE
    study = open_study(study_name, storage, sampler=sampler, seed=settings.seed, space=space)
    mark = identity(study_name, storage, study)
    known = np.sort(np.concatenate([fold.train, fold.validation]))
    inner = dataset.take(known)
    folds = purged_folds(inner.rows, settings.splits.tuning_folds, embargo_bars=settings.splits.embargo_bars)
    cuts = [make_cut(inner, train, test, settings) for train, test in folds]

    def objective(trial: Any) -> float:
        if counted is not None:
            counted(mark, trial.number)
        if sampler != "grid":
            # A trial's draw depends on its number alone: a resumed search repeats nothing, and two workers differ.
            study.sampler = make_sampler(sampler, settings.seed + trial.number, space)
        changed = apply(settings, suggest(trial, space))
        losses: list[float] = []
        for number, cut in enumerate(cuts):
            losses.append(score_fold(inner, cut, changed))
            trial.report(float(np.mean(losses)), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("fold_losses", losses)
        return float(np.mean(losses))

    def told(_: Any, trial: Any) -> None:
        if progress is not None:
            done = trial.state == optuna.trial.TrialState.COMPLETE
            value = f"{trial.value:.4f}" if done else trial.state.name.lower()
            values = ", ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items()
            )
            progress(f"trial {trial.number}: {value} ({values})")

    study.optimize(objective, n_trials=trials, callbacks=[told], catch=(ModelError,))
    return summarise(study)

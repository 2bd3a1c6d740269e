"""The universal network and the linear baseline: fits over all symbols.

A dataset and a fold go in; a TrainedModel comes out, saved in `out_dir`. Thresholds, normalisation and
weights come from the fold's training rows, early stopping reads its validation rows, calibration its calibration rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.labels import Thresholds
from barcast.models.presets import architecture as make_architecture
from barcast.splits import Fold
from barcast.training import common, trainer
from barcast.training import targets as target_rows
from barcast.training.adversarial import adversarial_term
from barcast.training.answering import ModelInfo
from barcast.training.curriculum import curriculum_rows
from barcast.training.inputs import Inputs, fit_inputs
from barcast.training.pretrain import pretrain
from barcast.training.settings import Settings
from barcast.training.trained import TrainedModel, make_network

if TYPE_CHECKING:
    from barcast.models.linear import LinearFit

CLIP = 5.0


def train_universal(
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    out_dir: Path,
    *,
    thresholds: Thresholds | None = None,
    inputs: Inputs | None = None,
    linear: TrainedModel | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainedModel:
    """Train the network on all symbols.

    Args:
        dataset: rows with targets.
        fold: spans of `splits.holdout` or `splits.walk_forward` over `dataset.rows`.
        settings: a Config, or PlainSettings.
        out_dir: receives the model's files; holds `checkpoint.npz` while training, from which a killed run
            goes on.
        thresholds: class limits; fitted on the fold's training rows when None.
        inputs: what `fit_inputs` gave for these training rows; fitted here when None.
        linear: the baseline of the same fold and inputs, where the network starts and what replaces it when it
            cannot answer; fitted anew when None.

    Raises:
        DataError: too few rows, one class only, all features constant.
        ModelError: more symbols than the embedding holds, a baseline of other features, or a loss that stays NaN.
    """
    out_dir = Path(out_dir)
    config = settings.training
    if len(dataset.symbols) >= settings.model.symbol_capacity:
        raise ModelError(
            f"{len(dataset.symbols)} symbols do not fit "
            f"model.symbol_capacity = {settings.model.symbol_capacity}.",
            hint="Raise model.symbol_capacity above the number of symbols.",
        )
    common.begin(settings)
    thresholds = thresholds or common.thresholds_of(dataset, fold, settings)
    targets = target_rows.make(dataset, fold.train, thresholds, config, settings.labels)
    inputs = inputs or fit_inputs(dataset, fold.train, settings, thresholds=thresholds)
    if linear is None:
        fitted = fit_linear(dataset, fold.train, fold.validation, targets, inputs)
        start = fitted.weights()
        fallback = common.fallback_arrays(fitted, inputs.selected, dataset.num_features)
    elif linear.architecture.selected == inputs.selected:
        start = linear.network.outputs_of.get_weights()
        fallback = {name: linear.reference[name] for name in common.FALLBACK}
    else:
        raise ModelError(
            f"The linear baseline reads {len(linear.architecture.selected)} features, the network "
            f"{len(inputs.selected)} others.",
            hint="Fit both with the same inputs.",
        )
    network = new_network(dataset, fold.train, settings, inputs, targets, start)
    plan = trainer.Plan.of(config, settings.model.preset)
    checkpoint = out_dir / "checkpoint.npz"
    # A resumed run has the encoder's weights in its checkpoint.
    pretrained = (
        pretrain(
            network,
            dataset,
            fold.train,
            config,
            batch_size=plan.batch_size,
            seed=settings.seed,
            progress=progress,
        )
        if config.pretrain_epochs and not checkpoint.exists()
        else []
    )
    history = trainer.fit(
        network,
        dataset,
        fold.train,
        fold.validation,
        targets,
        config,
        plan,
        seed=settings.seed,
        checkpoint=checkpoint,
        term=adversarial_term(inputs.scale, size=config.adversarial_size)
        if config.adversarial_size
        else None,
        epoch_rows=curriculum_rows(fold.train, targets, thresholds, config.curriculum_epochs)
        if config.curriculum_epochs
        else None,
        on_epoch=on_epoch,
        start_best=True,
        progress=progress,
    )
    calibrated = common.calibrate(network, dataset, fold.calibration, targets.arrays["label"])
    model = TrainedModel(
        network,
        describe(
            "network",
            None,
            dataset,
            fold,
            settings,
            thresholds,
            {
                **common.facts_of(targets, fold, inputs.constant),
                **inputs.facts,
                "pretraining": [round(v, 6) for v in pretrained],
                "suspicious_features": common.suspicious(dataset, fold.train),
                **curves(history),
                "calibration": calibrated,
                "parameters": int(network.count_params()),
                "preset": settings.model.preset,
            },
        ),
        common.reference(dataset, fold.train, inputs.mean, inputs.scale, fallback),
    )
    return finish(model, dataset, fold, targets.arrays["label"], out_dir)


def new_network(
    dataset: Dataset,
    train: np.ndarray,
    settings: Settings,
    inputs: Inputs,
    targets: target_rows.Targets,
    start: list[np.ndarray],
) -> Any:
    """A network that answers as the linear baseline does, ready to be trained on the rows `train`.

    Args:
        start: the baseline's weights, `LinearFit.weights()`.
    """
    network = _normalising("network", dataset, settings, inputs, precision=settings.training.precision)
    network.statistics.return_scale.assign(return_scale(targets, train))
    network.start_from(start)
    return network


def _normalising(
    kind: str, dataset: Dataset, settings: Settings, inputs: Inputs, *, precision: str = "float32"
) -> Any:
    """A model of this kind and of the dataset's shape that knows how to normalise its inputs, and nothing else."""
    shape = make_architecture(
        settings.model,
        num_features=dataset.num_features,
        lookback_bars=dataset.lookback_bars,
        selected=inputs.selected,
        precision=precision,
    )
    model = make_network(kind, shape, settings.seed)
    at = list(inputs.selected)
    model.normalise.adapt(inputs.mean[at], inputs.scale[at])
    return model


def train_linear(
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    out_dir: Path | None = None,
    *,
    thresholds: Thresholds | None = None,
    inputs: Inputs | None = None,
) -> TrainedModel:
    """Fit the linear baseline on all symbols; arguments and errors as in `train_universal`."""
    started = time.perf_counter()
    common.begin(settings)
    thresholds = thresholds or common.thresholds_of(dataset, fold, settings)
    targets = target_rows.make(dataset, fold.train, thresholds, settings.training, settings.labels)
    inputs = inputs or fit_inputs(dataset, fold.train, settings, thresholds=thresholds)
    network = _normalising("linear", dataset, settings, inputs)
    fitted = fit_linear(dataset, fold.train, fold.validation, targets, inputs)
    network.load_fit(fitted)
    calibrated = common.calibrate(network, dataset, fold.calibration, targets.arrays["label"])
    fallback = common.fallback_arrays(fitted, inputs.selected, dataset.num_features)
    facts = {
        **common.facts_of(targets, fold, inputs.constant),
        **inputs.facts,
        "calibration": calibrated,
        "penalty": fitted.penalty,
        "parameters": int(network.count_params()),
        "training_seconds": round(time.perf_counter() - started, 2),
    }
    model = TrainedModel(
        network,
        describe("linear", None, dataset, fold, settings, thresholds, facts),
        common.reference(dataset, fold.train, inputs.mean, inputs.scale, fallback),
    )
    return finish(model, dataset, fold, targets.arrays["label"], out_dir)


def fit_linear(
    dataset: Dataset,
    train: np.ndarray,
    validation: np.ndarray,
    targets: target_rows.Targets,
    inputs: Inputs,
) -> LinearFit:
    """The baseline's coefficients, fitted on `train`; `validation` rows choose the penalty."""
    from barcast.models import linear
    from barcast.models.regression import chunks

    at = list(inputs.selected)
    centre, factor = inputs.mean[at].astype(np.float32), (1 / inputs.scale[at]).astype(np.float32)

    def last_bars(rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), len(at)), dtype=np.float32)
        # In pieces, so that beside the result only one piece is in memory.
        for piece in chunks(len(rows)):
            x = dataset.features[dataset.window_end[rows[piece]]][:, at]
            found[piece] = np.clip((x - centre) * factor, -CLIP, CLIP)
        return found

    def arrays(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[rows] for name, values in targets.arrays.items()}

    return linear.fit(last_bars(train), arrays(train), (last_bars(validation), arrays(validation)))


def return_scale(targets: target_rows.Targets, train: np.ndarray) -> float:
    """Root mean square of the training rows' forward log return: the natural size of the return heads."""
    return float(np.sqrt(np.mean(np.square(targets.arrays["forward_log_return"][train], dtype=np.float64))))


def curves(history: trainer.History) -> dict[str, Any]:
    """Learning curves and timing, ready for JSON."""
    return {
        "epochs": [{k: round(v, 6) for k, v in epoch.items()} for epoch in history.epochs],
        "best_epoch": history.best_epoch,
        "start_validation_loss": history.start_loss,
        "best_validation_loss": history.best_loss,
        "training_seconds": round(history.seconds, 2),
        "events": history.events,
    }


def describe(
    kind: str,
    symbol: str | None,
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    thresholds: Thresholds,
    facts: dict[str, Any],
) -> ModelInfo:
    """ModelInfo of a fit."""
    return ModelInfo(
        kind=kind,
        symbol=symbol,
        feature_names=dataset.feature_names,
        symbols=dataset.symbols,
        lookback_bars=dataset.lookback_bars,
        horizon_bars=settings.horizon_bars,
        thresholds=thresholds,
        seed=settings.seed,
        cutoff=fold.cutoff.isoformat() if fold.cutoff else "",
        facts=facts,
    )


def finish(
    model: TrainedModel, dataset: Dataset, fold: Fold, label: np.ndarray, out_dir: Path | None
) -> TrainedModel:
    """Add the similar-window table, and save where a folder is given."""
    model.neighbours = common.neighbours(model, dataset, fold.train, label)
    if out_dir is not None:
        model.save(out_dir)
    return model

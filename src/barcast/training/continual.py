"""Learning new bars without losing the old ones: replay, elastic weight consolidation, distillation, columns.

A trained model and a dataset that holds new rows go in; a new model comes out, the old one is untouched.
Each way is the one trainer with other rows (`replay`), an extra term in the loss (`ewc`, `distillation`),
or an added column of trainable layers beside the frozen ones (`progressive`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from barcast.datasets import Dataset
from barcast.errors import DataError, ModelError
from barcast.splits import Fold
from barcast.training import common, trainer
from barcast.training import targets as target_rows
from barcast.training.quantise import full_precision
from barcast.training.settings import Settings
from barcast.training.steps import Term
from barcast.training.symbol import copy_of, freeze, groups
from barcast.training.trained import TrainedModel
from barcast.training.universal import curves, describe, finish

METHODS = ("plain", "replay", "ewc", "distillation", "progressive")


def update(
    model: TrainedModel | Path,
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    out_dir: Path | None = None,
    *,
    old_rows: np.ndarray | None = None,
    method: str | None = None,
    epochs: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainedModel:
    """Train an existing model on new rows, without starting over.

    Args:
        model: a network, or its folder.
        dataset: new rows and, for `replay` and `ewc`, old ones; features in the model's order.
        fold: `train` are the new rows; `validation` and `calibration` as in any fit.
        old_rows: rows the model has learned before; needed by `replay` and `ewc`.
        method: one of METHODS; `settings.training.continual` when None.
        epochs: most epochs; `settings.training.transfer_epochs` when None.

    Raises:
        ModelError: no network, another feature generation, or an unknown method.
        DataError: too few new rows, or a method that needs old rows has none.
    """
    if not isinstance(model, TrainedModel):
        model = TrainedModel.load(Path(model))
    config = settings.training
    method = method or config.continual
    if method not in METHODS:
        raise ModelError(f"Continual method {method!r} is not known.", hint=f"It is one of {METHODS}.")
    if model.info.kind != "network":
        raise ModelError(f"A {model.info.kind} model cannot learn on.", hint="Pass a network.")
    if method in ("replay", "ewc") and (old_rows is None or len(old_rows) == 0):
        raise DataError(f"{method} needs rows that the model has learned before.", hint="Pass old_rows.")
    model.check(dataset)
    model.check_symbols(dataset)
    common.begin(settings)
    known = fold.train if old_rows is None else np.concatenate([fold.train, old_rows])
    targets = target_rows.make(dataset, known, model.info.thresholds, config, settings.labels)
    network = progressive(model, settings.seed) if method == "progressive" else copy_of(model, settings.seed)
    term: Term | None = None
    epoch_rows = None
    if method == "ewc" and old_rows is not None:
        term = ewc_term(network, fisher(network, dataset, old_rows, targets), config.ewc_strength)
    elif method == "distillation":
        term = distillation_term(model.network, config.distillation_weight, config.distillation_temperature)
    elif method == "replay" and old_rows is not None:
        epoch_rows = replay_rows(fold.train, old_rows, config.replay_share)
    if len(fold.train) < config.min_rows:
        raise DataError(f"{len(fold.train)} new rows are too few to learn from.", hint="Wait for more bars.")
    plan = trainer.Plan.of(config, settings.model.preset)
    plan = replace(
        plan,
        batch_size=min(plan.batch_size, max(16, len(fold.train) // 4)),
        max_epochs=epochs or config.transfer_epochs,
        peak_rate=config.transfer_learning_rate,
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
        checkpoint=Path(out_dir) / "checkpoint.npz" if out_dir else None,
        term=term,
        epoch_rows=epoch_rows,
        start_best=True,
        progress=progress,
    )
    freeze(network, len(groups(network)))
    calibrated = common.calibrate(network, dataset, fold.calibration, targets.arrays["label"])
    facts = {
        **common.facts_of(targets, fold, ()),
        **curves(history),
        "calibration": calibrated,
        "continual": method,
        "parent_cutoff": model.info.cutoff,
        "parameters": int(network.count_params()),
    }
    info = describe("network", model.info.symbol, dataset, fold, settings, model.info.thresholds, facts)
    info = replace(info, symbols=max(model.info.symbols, dataset.symbols, key=len))
    return finish(
        TrainedModel(network, info, dict(model.reference)), dataset, fold, targets.arrays["label"], out_dir
    )


def since(model: TrainedModel, dataset: Dataset, fold: Fold) -> tuple[Fold, np.ndarray]:
    """The fold with only the training rows after those that the model learned, and the ones before."""
    bounds = model.info.facts.get("rows", {}).get("bounds", {})
    last = datetime.fromisoformat(bounds["train"][1] if "train" in bounds else model.info.cutoff)
    fresh = (dataset.rows["event_timestamp"][fold.train] > last).to_numpy()
    return replace(fold, train=fold.train[fresh]), fold.train[~fresh]


def recalibrate(model: TrainedModel | Path, dataset: Dataset, fold: Fold, settings: Settings) -> TrainedModel:
    """The same weights, their probabilities and confidence fitted anew on the fold's calibration rows.

    Raises:
        ModelError: another feature generation, or too few rows to fit on.
    """
    if not isinstance(model, TrainedModel):
        model = TrainedModel.load(Path(model))
    model.check(dataset)
    # As it will be asked: by its own numbers, a symbol that joined later as the unknown one.
    dataset = replace(dataset, symbol_id=model.symbol_ids(dataset))
    common.begin(settings)
    network = copy_of(model, settings.seed)
    fitted = common.calibrate(network, dataset, fold.calibration, dataset.classes(model.info.thresholds))
    if "temperature" not in fitted:
        raise ModelError(
            f"{len(fold.calibration)} rows are too few to calibrate on.", hint="Wait for more bars."
        )
    facts = {**model.info.facts, "calibration": fitted, "recalibrated_from": model.info.cutoff}
    # What was fitted now reaches to the end of the calibration rows.
    cutoff = fold.cutoff.isoformat() if fold.cutoff else ""
    info = replace(model.info, facts=facts, cutoff=cutoff)
    return TrainedModel(network, info, dict(model.reference), model.neighbours)


def replay_rows(
    new: np.ndarray, old: np.ndarray, share: float
) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Rows of an epoch: all new ones, mixed with old ones drawn anew, `share` of the whole."""

    def rows(epoch: int, random: np.random.Generator) -> np.ndarray:
        wanted = min(len(old), round(len(new) * share / (1 - share)))
        return random.permutation(np.concatenate([new, random.choice(old, wanted, replace=False)]))

    return rows


def fisher(
    network: Any, dataset: Dataset, rows: np.ndarray, targets: Any, *, most: int = 256
) -> list[np.ndarray]:
    """Diagonal of the empirical Fisher information of the class answer, one array a trainable variable.

    Squared gradients of small batches' log likelihood, averaged, and scaled so that the mean over all is 1
    (Kirkpatrick et al., 2017).
    """
    import tensorflow as tf

    variables = network.trainable_variables

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, dataset.lookback_bars, dataset.num_features], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )
    def squared(window: Any, symbol_id: Any, label: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = network(window, symbol_id, training=False)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits))
        found = tape.gradient(loss, variables)
        return [
            tf.zeros_like(v) if g is None else tf.square(tf.convert_to_tensor(g))
            for g, v in zip(found, variables, strict=True)
        ]

    sums = [np.zeros(v.shape) for v in variables]
    sample = common.spread(rows, most)
    ids = dataset.symbol_id
    for start in range(0, len(sample), 4):
        part = sample[start : start + 4]
        found = squared(
            tf.constant(dataset.windows(part)),
            tf.constant(ids[part]),
            tf.constant(targets.arrays["label"][part]),
        )
        sums = [s + f.numpy() for s, f in zip(sums, found, strict=True)]
    mean = sum(float(s.sum()) for s in sums) / max(1, sum(s.size for s in sums))
    return [(s / max(mean, 1e-30)).astype(np.float32) for s in sums]


def ewc_term(network: Any, importance: list[np.ndarray], strength: float) -> Term:
    """Half `strength` x importance x squared distance from the present weights, mean over all weights."""
    import tensorflow as tf

    variables = list(network.trainable_variables)
    anchors = [tf.constant(np.asarray(v)) for v in variables]
    weights = [tf.constant(w) for w in importance]
    count = float(sum(np.prod(v.shape) for v in variables))

    def term(*_: Any) -> Any:
        parts = [
            tf.reduce_sum(w * tf.square(tf.convert_to_tensor(v) - a))
            for w, v, a in zip(weights, variables, anchors, strict=True)
        ]
        return 0.5 * strength * tf.add_n(parts) / count

    return term


def distillation_term(teacher: Any, weight: float, temperature: float) -> Term:
    """Cross-entropy to the teacher's softened answers (Hinton et al., 2015), scaled by temperature squared."""
    from keras import ops

    def term(network: Any, window: Any, symbol_id: Any, outputs: dict[str, Any], *_: Any) -> Any:
        taught = teacher(window, symbol_id, training=False)
        target = ops.stop_gradient(ops.softmax(taught["logits"] / temperature))
        each = -ops.sum(target * ops.log_softmax(outputs["logits"] / temperature), axis=-1)
        return weight * temperature**2 * ops.mean(each)

    return term


def progressive(model: TrainedModel, seed: int) -> Any:
    """A copy with a new column: the old encoder frozen, a new one beside it that reads it too (Rusu et al., 2016)."""
    from barcast.models.network import Network

    model = full_precision(model)
    shape = replace(model.architecture, columns=model.architecture.columns + 1)
    network = Network(shape, seed=seed).build_once()
    stored = {w.path.split("/", 1)[1]: np.asarray(w) for w in model.network.weights}
    for variable in network.weights:
        value = stored.get(variable.path.split("/", 1)[1])
        if value is not None and value.shape == tuple(variable.shape):
            variable.assign(value)
        elif value is not None:
            # Decision layers read the new column too; zero rows keep the first answer as the old one's.
            grown = np.zeros(variable.shape, dtype=np.float32)
            grown[: value.shape[0]] = value
            variable.assign(grown)
    freeze(network, 1)
    for layer in (network.regime, network.volatility_regime, network.trend):
        layer.trainable = True
    return network

"""Fitting the ensemble: specialists on training rows, meta model and vote weights on validation rows.

A trained network and a trained linear baseline go in with a dataset and a fold; one TrainedModel of kind "ensemble"
comes out: the vote leans to who did well lately in each regime. `member_scores` tracks each member.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.models import savedmodel, specialists
from barcast.models.regime import VOLATILITY_REGIMES
from barcast.splits import Fold
from barcast.training import common
from barcast.training import targets as target_rows
from barcast.training.answering import ExportedModel, in_batches
from barcast.training.settings import Settings
from barcast.training.trained import TrainedModel, make_network
from barcast.training.universal import describe, finish

# How sharply a better log loss turns into weight; 0.02 of log loss is a factor e.
TEMPERATURE = 0.02
# Rows that specialists are fitted on, evenly spread: each has few inputs, more rows would only take longer.
SPECIALIST_ROWS = 40_000


def train_ensemble(
    network: TrainedModel,
    linear: TrainedModel,
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    out_dir: Path | None = None,
    *,
    missing: tuple[str, ...] = (),
) -> TrainedModel:
    """Fit specialists, meta model and weights around two trained members.

    Args:
        network, linear: members fitted on the same fold; their thresholds must agree.
        missing: names of members to do without ("linear", "trend", ...); the network must be there.

    Raises:
        ModelError: members of different thresholds, features or selection, or a missing network.
    """
    if network.info.kind != "network" or linear.info.kind != "linear":
        raise ModelError(
            "An ensemble joins a network and a linear model, in this order.", hint="Check the order."
        )
    if network.info.thresholds != linear.info.thresholds:
        raise ModelError("The members were fitted to different class limits.", hint="Fit both on one fold.")
    if "network" in missing:
        raise ModelError(
            "The ensemble cannot do without its network.", hint="Serve the linear model instead."
        )
    for member in (network, linear):
        member.check(dataset)
    network.check_symbols(dataset)  # the linear model reads no symbol
    common.begin(settings)
    targets = target_rows.make(
        dataset, fold.train, network.info.thresholds, settings.training, settings.labels
    )
    selected = set(network.architecture.selected)
    groups = tuple(
        (name, kept)
        for name, positions in specialists.groups(dataset.feature_names).items()
        if (kept := tuple(p for p in positions if p in selected))
    )
    shape = replace(network.architecture, specialists=groups)
    model = make_network("ensemble", shape, settings.seed)
    model.network.set_weights(network.network.get_weights())
    model.linear.set_weights(linear.network.get_weights())
    label, weight = targets.arrays["label"], targets.arrays["weight"]
    sample = common.spread(fold.train, SPECIALIST_ROWS)
    for layer, x in zip(model.specialists, _specialist_inputs(model, dataset, sample), strict=True):
        layer.set_weights(_logistic(x, label[sample], weight[sample], penalty=300.0))
    available = np.array([float(name not in missing) for name in model.names], dtype=np.float32)
    model.voting.available.assign(available)
    judged = in_time(dataset, common.spread(fold.validation, SPECIALIST_ROWS))
    each, base = member_probabilities(model, dataset, judged)
    truth = label[judged]
    recency = fading(len(judged), len(judged) / 4)
    regime = base["volatility_regime"].argmax(axis=1)
    model.voting.table.assign(weights_table(each, regime, truth, recency=recency))
    half = np.arange(len(truth)) < len(truth) // 2
    meta_x = _meta_input(model, base, each)
    model.meta.set_weights(_logistic(meta_x[half], truth[half], np.ones(int(half.sum())), penalty=30.0))
    share, losses = _best_share(model, base, each, truth, ~half)
    model.voting.share.assign(share)
    calibrated = common.calibrate(model, dataset, fold.calibration, label)
    facts = {
        **common.facts_of(targets, fold, ()),
        "members": list(model.names),
        "missing": list(missing),
        "meta_share": share,
        "validation_log_loss": losses,
        "calibration": calibrated,
        "parameters": int(model.count_params()),
    }
    info = describe("ensemble", None, dataset, fold, settings, network.info.thresholds, facts)
    trained = TrainedModel(model, info, dict(network.reference))
    return finish(trained, dataset, fold, label, out_dir)


def _logistic(x: np.ndarray, label: np.ndarray, weight: np.ndarray, penalty: float) -> list[np.ndarray]:
    from barcast.models.linear import logistic

    coefficients, intercept = logistic(x, label, weight.astype(np.float64), penalty)
    return [coefficients.T.astype(np.float32), intercept.astype(np.float32)]


def _specialist_inputs(model: Any, dataset: Dataset, rows: np.ndarray) -> list[np.ndarray]:
    parts = [
        [np.asarray(x) for x in model.specialist_inputs(dataset.windows(rows[start : start + 512]))]
        for start in range(0, len(rows), 512)
    ]
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def _meta_input(model: Any, base: dict[str, np.ndarray], each: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.asarray(model.meta_input(base, each))
    return found


def member_probabilities(
    model: Any, dataset: Dataset, rows: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every member's probabilities (n, M, 3) and the network's regimes, of the given rows."""
    import tensorflow as tf

    shape = [None, dataset.lookback_bars, dataset.num_features]

    @tf.function(
        input_signature=[tf.TensorSpec(shape, tf.float32), tf.TensorSpec([None], tf.int32)], autograph=False
    )
    def run(window: Any, symbol_id: Any) -> Any:
        base, each = model.members(window, symbol_id)
        return each, base["regime"], base["volatility_regime"]

    parts = []
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        found = run(tf.constant(dataset.windows(part)), tf.constant(dataset.symbol_id[part]))
        parts.append([value.numpy() for value in found])
    each, regime, volatility = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return each, {"regime": regime, "volatility_regime": volatility}


def weights_table(
    each: np.ndarray, regime: np.ndarray, label: np.ndarray, *, recency: np.ndarray | None = None
) -> np.ndarray:
    """(R, M) weights from each member's log loss in each volatility regime; rows sum to 1.

    A regime with few rows is drawn towards all rows' losses (50 rows' worth). `recency` (n,) weighs rows.
    """
    loss = -np.log(np.clip(each[np.arange(len(label)), :, label], 1e-6, None))
    weight = np.ones(len(label)) if recency is None else recency
    overall = (loss * weight[:, None]).sum(axis=0) / weight.sum()
    table = np.zeros((3, each.shape[1]), dtype=np.float32)
    for code in range(3):
        mine = weight * (regime == code)
        mean = (loss * mine[:, None]).sum(axis=0) + 50 * overall
        z = -(mean / (mine.sum() + 50)) / TEMPERATURE
        table[code] = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    return table


def in_time(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """The rows in the order of their time, symbols mixed."""
    ordered: np.ndarray = rows[np.argsort(dataset.column("event_timestamp")[rows], kind="stable")]
    return ordered


def fading(count: int, half_life: float) -> np.ndarray:
    """(count,) weights of rows in time: the newest 1, halved every `half_life` rows before it."""
    faded: np.ndarray = 0.5 ** (np.arange(count)[::-1] / half_life)
    return faded


def _best_share(
    model: Any, base: dict[str, np.ndarray], each: np.ndarray, label: np.ndarray, rows: np.ndarray
) -> tuple[float, dict[str, float]]:
    """Share of the meta model of least log loss on rows that it was not fitted on."""
    losses = {}
    part = {name: values[rows] for name, values in base.items()}
    for share in (0.0, 0.5, 1.0):
        model.voting.share.assign(share)
        p = np.asarray(model.join(part, each[rows])[0])
        truth = label[rows]
        losses[str(share)] = float(-np.log(np.clip(p[np.arange(len(p)), truth], 1e-6, None)).mean())
    best = min(losses, key=lambda share: losses[share])
    return float(best), losses


def member_scores(model: ExportedModel, dataset: Dataset, rows: np.ndarray) -> pl.DataFrame:
    """Each member's log loss and accuracy by volatility regime: `member, regime, rows, log_loss, accuracy`."""
    ids = model.symbol_ids(dataset)
    each = in_batches(
        lambda part: model.ask(dataset.windows(part), ids[part], signature=savedmodel.MEMBERS), rows
    )["member_probabilities"]
    label = dataset.classes(model.info.thresholds)[rows].astype(int)
    regime = model.answers(dataset, rows)["volatility_regime"].argmax(axis=1)
    lines = []
    for at, member in enumerate(savedmodel.members(model.folder)):
        for code, name in [(None, "all"), *enumerate(VOLATILITY_REGIMES)]:
            mine = np.ones(len(rows), dtype=bool) if code is None else regime == code
            p, truth = each[mine, at], label[mine]
            if not mine.any():
                continue
            lines.append(
                {
                    "member": member,
                    "regime": name,
                    "rows": int(mine.sum()),
                    "log_loss": float(-np.log(np.clip(p[np.arange(len(p)), truth], 1e-6, None)).mean()),
                    "accuracy": float((p.argmax(axis=1) == truth).mean()),
                }
            )
    return pl.DataFrame(lines)

"""Smaller models: a student that learns from a teacher's answers, and weights rounded to eight bits.

A trained network goes in; a smaller or quantised TrainedModel comes out, served by the same signatures. What each
costs in skill and brings in size and speed is measured by benchmarks/techniques.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.splits import Fold
from barcast.training import common, trainer
from barcast.training import targets as target_rows
from barcast.training.continual import distillation_term
from barcast.training.settings import Settings
from barcast.training.trained import TrainedModel, make_network
from barcast.training.universal import curves, describe, finish

# A student's sizes: about a tenth of the laptop preset's products.
STUDENT = {"lstm_units": (24,), "attention_heads": 2, "attention_key_dim": 8, "dense_units": (16, 8)}


def distil(
    teacher: TrainedModel,
    dataset: Dataset,
    fold: Fold,
    settings: Settings,
    out_dir: Path | None = None,
    *,
    sizes: dict[str, Any] | None = None,
) -> TrainedModel:
    """Train a small network on outcomes and on the teacher's softened answers (Hinton et al., 2015).

    Args:
        teacher: a trained network.
        sizes: fields of Architecture that the student changes; STUDENT when None.

    Raises:
        ModelError: the teacher is no network, or of another feature generation.
    """
    if teacher.info.kind != "network":
        raise ModelError(f"A {teacher.info.kind} model cannot teach.", hint="Pass a network.")
    teacher.check(dataset)
    teacher.check_symbols(dataset)
    common.set_seed(settings.seed)
    config = settings.training
    targets = target_rows.make(dataset, fold.train, teacher.info.thresholds, config, settings.labels)
    shape = replace(teacher.architecture, **(sizes or STUDENT))
    network = make_network("network", shape, settings.seed)
    network.normalise.set_weights(teacher.network.normalise.get_weights())
    network.statistics.return_scale.assign(np.asarray(teacher.network.statistics.return_scale))
    term = distillation_term(teacher.network, config.distillation_weight, config.distillation_temperature)
    history = trainer.fit(
        network,
        dataset,
        fold.train,
        fold.validation,
        targets,
        config,
        trainer.Plan.of(config, settings.model.preset),
        seed=settings.seed,
        term=term,
    )
    calibrated = common.calibrate(network, dataset, fold.calibration, targets.arrays["label"])
    facts = {
        **common.facts_of(targets, fold, ()),
        **curves(history),
        "calibration": calibrated,
        "distilled_from_parameters": int(teacher.network.count_params()),
        "parameters": int(network.count_params()),
    }
    info = describe("network", teacher.info.symbol, dataset, fold, settings, teacher.info.thresholds, facts)
    student = TrainedModel(network, info, dict(teacher.reference))
    return finish(student, dataset, fold, targets.arrays["label"], out_dir)


def quantise_int8(model: TrainedModel) -> TrainedModel:
    """A copy whose recurrent matrices, nearly all of its weights, are stored in eight bits.

    Each column keeps a scale of its own; an answer unpacks them to float32, so that the served signatures and the
    arithmetic stay as they are. The copy cannot be trained further.

    Raises:
        ModelError: no network.
    """
    if model.info.kind != "network":
        raise ModelError(f"A {model.info.kind} model has no recurrent matrices.", hint="Pass a network.")
    network = make_network("network", replace(model.architecture, int8=True), model.info.seed)
    for ours, theirs in zip(network.recurrent, model.network.recurrent, strict=True):
        for name in ("kernel", "recurrent_kernel"):
            codes, scale = int8_codes(np.asarray(getattr(theirs, name), dtype=np.float32))
            getattr(ours, f"{name}_codes").assign(codes)
            getattr(ours, f"{name}_scale").assign(scale)
        ours.bias.assign(np.asarray(theirs.bias))
    stored = {w.path.split("/", 1)[1]: np.asarray(w) for w in model.network.weights}
    for weight in network.weights:
        path = weight.path.split("/", 1)[1]
        if not path.startswith("lstm_"):
            weight.assign(stored[path])
    info = replace(model.info, facts={**model.info.facts, "quantised": "int8"})
    return TrainedModel(network, info, dict(model.reference), model.neighbours)


def int8_codes(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int8, the matrix's shape) and scales (1, columns): matrix ~ codes x scale, off by half a step at most."""
    limit = np.abs(kernel).max(axis=0, keepdims=True)
    scale = np.where(limit > 0, limit / 127.0, 1.0).astype(np.float32)
    return np.clip(np.round(kernel / scale), -127, 127).astype(np.int8), scale


def weight_bytes(model: TrainedModel) -> int:
    """Bytes of all weights as stored."""
    return sum(np.asarray(w).nbytes for w in model.network.weights)

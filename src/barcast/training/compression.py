"""Smaller models: a student that learns from a teacher's answers, and weights rounded to eight bits.

A trained network goes in; a smaller or quantised TrainedModel comes out, served by the same signatures, as
`training.compress` says. What each costs in skill and brings in size and speed is measured by benchmarks/techniques.py.
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
from barcast.training.quantise import quantise_int8
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
    common.begin(settings)
    config = settings.training
    targets = target_rows.make(dataset, fold.train, teacher.info.thresholds, config, settings.labels)
    shape = replace(teacher.architecture, **(sizes or STUDENT))
    network = make_network("network", shape, settings.seed)
    network.normalise.set_weights(teacher.network.normalise.get_weights())
    network.statistics.return_scale.assign(np.asarray(teacher.network.statistics.return_scale))
    network.start_from(teacher.network.baseline.get_weights())
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


def compressed(model: TrainedModel, dataset: Dataset, fold: Fold, settings: Settings) -> TrainedModel:
    """What is exported of a trained model, as `training.compress` says; models other than networks as they are.

    A symbol's own network is not distilled: its universal parent already was.
    """
    wanted = settings.training.compress
    if model.info.kind != "network" or wanted == "none":
        return model
    if "student" in wanted and model.info.symbol is None:
        model = distil(model, dataset, fold, settings)
    return quantise_int8(model) if "int8" in wanted else model

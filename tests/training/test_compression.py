"""Pre-training and smaller models: what they keep of the teacher, and what they store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barcast.errors import ModelError
from barcast.models import savedmodel
from barcast.training import TrainedModel, compression, quantise, train_universal


def test_int8_codes_are_off_by_half_a_step_at_most() -> None:
    kernel = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    codes, scale = quantise.int8_codes(kernel)
    assert codes.dtype == np.int8
    assert np.abs(codes * scale - kernel).max() <= scale.max() / 2 + 1e-7


def test_int8_export_is_smaller_and_answers_nearly_the_same(
    universal: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    small = quantise.quantise_int8(universal)
    lstm = sum(layer.kernel.shape[0] + layer.units for layer in universal.network.recurrent)
    assert lstm > 0
    assert quantise.weight_bytes(small) < quantise.weight_bytes(universal)
    rows = fold.test[:30]
    exact, rounded = (m.answers(dataset, rows)["probabilities"] for m in (universal, small))
    assert np.abs(exact - rounded).max() < 0.02
    path = small.export(tmp_path / "int8")
    served = savedmodel.predict(path, dataset.windows(rows), small.symbol_ids(dataset)[rows])
    np.testing.assert_allclose(served["probabilities"], rounded, atol=1e-5)
    again = TrainedModel.load(path).answers(dataset, rows)["probabilities"]
    np.testing.assert_array_equal(again, rounded)


def test_student_learns_from_its_teacher(
    universal: Any, dataset: Any, fold: Any, small: Any, linear: Any
) -> None:
    sizes = {"lstm_units": (6,), "attention_heads": 1, "attention_key_dim": 4, "dense_units": (6,)}
    student = compression.distil(universal, dataset, fold, small, sizes=sizes)
    assert student.info.facts["parameters"] < universal.info.facts["parameters"]
    taught, own = (m.answers(dataset, fold.test)["probabilities"] for m in (universal, student))
    assert np.corrcoef(taught[:, 2] - taught[:, 0], own[:, 2] - own[:, 0])[0, 1] > 0.7
    with pytest.raises(ModelError, match="cannot teach"):
        compression.distil(linear, dataset, fold, small)


def test_pretraining_restores_masked_bars_better_each_epoch(
    dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    config = small.training.model_copy(update={"pretrain_epochs": 3, "max_epochs": 1})
    model = train_universal(dataset, fold, replace(small, training=config), tmp_path)
    errors = model.info.facts["pretraining"]
    assert errors[2] < errors[0]


def test_what_is_exported_follows_the_configuration(
    universal: Any, linear: Any, dataset: Any, fold: Any, small: Any
) -> None:
    def as_configured(model: Any, value: str) -> Any:
        config = small.training.model_copy(update={"compress": value, "max_epochs": 1})
        return compression.compressed(model, dataset, fold, replace(small, training=config))

    assert as_configured(universal, "none") is universal
    assert as_configured(linear, "student_int8") is linear
    both = as_configured(universal, "student_int8")
    assert both.architecture.int8
    assert both.architecture.lstm_units == compression.STUDENT["lstm_units"]
    # A symbol's own network comes from a parent that was distilled already.
    own = replace(universal, info=replace(universal.info, symbol="S1"))
    assert as_configured(own, "student").architecture == universal.architecture


def test_an_eight_bit_parent_is_trained_on_in_floats(universal: Any, dataset: Any, fold: Any) -> None:
    from barcast.training.symbol import copy_of

    rounded = quantise.quantise_int8(universal)
    network = copy_of(rounded, seed=1)
    assert not network.architecture.int8
    window, ids = dataset.windows(fold.test[:8]), universal.symbol_ids(dataset)[fold.test[:8]]
    ours, theirs = (np.asarray(n(window, ids)["logits"]) for n in (network, rounded.network))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert len(network.trainable_variables) == len(universal.network.trainable_variables)

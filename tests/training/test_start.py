"""A network starts as the linear baseline, keeps it, and gives way to it where training finds nothing better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barcast.errors import ModelError
from barcast.training import TrainedModel, compression, continual, fit_inputs, train_symbol, train_universal
from barcast.training import targets as target_rows
from barcast.training.quantise import quantise_int8
from barcast.training.universal import new_network


def changed(settings: Any, **fields: Any) -> Any:
    return replace(settings, training=settings.training.model_copy(update=fields))


def baseline(model: TrainedModel) -> list[np.ndarray]:
    found: list[np.ndarray] = model.network.baseline.get_weights()
    return found


def assert_kept(model: TrainedModel, linear: TrainedModel) -> None:
    for ours, theirs in zip(baseline(model), linear.network.outputs_of.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_untrained_network_answers_as_the_baseline(
    dataset: Any, fold: Any, small: Any, linear: TrainedModel
) -> None:
    thresholds = linear.info.thresholds
    inputs = fit_inputs(dataset, fold.train, small, thresholds=thresholds)
    targets = target_rows.make(dataset, fold.train, thresholds, small.training, small.labels)
    start = linear.network.outputs_of.get_weights()
    network = new_network(dataset, fold.train, small, inputs, targets, start)
    some = fold.test[:40]
    windows, ids = dataset.windows(some), dataset.symbol_id[some]
    ours, theirs = (
        {name: np.asarray(value) for name, value in model(windows, ids).items()}
        for model in (network, linear.network)
    )
    assert np.ptp(theirs["logits"], axis=0).min() > 0.1  # the baseline says something
    for name in (
        "logits",
        "regime_logits",
        "volatility_regime_logits",
        "expected_return",
        "expected_volatility",
    ):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(
        ours["trend_strength"], np.clip(theirs["trend_strength"], 0.02, 0.98), rtol=1e-4
    )


def test_training_that_finds_nothing_better_leaves_the_baseline(
    dataset: Any, fold: Any, small: Any, linear: TrainedModel, tmp_path: Path
) -> None:
    # One epoch at a rate that can only harm.
    wild = changed(small, learning_rate=3.0, max_epochs=1)
    model = train_universal(dataset, fold, wild, tmp_path, linear=linear)
    facts = model.info.facts
    assert facts["epochs"][0]["val_judged"] > facts["start_validation_loss"]
    assert facts["best_validation_loss"] == facts["start_validation_loss"]
    assert facts["best_epoch"] == -1
    windows, ids = dataset.windows(fold.test), dataset.symbol_id[fold.test]
    ours, theirs = (np.asarray(m.network(windows, ids)["logits"]) for m in (model, linear))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_kept_is_never_worse_than_the_baseline_where_it_was_judged(universal: TrainedModel) -> None:
    facts = universal.info.facts
    kept = min(epoch["val_judged"] for epoch in facts["epochs"])
    assert facts["best_validation_loss"] == pytest.approx(min(kept, facts["start_validation_loss"]), abs=1e-5)


@pytest.mark.slow
def test_no_way_of_training_on_moves_the_baseline(
    dataset: Any, fold: Any, small: Any, universal: TrainedModel, linear: TrainedModel, tmp_path: Path
) -> None:
    one = changed(small, max_epochs=1, transfer_epochs=1)
    assert_kept(universal, linear)
    assert_kept(quantise_int8(universal), linear)
    assert_kept(compression.distil(universal, dataset, fold, one), linear)
    assert_kept(train_symbol(universal, dataset, "S1", fold, one, tmp_path / "own"), linear)
    on = continual.update(universal, dataset, fold, one, tmp_path / "on", method="plain", epochs=1)
    assert_kept(on, linear)


def test_a_baseline_of_other_features_is_refused(
    dataset: Any, fold: Any, small: Any, linear: TrainedModel, tmp_path: Path
) -> None:
    inputs = fit_inputs(dataset, fold.train, small, thresholds=linear.info.thresholds)
    fewer = replace(inputs, selected=inputs.selected[1:])
    with pytest.raises(ModelError, match="the same inputs"):
        train_universal(dataset, fold, small, tmp_path, inputs=fewer, linear=linear)

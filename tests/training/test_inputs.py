"""Selection in training: fitted on training rows, kept in the model's files, applied inside the SavedModel."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barcast.config.models import SelectionConfig
from barcast.errors import DataError
from barcast.labels import Thresholds
from barcast.models import savedmodel
from barcast.training import TrainedModel, fit_inputs, train_linear, train_symbol, train_universal


def choosing(settings: Any, **fields: Any) -> Any:
    selection = SelectionConfig(**{"min_features": 2, **fields})
    return replace(settings, training=settings.training.model_copy(update={"selection": selection}))


@pytest.fixture(scope="module")
def wide(dataset: Any) -> Any:
    """The market's features with six columns of noise and a copy behind them."""
    noise = np.random.default_rng(1).normal(size=(len(dataset.features), 6)).astype(np.float32)
    copy = 3 * dataset.features[:, 1:2]
    names = (*dataset.feature_names, *(f"noise_{k}" for k in range(6)), "copy")
    return replace(dataset, features=np.hstack([dataset.features, noise, copy]), feature_names=names)


def test_signal_is_kept_and_noise_copy_and_constant_are_told(wide: Any, fold: Any, small: Any) -> None:
    found = fit_inputs(wide, fold.train, choosing(small))
    kept = {wide.feature_names[k] for k in found.selected}
    facts = found.facts["selection"]
    assert kept & {"r3", "r5", "r8", "r12"}
    assert len(kept & {"r3", "copy"}) <= 1
    assert len([name for name in kept if name.startswith("noise")]) <= 1
    assert found.constant == ("constant",)
    assert facts["kept"] == len(kept)
    assert set(facts["dropped"]) == set(wide.feature_names) - kept - {"constant"}


def test_rows_outside_training_change_nothing(wide: Any, fold: Any, small: Any) -> None:
    before = fit_inputs(wide, fold.train, choosing(small))
    ends = wide.window_end[fold.train]
    read = np.zeros(len(wide.features), dtype=bool)
    for back in range(wide.lookback_bars):
        read[ends - back] = True
    features = wide.features.copy()
    features[~read] = 1e6
    outcome = wide.rows["forward_log_return"].to_numpy().copy()
    outcome[np.setdiff1d(np.arange(len(wide)), fold.train)] = 9.0
    other = replace(wide, features=features, rows=wide.rows.with_columns(forward_log_return=outcome))
    after = fit_inputs(other, fold.train, choosing(small))
    assert after.selected == before.selected
    assert after.facts == before.facts
    np.testing.assert_array_equal(after.mean, before.mean)


def test_switched_off_everything_that_varies_is_read(wide: Any, fold: Any, small: Any) -> None:
    found = fit_inputs(wide, fold.train, choosing(small, enabled=False))
    assert found.selected == tuple(k for k, name in enumerate(wide.feature_names) if name != "constant")


def test_too_few_times_for_the_folds_are_refused(wide: Any, fold: Any, small: Any) -> None:
    with pytest.raises(DataError, match="groups"):
        fit_inputs(wide, fold.train[:1], choosing(small), thresholds=Thresholds(-0.1, 0.1))


def test_saved_model_takes_all_features_and_reads_the_selected(
    wide: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    settings = choosing(small)
    inputs = fit_inputs(wide, fold.train, settings)
    model = train_linear(wide, fold, settings, inputs=inputs)
    path = model.export(tmp_path / "1")
    stored = json.loads((path / "assets.extra" / "model.json").read_text())
    assert tuple(stored["architecture"]["selected"]) == inputs.selected
    assert stored["info"]["facts"]["selection"]["kept"] == len(inputs.selected)
    assert TrainedModel.load(path).architecture.selected == inputs.selected
    windows, ids = wide.windows(fold.test[:8]), wide.symbol_id[fold.test[:8]]
    unread, read = windows.copy(), windows.copy()
    rest = np.setdiff1d(np.arange(wide.num_features), inputs.selected)
    unread[:, :, rest] = 77.0
    read[:, :, inputs.selected[0]] += 5.0
    answer = savedmodel.predict(path, windows, ids)["probabilities"]
    np.testing.assert_array_equal(savedmodel.predict(path, unread, ids)["probabilities"], answer)
    assert np.abs(savedmodel.predict(path, read, ids)["probabilities"] - answer).max() > 1e-6
    slopes = savedmodel.predict(path, windows, ids, signature="explain")["attributions"]
    assert slopes.shape == windows.shape
    assert not slopes[:, :, rest].any()


def test_network_and_symbol_model_keep_the_selection(
    wide: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    settings = choosing(small)
    settings = replace(
        settings, training=settings.training.model_copy(update={"max_epochs": 1, "transfer_epochs": 1})
    )
    network = train_universal(wide, fold, settings, tmp_path / "universal")
    assert network.architecture.selected == fit_inputs(wide, fold.train, settings).selected
    own = train_symbol(network, wide, "S0", fold, settings, tmp_path / "own")
    assert own.architecture.selected == network.architecture.selected
    assert own.info.feature_names == wide.feature_names

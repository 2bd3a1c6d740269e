"""Bulk scoring through TFX's RunInference on Beam's local runner equals the model in process."""

from __future__ import annotations

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from barcast.errors import ModelError

# importing Beam, TFX and TensorFlow takes 10-20 s; third parties warn about one another
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from barcast import datasets, labels, splits
    from barcast.training import train_linear
    from barcast.training.settings import PlainSettings

    bars = worlds.bars(2, 900, seed=8).with_columns(pl.col("event_timestamp").alias("created_timestamp"))
    change = pl.col("close").log().diff().over("symbol")
    features = bars.select(
        "symbol", "event_timestamp", "created_timestamp",
        change.cast(pl.Float32).alias("change_1"),
        change.rolling_mean(5).over("symbol").cast(pl.Float32).alias("mean_5"),
        change.rolling_std(10).over("symbol").cast(pl.Float32).alias("std_10"),
    )  # fmt: skip
    dataset = datasets.build(features, labels.make(bars, horizon_bars=3), lookback_bars=8)
    fold = splits.holdout(dataset.rows)
    model = train_linear(dataset, fold, PlainSettings(horizon_bars=3, lookback_bars=8))
    folder = tmp_path_factory.mktemp("bulk")
    datasets.save(dataset, folder / "dataset")
    model.export(folder / "model" / "1")
    return folder, dataset, model


def test_bulk_scores_equal_the_model_in_process(trained):
    from barcast.adapters import beam

    folder, dataset, model = trained
    rows = np.arange(0, len(dataset), 3)
    out = beam.score(folder / "model" / "1", folder / "dataset", folder / "out", rows=rows, shard_rows=100)
    scored = beam.read(out, folder / "dataset", name="linear", thresholds=model.info.thresholds)
    expected = model.predictions(dataset, rows).sort("symbol", "event_timestamp")
    assert scored.height == len(rows)
    for column in ("p_sell", "p_hold", "p_buy", "confidence", "expected_return"):
        np.testing.assert_allclose(scored[column], expected[column], atol=1e-5)
    assert scored["label"].to_list() == expected["label"].to_list()

    from barcast.evaluation import frames

    assert frames.check(scored).height == len(rows)


def test_bulk_scoring_without_a_model_says_so(trained, tmp_path):
    from barcast.adapters import beam

    folder = trained[0]
    with pytest.raises(ModelError, match="no SavedModel"):
        beam.score(tmp_path, folder / "dataset", tmp_path / "out")
    with pytest.raises(ModelError, match="no scores"):
        beam.read(tmp_path, folder / "dataset")


def test_blessing_judges_each_model_by_its_own_rows_in_one_analysis(monkeypatch):
    from barcast.config.evaluation import EvaluationConfig
    from barcast.evaluation import blessing, frames

    labels = worlds.labelled(worlds.bars(3, 700, seed=1))
    good = worlds.predictions(labels, skill=0.3, seed=1)
    rival = worlds.predictions(labels, skill=0.3, seed=2)
    harmed = pl.concat(
        [
            good.filter(pl.col("symbol") != "S1"),
            worlds.predictions(labels, skill=-0.9, seed=4).filter(pl.col("symbol") == "S1"),
        ]
    )

    def only(frame, symbol):
        return frame.filter(pl.col("symbol") == symbol)

    config = EvaluationConfig(tfma_max_rows=3000)  # shared by two whole models and those of one symbol
    pairs = {
        "universal": (good, rival),
        "harmed": (harmed, rival),
        "S0": (only(good, "S0"), None),
        "S1": (only(harmed, "S1"), only(rival, "S1")),
    }
    found = blessing.bless(pairs, config)
    assert list(found) == list(pairs)
    assert {name: f.blessed for name, f in found.items()} == {
        "universal": True,
        "harmed": False,
        "S0": True,
        "S1": False,
    }
    assert any("symbol=S1" in r for r in found["harmed"].reasons)
    assert any("slice all" in r for r in found["S1"].reasons)
    assert "blesses the model" in found["S0"].sentence
    for name, most in (("universal", 1000), ("S0", 500)):  # two models of one symbol share the rows
        table = found[name].table
        rows = frames.sample(pairs[name][0], most)
        assert rows.height == most
        said = np.argmax(rows.select("p_sell", "p_hold", "p_buy").to_numpy(), axis=1)
        assert table.filter(pl.col("slice") == "all")["rows"][0] == rows.height
        right = np.mean(said == rows["label"].to_numpy())
        assert table.filter(pl.col("slice") == "all")["accuracy"][0] == pytest.approx(right, abs=2e-3)
    assert {"all", "symbol=S0", "regime=bull", "hour=03"} <= set(found["universal"].table["slice"])
    assert not found["S0"].table["slice"].str.starts_with("symbol=").any()  # the same rows as "all"
    assert found["S0"].table["accuracy_change"].is_nan().all()
    assert not found["universal"].table["accuracy_change"].is_nan().any()
    monkeypatch.setattr(blessing, "_ROWS_OF_A_PROCESS", 1000)  # enough rows for a process on each core
    apart = blessing.bless(pairs, config)
    for name, whole in found.items():
        assert_frame_equal(apart[name].table, whole.table)
        assert apart[name].reasons == whole.reasons


def test_hour_of_daily_bars_is_no_slice():
    from barcast.evaluation import blessing, frames

    hourly = frames.check(worlds.predictions(worlds.labelled(worlds.bars(2, 300, seed=1)), skill=0.1, seed=1))
    daily = hourly.filter(pl.col("event_timestamp").dt.hour() == 3)
    assert blessing._examples("m", hourly, None, 100)["hour"].n_unique() > 1
    assert blessing._examples("m", daily, None, 100)["hour"].n_unique() == 1


def test_bulk_scoring_calls_each_symbol_by_the_models_own_number(tmp_path):
    import json

    import tensorflow as tf

    from barcast import datasets
    from barcast.adapters import beam

    dataset = datasets.Dataset(
        np.ones((3, 1), np.float32),
        ("f",),
        1,
        np.arange(3),
        np.array([1, 2, 3], np.int32),
        ("AMD", "IBM", "KO"),
        pl.DataFrame({"symbol": ["AMD", "IBM", "KO"]}),
    )
    datasets.save(dataset, tmp_path / "dataset")
    (tmp_path / "model" / "assets.extra").mkdir(parents=True)
    serving = {"symbol_ids": {"IBM": 1, "KO": 2}}  # AMD joined after its training
    (tmp_path / "model" / "assets.extra" / "serving.json").write_text(json.dumps(serving))
    numbers = beam._numbers(tmp_path / "model", dataset.symbols)
    told = [
        tf.train.Example.FromString(text).features.feature["symbol_id"].int64_list.value[0]
        for _, text in beam._examples([0, 1, 2], str(tmp_path / "dataset"), numbers)
    ]
    assert told == [0, 1, 2]

"""What the steps that judge keep beside the per-row results: incumbents, slices, summaries."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from barcast import names, steps
from barcast.config import Config
from barcast.errors import RefusedError
from barcast.registry import Registry, manifest
from barcast.steps import candidates, govern, incumbents, slices, summary
from barcast.workspace import Workspace

START = datetime(2024, 1, 1, tzinfo=UTC)


def rows(symbols, who, bars=3):
    return pl.DataFrame(
        [
            {"symbol": s, "event_timestamp": START + timedelta(days=d), "who": who}
            for s in symbols
            for d in range(bars)
        ]
    )


@pytest.fixture
def predictions(tmp_path):
    """Live: the universal model and AAPL's own."""
    rows(["AAPL", "IBM", "BTC/USDT"], "universal").write_parquet(
        candidates.results_file(tmp_path, names.UNIVERSAL, champion=True)
    )
    rows(["AAPL"], "own").write_parquet(candidates.results_file(tmp_path, "AAPL", champion=True))
    return tmp_path


def test_each_symbol_is_answered_by_its_own_champion_else_by_the_universal_one(predictions):
    like = rows(["IBM", "AAPL"], "candidate", bars=2)
    found = incumbents.answering_now(predictions, like)
    assert found.select("symbol", "event_timestamp").rows() == like.select("symbol", "event_timestamp").rows()
    assert found["who"].to_list() == ["universal", "universal", "own", "own"]
    only = incumbents.answering_now(predictions, rows(["BTC/USDT"], "candidate"))
    assert only["who"].unique().to_list() == ["universal"]


def test_a_symbols_new_model_is_judged_against_the_live_ensemble(predictions, tmp_path):
    registry = Registry(Workspace("daily", tmp_path / "state"))
    for word, version in ((names.UNIVERSAL, 1), (names.ENSEMBLE, 2)):
        line = {"model": registry.model_name(word), "version": version, "by": "ana"}
        registry.ledger.append("registered", **line, details={"kind": "network", "trained_until": None})
        registry.ledger.append("promoted", **line, details={"labels": {"stable": version}})
    rows(["AAPL", "IBM"], "ensemble").write_parquet(
        candidates.results_file(predictions, names.ENSEMBLE, champion=True)
    )
    standing = govern._standing(registry, predictions, ["IBM"], START)
    rival = govern._incumbent(registry, predictions, "IBM", standing, START)
    assert rival.name == "champion v2 of _ensemble"
    assert rival.rows.select("symbol", "who").unique().rows() == [("IBM", "ensemble")]
    # a new ensemble of the same run takes the live one's place
    standing = govern._standing(registry, predictions, [names.ENSEMBLE, "IBM"], START)
    assert names.ENSEMBLE not in standing


@pytest.mark.parametrize("renewed", [["AAPL"], [names.LINEAR, "AAPL"]])
def test_where_only_the_baseline_is_live_a_symbols_model_is_judged_against_it(tmp_path, renewed):
    registry = Registry(Workspace("daily", tmp_path / "state"))
    line = {"model": registry.model_name(names.LINEAR), "version": 1, "by": "ana"}
    registry.ledger.append("registered", **line, details={"kind": "linear", "trained_until": None})
    registry.ledger.append("promoted", **line, details={"labels": {"stable": 1}})
    rows(["AAPL", "IBM"], "baseline").write_parquet(
        candidates.results_file(tmp_path, names.LINEAR, champion=True)
    )
    winners = govern._standing(registry, tmp_path, renewed, START)
    if names.LINEAR in renewed:  # its new version lost: the live one stays
        winners[names.LINEAR] = govern._incumbent(registry, tmp_path, names.LINEAR, winners, START)
    for word in ("AAPL", names.ENSEMBLE, names.UNIVERSAL):
        rival = govern._incumbent(registry, tmp_path, word, winners, START)
        assert rival is not None
        assert rival.name == "champion v1 of _linear"


def test_bars_that_nobody_answered_give_no_incumbent(predictions, tmp_path):
    assert incumbents.answering_now(predictions, rows(["AAPL"], "candidate", bars=4)) is None
    assert incumbents.answering_now(predictions, rows(["AAPL", "GOOG"], "candidate")) is None
    empty = tmp_path / "nothing"
    empty.mkdir()
    assert incumbents.answering_now(empty, rows(["AAPL"], "candidate")) is None


def test_champion_that_cannot_be_scored_is_named_to_all_that_it_answers_for(predictions):
    incumbents.cannot_score(predictions, "AAPL", 4, "it knows 300 features, not 307")
    assert incumbents.unscored(predictions, "AAPL") is None  # its results are there: scored after all
    candidates.results_file(predictions, "AAPL", champion=True).unlink()
    assert incumbents.unscored(predictions, "AAPL") == (
        "champion v4 of AAPL",
        "it knows 300 features, not 307",
    )
    assert incumbents.unscored(predictions, "IBM") is None  # the universal champion is scored
    candidates.results_file(predictions, names.UNIVERSAL, champion=True).unlink()
    incumbents.cannot_score(predictions, names.UNIVERSAL, 2, "other features")
    assert incumbents.unscored(predictions, "IBM") == ("champion v2 of universal", "other features")
    assert incumbents.unscored(predictions, names.LINEAR) is None  # compared with its own champion only


def test_blessings_are_read_back_one_by_one(tmp_path):
    file = tmp_path / "blessing.json"
    table = [{"slice": "all", "rows": 10.0}]
    found = {
        names.UNIVERSAL: {"passed": True, "sentence": "It blesses.", "table": table},
        "AAPL": {"passed": False, "sentence": "slice hour=03: below.", "table": table},
    }
    file.write_text(json.dumps(found))
    read = slices.read(str(file))
    assert [(c.name, c.passed, c.on_failure) for c in slices.check(read, "AAPL")] == [
        ("blessing", False, "hold")
    ]
    assert slices.check(read, "IBM") == []
    shown = slices.shown(read)
    assert shown["blessing"] == "It blesses. AAPL: slice hour=03: below."
    assert shown["slices"].rows() == [("all", 10.0)]
    file.write_text("{}")
    assert slices.shown(slices.read(str(file))) == {"slices": None, "blessing": ""}


def test_missing_share_counts_what_the_calendar_promised():
    config = Config(interval="1h", universe={"calendar": "24/7"})
    whole = pl.DataFrame(
        {"symbol": ["A"] * 11, "event_timestamp": [START + timedelta(hours=h) for h in range(11)]},
        schema={"symbol": pl.Utf8, "event_timestamp": pl.Datetime("us", "UTC")},
    )
    assert summary.missing_share(whole, config) == 0.0
    holed = whole.filter(pl.Series([h not in (3, 4) for h in range(11)]))
    assert summary.missing_share(holed, config) == pytest.approx(2 / 11)
    two = pl.concat([holed, whole.with_columns(symbol=pl.lit("B"))])
    assert summary.missing_share(two, config) == pytest.approx(2 / 22)


def test_exported_model_is_described_in_plain_values(tmp_path):
    folder = tmp_path / "assets.extra"
    folder.mkdir()
    facts = {
        "training_seconds": 17.2, "parameters": 100, "epochs": [{"loss": 1.0}], "suspicious_features": [],
        "calibration": {"temperature": 1.5}, "seed_noise": {"log_loss": 0.01, "net_return": 1e-5},
        "rows": {"bounds": {"train": ["2000-01-01T00:00:00+00:00", "2007-09-27T20:00:00+00:00"]}},
    }  # fmt: skip
    names_of = [f"f{i}" for i in range(7)]
    info = {
        "seed": 7, "facts": facts, "thresholds": {"lower": -0.4, "upper": 0.4}, "feature_names": names_of
    }  # fmt: skip
    architecture = {"lstm_units": [64, 32], "selected": [0, 1, 5], "specialists": [], "int8": False}
    (folder / "model.json").write_text(json.dumps({"info": info, "architecture": architecture}))
    found = summary.described(tmp_path)
    assert found["architecture"] == {"lstm_units": "64, 32", "selected_features": 3, "int8": False}
    assert found["selected_features"] == ["f0", "f1", "f5"]
    assert found["training"] == {
        "seed": 7, "training_seconds": 17.2, "parameters": 100, "train span": "2000-01-01 to 2007-09-27",
        "threshold lower": -0.4, "threshold upper": 0.4, "calibration temperature": 1.5,
    }  # fmt: skip
    content = {
        "models": {names.UNIVERSAL: found, "AAPL": {"seed_noise": {}}, names.LINEAR: {"seed_noise": {}}}
    }
    noise = {"log_loss": 0.01, "net_return": 1e-5}
    assert summary.seed_noise(content, names.UNIVERSAL) == noise
    assert summary.seed_noise(content, "AAPL") == noise  # made from the universal network
    assert set(summary.seed_noise(content, names.LINEAR).values()) == {0.0}


def test_files_other_than_those_scored_are_not_registered(tmp_path, monkeypatch):
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    config = Config(storage={"root": str(tmp_path / "state")})
    model = tmp_path / "models" / "AAPL"
    (model / "assets.extra").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"as scored")
    (model / "assets.extra" / "serving.json").write_text('{"feature_names": ["f0"]}')
    scored = manifest.digest(manifest.hash_files(model))
    summary.write(tmp_path, {"models": {"AAPL": {"digest": scored}}})
    (model / "saved_model.pb").write_bytes(b"written to afterwards")
    with pytest.raises(RefusedError, match="not those that were scored"):
        steps.register(
            config.model_dump_json(),
            "run",
            {"data_version": 1, "data_hash": "d"},
            "none",
            "none",
            [str(tmp_path / "models")],
            str(tmp_path),
            "none",
            True,
        )
    assert not config.open_workspace().ledger.exists()

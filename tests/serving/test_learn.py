"""From logged answers and their outcomes to an updated shadow, with real features, labels and a real network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from serving_world import World, make_bars

from barcast.config import Config
from barcast.errors import RefusedError
from barcast.features import feature_names
from barcast.serving.feedback import record
from barcast.serving.learn import _answers, _table, learn
from barcast.serving.prediction_log import PredictionLog, TradeReport
from barcast.serving.types import Confidence, Prediction, probabilities_of

pytestmark = pytest.mark.slow  # computes real features and runs a real network


def _answer(symbol: str, at: object) -> Prediction:
    return Prediction(
        symbol=symbol,
        action="BUY",
        probabilities=probabilities_of((0.2, 0.3, 0.5)),
        confidence=0.5,
        confidence_detail=Confidence(overall=0.5, calibrated=0.5, side=0.7, uncertainty=0.0, entropy=0.9),
        expected_return=0.01,
        expected_volatility=0.02,
        price=100.0,
        model="w.universal",
        model_version=1,
        model_kind="universal",
        feature_timestamp=at,
        answered_at=at,
        input_hash="00",
    )


NAMES = tuple(feature_names("1h", Config(workspace="w", interval="1h").features))


def made(bars: pl.DataFrame) -> Any:
    """A real, untrained network that says it was trained until bar 300."""
    from barcast.config.models import ModelConfig
    from barcast.labels import Thresholds
    from barcast.models.network import Network
    from barcast.models.presets import architecture
    from barcast.training import ModelInfo, TrainedModel

    shape = architecture(ModelConfig(), num_features=len(NAMES), lookback_bars=60)
    times = sorted(bars["event_timestamp"].unique())
    info = ModelInfo(
        "network", None, NAMES, ("AAA",), 60, 5, Thresholds(-0.5, 0.5), 1, times[300].isoformat()
    )
    reference = {"mean": np.zeros(len(NAMES)), "scale": np.ones(len(NAMES))}
    return TrainedModel(Network(shape, seed=1).build_once(), info, reference)


def test_learn_with_logged_answers_updates_the_shadow_once(world: World, tmp_path: Path) -> None:
    config = Config(workspace="w", interval="1h", universe={"calendar": "24/7"})
    bars = make_bars(["AAA", "BBB"], count=420)
    times = sorted(bars["event_timestamp"].unique())
    made(bars).save(world.workspace.models / "w.universal" / "1" / "assets.extra")
    log = PredictionLog(tmp_path / "p.db")
    log.append([_answer(s, at) for at in times[330:400] for s in ("AAA", "BBB")])
    traded = log.predictions()["prediction_id"][0]
    trade = {
        "trade_id": "t-1", "symbol": "AAA", "action": "BUY", "entry_price": 100.0, "exit_price": 103.0, "size": 0.1,
        "opened_at": times[331], "closed_at": times[334], "prediction_id": traded,
    }  # fmt: skip
    record(log, TradeReport(**trade), config.decisions)
    assert log.trades(unlearned=True).height == 1
    first = learn(world.workspace, config, log, bars)
    assert log.trades(unlearned=True).height == 0
    rows = _answers(log, "w.universal", 1, config.decisions)
    reward = dict(rows.select("prediction_id", "reward").iter_rows())
    assert reward.pop(traded) == log.trades()["reward"][0] > 0
    up = {i for i, r in rows.select("prediction_id", "forward_log_return").iter_rows() if r > 0.001}  # 10 bps
    assert {i for i, points in reward.items() if points == -0.1} == up - {traded}
    assert set(reward.values()) == {0.0, -0.1}
    assert first.outcomes == 140
    assert first.update.done == "updated"
    assert not first.retrain.ask  # nothing was advised, so there is nothing to judge
    second = learn(world.workspace, config, log, bars)
    assert second.update.done == "waiting"
    state = json.loads((world.workspace.state / "shadow" / "learning.json").read_text())
    assert (state["parent"], state["updates"], state["trades_seen"]) == ("w.universal/1", 1, 140)


def test_offer_with_unseen_outcomes_takes_the_shadow_to_the_gate_and_no_further(tmp_path: Path) -> None:
    from barcast.bars.ingest import open_store
    from barcast.operations.schedules import fire
    from barcast.registry import Registry
    from barcast.steps.offer import offer

    config = Config(
        workspace="w",
        interval="1h",
        universe={"calendar": "24/7"},
        storage={"root": str(tmp_path)},
        approval="manual",
    )
    workspace, registry = config.open_workspace(), Registry(config.open_workspace(), config)
    bars = make_bars(["AAA", "BBB"], count=520)
    times = sorted(bars["event_timestamp"].unique())
    exported = made(bars).export(tmp_path / "exported")
    metadata = {
        "kind": "network", "data_version": "1", "data_hash": "d" * 64, "config_hash": config.hash, "features": NAMES
    }  # fmt: skip
    version = registry.register(exported, "universal", metadata)
    registry.judge("universal", version, {"outcome": "promote", "reasons": ["first"], "numbers": {}})
    registry.set_challenger("universal", version)
    registry.approve("universal", by="ana", reason="first")
    registry.promote("universal")
    log = PredictionLog(workspace.logs / "predictions.db")

    def answered(first: int, last: int) -> str:
        log.append([_answer(s, at) for at in times[first:last] for s in ("AAA", "BBB")])
        return learn(workspace, config, log, bars).update.done

    with pytest.raises(RefusedError, match="has not answered an outcome"):
        offer(config)
    assert answered(330, 390) == "updated"
    with pytest.raises(RefusedError, match="has not answered an outcome"):
        offer(config)
    assert [answered(390, 420), answered(420, 450)] == ["updated", "updated"]
    judged = pl.read_parquet(workspace.state / "shadow" / "judged_shadow.parquet")
    assert judged.height == 120  # each outcome once, each before it was learnt from
    assert judged["event_timestamp"].min() == times[390]
    registered, verdict = offer(config)
    shown = registry.show("universal", registered)
    assert shown["parent"] == f"w.universal:{version}"
    assert shown["verdict"]["outcome"] == verdict.outcome
    assert verdict.outcome in ("keep", "hold")  # 60 hours decide nothing
    assert registry.show("universal")["version"] == version
    loaded = next(c for c in verdict.checks if c.name == "infrastructure")
    assert loaded.passed, loaded.detail
    open_store(config, workspace).append(bars)
    fire("learning", "learn", config.model_dump_json())
    entry = json.loads((workspace.state / "schedule_runs.jsonl").read_text())
    assert entry["state"] == "done"
    assert "240 outcomes; waiting (0 new outcomes" in entry["detail"]


def test_lessons_are_the_labels_of_training_no_gaps_but_nights(tmp_path: Path) -> None:
    """Of hourly stock bars with three days missing: a horizon over a night is known, one over those days is not."""
    from barcast.bars.sources.simulator import simulate
    from barcast.serving.online import Shadow
    from barcast.training.prepare import from_bars

    config = Config(
        workspace="w",
        interval="1h",
        lookback_bars=2,
        source={"kind": "simulator"},
        universe={"calendar": "XNYS"},
        features={"categories": ["price_action"]},
    )
    bars = simulate(1, 420, "1h", calendar="XNYS").with_row_index()
    bars = bars.filter(~pl.col("index").is_between(300, 320)).drop("index")
    names = tuple(feature_names("1h", config.features))
    model = made(bars)
    info = dataclasses.replace(model.info, feature_names=names, lookback_bars=2)
    champion = dataclasses.replace(model, info=info)
    shadow = Shadow(tmp_path, "w.universal/1", lambda: champion, config.decisions.learning)
    taught = set(_table(bars, config, shadow).drop_nulls()["event_timestamp"])
    assert set(from_bars(bars, config).rows["event_timestamp"]) <= taught
    assert not set(bars["event_timestamp"][295:300]) & taught

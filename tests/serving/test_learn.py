"""From logged answers and their outcomes to an updated shadow, with real features, labels and a real network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from serving_world import World, make_bars

from barcast.config import Config
from barcast.features import feature_names
from barcast.serving.learn import learn
from barcast.serving.prediction_log import PredictionLog
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


def test_learn_with_logged_answers_updates_the_shadow_once(world: World, tmp_path: Path) -> None:
    from barcast.config.models import ModelConfig
    from barcast.labels import Thresholds
    from barcast.models.network import Network
    from barcast.models.presets import architecture
    from barcast.training import ModelInfo, TrainedModel

    config = Config(
        workspace="w", interval="1h", horizon_bars=5, lookback_bars=60, universe={"calendar": "24/7"}
    )
    bars = make_bars(["AAA", "BBB"], count=420)
    names = tuple(feature_names(config.interval, config.features))
    network = Network(
        architecture(ModelConfig(), num_features=len(names), lookback_bars=60), seed=1
    ).build_once()
    times = sorted(bars["event_timestamp"].unique())
    info = ModelInfo(
        "network", None, names, ("AAA",), 60, 5, Thresholds(-0.5, 0.5), 1, times[300].isoformat()
    )
    reference = {"mean": np.zeros(len(names)), "scale": np.ones(len(names))}
    extra = world.workspace.models / "w.universal" / "1" / "assets.extra"
    TrainedModel(network, info, reference).save(extra)
    log = PredictionLog(tmp_path / "p.db")
    log.append([_answer(s, at) for at in times[330:400] for s in ("AAA", "BBB")])
    first = learn(world.workspace, config, log, bars)
    assert first.outcomes == 140
    assert first.update.done == "updated"
    assert not first.retrain.ask  # nothing was advised, so there is nothing to judge
    second = learn(world.workspace, config, log, bars)
    assert second.update.done == "waiting"
    state = json.loads((world.workspace.state / "shadow" / "learning.json").read_text())
    assert (state["parent"], state["updates"], state["trades_seen"]) == ("w.universal/1", 1, 140)

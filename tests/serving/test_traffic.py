"""Canary and shadow: who answers, what is logged, and that a comparison disturbs nobody."""

from __future__ import annotations

import numpy as np
from model_double import outputs
from serving_world import F, T, World, make_bars

from barcast.serving.prediction_log import PredictionLog


def test_traffic_with_share_goes_to_the_canary_and_stays_with_it(world: World) -> None:
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "ab", "share": 0.5, "version": 2}},
    )
    world.server.models[("w.universal", 2)] = outputs((0.7, 0.2, 0.1), expected=-0.01)
    symbols = [f"S{i}" for i in range(40)]
    world.book.update(make_bars(symbols))
    for s in symbols:
        world.store.put(s, world.bars["event_timestamp"].max(), np.zeros((T, F)))
    with world.predictor() as predictor:
        first = {a.symbol: a.variant for a in predictor.predict(symbols)}
        second = {a.symbol: a.variant for a in predictor.predict(symbols)}
    assert first == second
    share = sum(v == "canary" for v in first.values()) / len(first)
    assert 0.25 < share < 0.75


def test_traffic_with_broken_canary_is_answered_by_the_champion(world: World) -> None:
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "ab", "share": 1.0, "version": 2}},
    )
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.model_version == 1
    assert answer.variant == "champion"
    assert answer.fallback is not None
    assert "NOT_FOUND" in answer.fallback.reasons[0]


def test_traffic_without_a_share_that_is_a_number_costs_no_answer(world: World) -> None:
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "ab", "share": "half", "version": 2}},
    )
    with world.predictor() as predictor:
        assert predictor.predict(["AAA"])[0].model_version == 1


def test_traffic_with_shadow_logs_both_and_answers_the_champion(world: World) -> None:
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "shadow", "share": 1.0, "version": 2}},
    )
    world.server.models[("w.universal", 2)] = outputs((0.7, 0.2, 0.1), expected=-0.01)
    log = PredictionLog(world.workspace.logs / "predictions.db")
    with world.predictor(log=log) as predictor:
        answer = predictor.predict(["AAA"])[0]
        predictor.drain()
        rows = log.predictions()
    assert answer.model_version == 1
    assert sorted(zip(rows["arm"], rows["version"], strict=True)) == [("champion", 1), ("shadow", 2)]


def test_a_shadow_that_cannot_be_recorded_disturbs_nobody(world: World) -> None:
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "shadow", "share": 1.0, "version": 2}},
    )
    world.server.models[("w.universal", 2)] = outputs((0.6, 0.3, 0.1))
    log = PredictionLog(world.workspace.logs / "p.db")
    log.close()
    with world.predictor(log=log) as predictor:
        assert predictor.predict(["AAA"])[0].status == "success"


def test_a_shadow_is_judged_by_its_own_reference(world: World) -> None:
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "shadow", "share": 1.0, "version": 2}},
    )
    world.server.models[("w.universal", 2)] = outputs((0.1, 0.3, 0.6))
    world.files("w.universal", 2, {}, mean=np.full(F, 50.0), scale=np.ones(F), distance=np.ones(100))
    log = PredictionLog(world.workspace.logs / "p.db")
    with world.predictor(log=log) as predictor:
        predictor.predict(["AAA"])
        predictor.drain()
    refusals = dict(log.predictions().select("arm", "refusals").iter_rows())
    assert refusals == {"champion": "", "shadow": "outlier"}

"""The full answer: batching, prices, caches that never mask anything, traffic to a canary."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import grpc
import numpy as np
import polars as pl
import pytest
from model_double import outputs
from serving_world import F, T, World, linear_reference, make_bars

from barcast import clock
from barcast.cli._prediction_table import show
from barcast.decisions.types import Account, Trade
from barcast.serving import state
from barcast.serving.caches import Window


def test_predict_with_all_symbols_asks_the_universal_model_once(world: World) -> None:
    with world.predictor() as predictor:
        answers = predictor.predict()
    assert [a.symbol for a in answers] == ["AAA", "BBB", "CCC"]
    assert world.server.calls == [("w.universal", 1, 3)]
    assert all(a.model_kind == "universal" and a.fallback is None for a in answers)


def test_predict_with_own_models_asks_each_once_at_the_same_time(world: World) -> None:
    world.live({"w.universal": {"stable": 1}, "w.AAA": {"stable": 3}, "w.BBB": {"stable": 2}})
    for name, version in (("w.AAA", 3), ("w.BBB", 2)):
        world.server.models[(name, version)] = outputs((0.6, 0.3, 0.1), expected=-0.01)
    world.server.delay_seconds = 0.15
    import time

    with world.predictor() as predictor:
        start = time.perf_counter()
        answers = predictor.predict()
        took = time.perf_counter() - start
    assert sorted(c[:2] for c in world.server.calls) == [("w.AAA", 3), ("w.BBB", 2), ("w.universal", 1)]
    assert took < 0.40  # three waits of 0.15 s one after the other would be 0.45
    assert [a.model_kind for a in answers] == ["specific", "specific", "universal"]


def test_predict_with_symbol_ids_sends_them_and_zero_for_unknown(world: World) -> None:
    seen: list[list[int]] = []

    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(inputs["symbol_id"].tolist())
        assert inputs["symbol_id"].dtype == np.int32
        assert inputs["window"].dtype == np.float32
        return outputs((0.1, 0.3, 0.6))(inputs)

    world.server.models[("w.universal", 1)] = model
    with world.predictor() as predictor:
        predictor.predict(["BBB", "CCC"])
    assert seen == [[2, 0]]


def test_predict_with_more_symbols_than_a_batch_asks_equal_parts_at_the_same_time(world: World) -> None:
    many = [f"S{i:02d}" for i in range(50)]
    bars = make_bars(many, count=300)
    world.book.update(bars)
    for number, symbol in enumerate(many):
        world.store.put(symbol, bars["event_timestamp"].max(), np.full((T, F), number / 100))

    def model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = outputs((0.1, 0.3, 0.6))(inputs)
        return {**found, "expected_return": inputs["window"][:, -1, 0]}

    world.server.models[("w.universal", 1)] = model
    with world.predictor() as predictor:
        answers = predictor.predict(many)
    assert world.server.calls == [("w.universal", 1, 25)] * 2
    assert [a.expected_return for a in answers] == pytest.approx([i / 100 for i in range(50)])


def votes(*sides: tuple[float, float, float], weights: tuple[float, ...] = (0.5, 0.5)) -> Any:
    """The signature `members` of an ensemble of two."""

    def answer(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        b = len(inputs["window"])
        return {
            "member_probabilities": np.tile(np.array(sides, np.float32), (b, 1, 1)),
            "member_weights": np.tile(np.array(weights, np.float32), (b, 1)),
        }

    return answer


BUY, SELL = (0.1, 0.2, 0.7), (0.7, 0.2, 0.1)


@pytest.mark.parametrize(
    ("said", "now", "next_time"),
    [
        (votes(BUY, BUY), False, False),
        (votes(BUY, SELL, weights=(0.6, 0.4)), False, False),
        (votes(BUY, SELL, weights=(0.4, 0.6)), True, True),
        # what was not heard is asked for again; what was said is kept with the answer
        (grpc.StatusCode.INTERNAL, True, False),
        (votes(BUY, BUY, weights=(float("nan"), 1.0)), True, False),
    ],
)
def test_consensus_with_an_ensemble_asks_its_members_and_names_itself(
    world: World, said: Any, now: bool, next_time: bool
) -> None:
    extra = world.files("w.universal", 1, {"AAA": 1}, **linear_reference())
    serving = json.loads((extra / "serving.json").read_text())
    (extra / "serving.json").write_text(json.dumps({**serving, "members": ["network", "linear"]}))
    world.server.models[("w.universal", 1)] = outputs(BUY)
    world.server.models[("w.universal", 1, "members")] = said
    with world.predictor() as predictor:
        first = predictor.predict(["AAA"])[0]
        world.server.models[("w.universal", 1, "members")] = votes(BUY, BUY)
        second = predictor.predict(["AAA"])[0]
    for answer, refused in ((first, now), (second, next_time)):
        assert answer.status == "success"
        assert answer.fallback is None
        assert answer.decision is not None
        assert ("consensus" in {r.rule for r in answer.decision.refusals}) == refused


def test_answer_fields_with_known_outputs_are_these(world: World) -> None:
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    price = float(world.bars.filter(pl.col("symbol") == "AAA")["close"][-1])
    assert answer.action == "BUY"
    assert answer.predicted_direction == "up"
    assert answer.probabilities is not None
    assert pytest.approx(0.6, abs=1e-6) == answer.probabilities.BUY
    assert answer.confidence_detail is not None
    assert answer.confidence_detail.side == pytest.approx(0.6 / 0.7, abs=1e-6)
    assert answer.price == pytest.approx(price)
    assert answer.predicted_price == pytest.approx(price * math.exp(0.01), rel=1e-6)
    assert (answer.horizon_bars, answer.horizon_hours) == (5, 5.0)
    file = world.workspace.models / "w.universal" / "1" / "assets.extra" / "serving.json"
    barriers = {**json.loads(file.read_text()), "expected_duration_bars": 3.25}
    file.write_text(json.dumps(barriers))
    with world.predictor() as predictor:
        assert predictor.predict(["AAA"])[0].horizon_hours == 3.25
    assert answer.regime == "bull"
    assert answer.volatility_regime == "medium"
    assert answer.trend_strength == pytest.approx(0.6)
    assert answer.stress is not None
    assert 0 <= answer.stress <= 1
    assert answer.risk_level in (1, 2, 3, 4, 5)
    assert answer.opportunity == pytest.approx((0.01 - 0.001) / 0.02 * (2 * 6 / 7 - 1), rel=1e-4)
    assert answer.decision is not None
    assert answer.decision.action == "BUY"
    assert answer.decision.confidence_band == "high"
    assert answer.sizes is not None
    # Kelly by hand: min(2 * 6/7 - 1, (0.01 - 0.001) / 0.02^2) / 4 = 0.1786; then x1.5 for high, within 20%
    # of equity
    assert answer.sizes.kelly == pytest.approx((2 * 6 / 7 - 1) / 4, abs=1e-5)
    assert answer.sizes.confidence_adjusted == pytest.approx(1.5 * (2 * 6 / 7 - 1) / 4, abs=1e-5)
    assert answer.sizes.suggested == pytest.approx(0.20, abs=1e-9)
    assert answer.feature_timestamp == world.bars["event_timestamp"].max()
    assert answer.model_version == 1
    assert "symbol" in answer.model_dump_json()


def test_price_with_adjustment_factor_is_as_traded(world: World) -> None:
    world.book.update(make_bars(["DDD"], factor=0.5))
    world.store.put("DDD", world.bars["event_timestamp"].max(), np.zeros((T, F)))
    with world.predictor() as predictor:
        answer = predictor.predict(["DDD"])[0]
    assert answer.price == pytest.approx(float(make_bars(["DDD"])["close"][-1]))


def test_cache_with_same_window_asks_once_and_new_bar_asks_again(world: World) -> None:
    with world.predictor() as predictor:
        first = predictor.predict(["AAA"])[0]
        again = predictor.predict(["AAA"])[0]
        assert len(world.server.calls) == 1
        assert again.probabilities == first.probabilities
        newer = make_bars(["AAA"], count=301).filter(pl.col("event_timestamp") > first.feature_timestamp)
        assert newer.height == 1
        predictor.book.update(newer)
        world.store.put("AAA", newer["event_timestamp"][0], np.full((T, F), 0.3))
        third = predictor.predict(["AAA"])[0]
    assert len(world.server.calls) == 2
    assert third.feature_timestamp == first.feature_timestamp + timedelta(hours=1)
    assert third.price == pytest.approx(float(newer["close"][0]))


def test_cache_with_corrected_bar_is_not_masked(world: World) -> None:
    """The same close time, other contents: the answer follows the new window."""
    with world.predictor() as predictor:
        first = predictor.predict(["AAA"])[0]
        world.store.put("AAA", first.feature_timestamp, np.full((T, F), -1.0))
        second = predictor.predict(["AAA"])[0]
    assert len(world.server.calls) == 2
    assert first.input_hash != second.input_hash


def test_cache_with_new_version_is_not_masked(world: World) -> None:
    world.server.models[("w.universal", 2)] = outputs((0.7, 0.2, 0.1), expected=-0.02)
    with world.predictor() as predictor:
        before = predictor.predict(["AAA"])[0]
        world.live({"w.universal": {"stable": 2, "previous": 1}})
        promoted = predictor.predict(["AAA"])[0]
        world.live({"w.universal": {"stable": 1}})
        rolled_back = predictor.predict(["AAA"])[0]
    assert [a.model_version for a in (before, promoted, rolled_back)] == [1, 2, 1]
    assert [a.action for a in (before, promoted, rolled_back)] == ["BUY", "SELL", "BUY"]


def test_observe_with_stream_window_answers_before_the_stores_know(world: World) -> None:
    newer = make_bars(["AAA"], count=301).filter(
        pl.col("event_timestamp") > world.bars["event_timestamp"].max()
    )
    at = newer["event_timestamp"][0]
    with world.predictor() as predictor:
        predictor.observe(newer, [Window.of("AAA", at, np.full((T, F), 0.2))])
        answer = predictor.predict(["AAA"])[0]
        assert answer.feature_timestamp == at
        assert answer.fallback is None
        # a correction of that bar makes the handed-over window void; the store still has the older row
        predictor.book.update(newer.with_columns(pl.col("close") * 1.01, pl.col("high") * 1.01))
        corrected = predictor.predict(["AAA"])[0]
    assert corrected.fallback is not None
    assert corrected.fallback.link == "rules"
    assert "stale features" in corrected.fallback.reasons[0]


def test_book_with_same_bars_again_keeps_the_revision(world: World) -> None:
    before = world.book.revision
    world.book.update(world.bars)
    assert world.book.revision == before
    world.book.update(world.bars.tail(1).with_columns(pl.col("volume") + 1))
    assert world.book.revision == before + 1


@pytest.mark.parametrize(("kind", "rules"), [("ccxt", ["trades_per_hour"]), ("files", [])])
def test_trades_since_the_last_close_count_where_bars_come_in_live(
    world: World, kind: str, rules: list[str]
) -> None:
    newest = world.bars["event_timestamp"].max()
    source = world.config.source.model_copy(update={"kind": kind})
    world.config = world.config.model_copy(update={"source": source})
    trades = tuple(Trade(symbol="CCC", opened_at=newest + timedelta(minutes=m)) for m in (5, 10, 15, 20))
    account = Account(equity=1000.0, peak_equity=1000.0, trades=trades)
    with clock.fixed(newest + timedelta(minutes=30)), world.predictor() as predictor:
        decision = predictor.predict(["AAA"], account=account)[0].decision
    assert decision is not None
    assert [refusal.rule for refusal in decision.refusals] == rules


def test_predict_with_foolish_names_is_refused(world: World) -> None:
    from barcast.errors import ConfigError

    with world.predictor() as predictor:
        for names in ([], [""], ["A" * 65], ["A\n"]):
            with pytest.raises(ConfigError):
                predictor.predict(names)
        assert predictor.predict(["../../etc/passwd"])[0].status == "refused"


@pytest.mark.parametrize("explain", [False])
def test_predict_async_with_symbols_gives_the_same(world: World, explain: bool) -> None:
    import asyncio

    with world.predictor() as predictor:
        one = predictor.predict(["AAA"], explain=explain)[0]
        two = asyncio.run(predictor.predict_async(["AAA"], explain=explain))[0]
    assert one.probabilities == two.probabilities


def test_correlation_with_equal_and_with_shifted_times_is_numpys(world: World) -> None:
    from barcast.serving.market import MarketBook

    rng = np.random.default_rng(0)
    common = rng.normal(size=199)
    bars = make_bars(["A", "B"], count=200)
    moves = {"A": common, "B": -0.8 * common + 0.6 * rng.normal(size=199)}
    closes = {s: 100 * np.exp(np.concatenate([[0.0], np.cumsum(m * 0.01)])) for s, m in moves.items()}
    bars = pl.concat(
        bars.filter(pl.col("symbol") == s).with_columns(pl.Series("close", closes[s])) for s in ("A", "B")
    )
    expected = np.corrcoef(moves["A"], moves["B"])[0, 1]
    book = MarketBook("1h")
    book.update(bars)
    assert book.correlation(("A", "B"), 720.0)[0, 1] == pytest.approx(expected)
    short = MarketBook("1h")
    short.update(
        bars.filter((pl.col("symbol") == "A") | (pl.col("event_timestamp") > bars["event_timestamp"][9]))
    )
    assert short.correlation(("A", "B"), 720.0)[0, 1] == pytest.approx(
        np.corrcoef(moves["A"][10:], moves["B"][10:])[0, 1]
    )
    assert short.correlation(("A", "ZZZ"), 720.0)[0, 1] == 0.0


def printed(world: World, capsys: pytest.CaptureFixture[str]) -> str:
    with world.predictor() as predictor:
        answers = predictor.predict(account=state.load_account(world.workspace, world.config))
    show(answers)
    return capsys.readouterr().out


def test_under_the_predictions_stands_the_rule_that_refused(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no trade" not in printed(world, capsys)
    state.pull(world.workspace, "ana", "flash crash")
    said = printed(world, capsys)
    assert "no trade by emergency_stop: AAA, BBB, CCC. Emergency stop: flash crash (pulled by ana" in said
    assert said.count("emergency_stop") == 1


def test_one_line_says_what_answered_in_place_of_the_model_for_all_symbols(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.server.stop()
    said = printed(world, capsys)
    assert said.count("answered by") == 1
    assert "UNAVAILABLE): AAA, BBB, CCC" in said

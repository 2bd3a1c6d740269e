"""Rewards by hand, stress by hand, portfolio limits, learning triggers, and a stop that only a person
lifts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config.decisions import DecisionsConfig, LearningConfig
from barcast.decisions import Account, Position, Signal, stress
from barcast.decisions.emergency import TRIGGER, EmergencyStop, due
from barcast.decisions.learning import (
    LearningState,
    bounded,
    learning_rate,
    log_loss,
    retrain,
    revert_due,
    update_due,
)
from barcast.decisions.portfolio import allocate
from barcast.decisions.ranking import opportunity, ranked
from barcast.decisions.rewards import TradeOutcome, missed, reward
from barcast.errors import DataError, RefusedError

CONFIG = DecisionsConfig()
AT = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("trade", "total", "names"),
    [
        # the document's example: BUY 45000 -> 46350 (+3%), confidence 0.85, 2.5 hours: a plain profit
        (TradeOutcome(46350 / 45000 - 1, 2.5, side_confidence=0.85), 1.0, ["profitable"]),
        (
            TradeOutcome(0.06, 0.5, risk_level=1),
            3.8,
            ["profitable", "high_profit", "quick_profit", "low_risk"],
        ),
        (
            TradeOutcome(
                0.06,
                0.5,
                2,
                0.9,
                size=0.1,
                expected_volatility=0.2,
                volatility_regime="high",
                profits_before=3,
            ),
            4.6,
            ["profitable", "high_profit", "quick_profit", "low_risk", "consistency", "volatility_adaptation"],
        ),
        (TradeOutcome(0.05, 1.0, 3, profits_before=2), 1.0, ["profitable"]),  # every limit is strict
        (
            TradeOutcome(0.01, 2, size=0.2, expected_volatility=0.2, volatility_regime="high"),
            1.0,
            ["profitable"],
        ),
        (TradeOutcome(-0.01, 2), -0.5, ["losing"]),
        (TradeOutcome(-0.04, 2, side_confidence=0.79), -2.5, ["losing", "big_loss"]),
        (TradeOutcome(-0.04, 2, side_confidence=0.80), -3.5, ["losing", "big_loss", "overconfidence"]),
        (
            TradeOutcome(-0.01, 2, stopped_early=True, held_net_return=0.02),
            -0.7,
            ["losing", "early_stop"],
        ),
        (TradeOutcome(0.03, 2, stopped_early=True, held_net_return=0.02), 1.0, ["profitable"]),
        (TradeOutcome(0.0, 2, side_confidence=0.9), 0.0, []),
    ],
)
def test_reward_with_known_trade_is_the_documented_sum(
    trade: TradeOutcome, total: float, names: list[str]
) -> None:
    result = reward(trade, CONFIG)
    assert result.total == pytest.approx(total)
    assert [name for name, _ in result.parts] == names
    assert result.total == pytest.approx(sum(points for _, points in result.parts))


def test_missed_with_a_gain_beyond_costs_is_a_light_penalty() -> None:
    assert missed(1, 0.0011, CONFIG).total == pytest.approx(-0.1)
    assert missed(-1, -0.0011, CONFIG).total == pytest.approx(-0.1)
    assert missed(1, 0.0009, CONFIG).total == 0.0
    assert missed(0, 0.5, CONFIG).total == 0.0


def account(**shares: float) -> Account:
    positions = tuple(Position(symbol=s, quantity=v * 10, price=100.0) for s, v in shares.items())
    return Account(equity=1000.0, peak_equity=1000.0, positions=positions)


def test_stress_with_hand_made_past_finds_the_worst_day() -> None:
    returns = np.array([[0.01, 0.02], [-0.10, -0.05], [0.03, np.nan], [-0.02, 0.09]])
    times = tuple(AT + timedelta(days=i) for i in range(4))
    report = stress.run(account(A=0.5, B=-0.2), ("A", "B"), returns, times, CONFIG, worst_days=1)
    past = next(s for s in report.scenarios if s.name.startswith("worst past"))
    assert past.name.endswith("2024-05-02 00:00")
    assert past.change == pytest.approx(-0.05 + 0.01)
    assert dict(past.parts) == pytest.approx({"A": -0.05, "B": 0.01})
    flat = next(s for s in report.scenarios if s.name == "all prices -20%")
    assert flat.change == pytest.approx(-0.06)
    assert report.passed
    assert report.worst is report.scenarios[0]


def test_stress_with_too_large_positions_fails() -> None:
    report = stress.run(account(A=2.0), ("A",), np.zeros((0, 1)), (), CONFIG)
    assert not report.passed
    assert report.worst is not None
    assert report.worst.change == pytest.approx(-0.4)


def test_stress_with_simulated_shock_is_seeded_and_of_the_right_size() -> None:
    rng = np.random.default_rng(1)
    returns = rng.normal(0, 0.01, (500, 2))
    times = tuple(AT + timedelta(days=i) for i in range(500))
    one = stress.run(account(A=1.0), ("A", "B"), returns, times, CONFIG, samples=20_000)
    two = stress.run(account(A=1.0), ("A", "B"), returns, times, CONFIG, samples=20_000)
    crash = next(s for s in one.scenarios if s.name.startswith("simulated"))
    assert one == two
    # 1% quantile of a t with 4 degrees, scaled to variance 1, is -2.65; times three times 1%
    assert crash.change == pytest.approx(-2.65 * 0.03, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    method=st.sampled_from(["mean_risk", "risk_parity", "inverse_volatility"]),
    short=st.booleans(),
    count=st.integers(1, 6),
)
def test_allocate_with_anything_keeps_sides_and_limits(
    seed: int, method: str, short: bool, count: int
) -> None:
    rng = np.random.default_rng(seed)
    config = CONFIG.model_copy(update={"portfolio_method": method, "allow_short": short})
    names = tuple(f"S{i}" for i in range(count))
    expected = {n: float(v) for n, v in zip(names, rng.normal(0, 0.01, count), strict=True)}
    expected[names[0]] = 0.0
    result = allocate(names, rng.standard_t(4, (120, count)) * 0.01, expected, config, horizon_bars=5)
    assert sum(abs(w) for w in result.weights.values()) <= config.max_capital_share + 1e-6
    for name, weight in result.weights.items():
        assert abs(weight) <= config.max_position_share + 1e-6
        assert weight * expected[name] >= 0
        if expected[name] == 0 or (not short and expected[name] < 0):
            assert weight == 0


def test_allocate_with_mean_risk_prefers_the_better_of_two_equal_risks() -> None:
    rng = np.random.default_rng(3)
    returns = rng.normal(0, 0.02, (400, 2))
    result = allocate(("A", "B"), returns, {"A": 0.0002, "B": 0.00002}, CONFIG, risk_aversion=10.0)
    assert result.method == "mean_risk"
    assert result.weights["A"] > 3 * result.weights["B"] > 0
    assert result.expected_return == pytest.approx(
        result.weights["A"] * 0.0002 + result.weights["B"] * 0.00002
    )


def test_allocate_with_little_history_says_what_it_used_instead() -> None:
    result = allocate(("A", "B"), np.full((10, 2), 0.01), {"A": 0.01, "B": 0.01}, CONFIG)
    assert result.method == "inverse_volatility"
    assert "10 common periods" in result.note
    with pytest.raises(DataError, match="no period"):
        allocate(("A",), np.full((3, 1), np.nan), {"A": 0.1}, CONFIG)


def test_ranked_with_known_signals_orders_by_opportunity() -> None:
    def signal(name: str, expected: float, buy: float) -> Signal:
        return Signal(name, AT, 0.9 - buy, 0.1, buy, expected, 0.02, 100.0)

    signals = [signal("A", 0.01, 0.6), signal("B", 0.02, 0.8), signal("C", 0.0005, 0.8)]
    # B: (0.02 - 0.001) / 0.02 * (2 * 8/9 - 1)
    assert opportunity(signals[1], CONFIG) == pytest.approx(0.95 * (16 / 9 - 1))
    assert opportunity(signals[2], CONFIG) == 0.0
    assert [s.symbol for s, _ in ranked(signals, CONFIG)] == ["B", "A", "C"]


def test_emergency_stop_with_trigger_is_lifted_by_a_person_only() -> None:
    assert due(Account(equity=749.0, peak_equity=1000.0), CONFIG)
    assert not due(Account(equity=751.0, peak_equity=1000.0), CONFIG)
    stop = EmergencyStop().pull(TRIGGER, "drawdown 25%", AT)
    assert stop.active
    assert stop.pull("Ana", "again", AT) is stop  # the first reason stays
    for nobody in ("", "  ", TRIGGER):
        with pytest.raises(RefusedError, match="Only a person"):
            stop.lift(nobody, "because", AT)
    with pytest.raises(RefusedError, match="needs a reason"):
        stop.lift("Ana", "  ", AT)
    lifted = stop.lift("Ana", "checked", AT)
    assert not lifted.active
    assert [e.what for e in lifted.history] == ["pulled", "lifted"]
    with pytest.raises(RefusedError, match="not active"):
        lifted.lift("Ana", "checked", AT)


def test_stop_with_long_words_fits_into_the_account() -> None:
    stop = EmergencyStop().pull("x" * 200, "y" * 1000, AT)
    Account(equity=1.0, peak_equity=1.0, emergency_reason=stop.reason)


def test_update_due_with_counts_follows_the_schedule() -> None:
    config = LearningConfig()
    fresh = LearningState(parent="w.universal/1")
    assert [update_due(fresh, n, config) for n in (50, 99, 100)] == [False, False, True]
    after = fresh.model_copy(update={"updates": 1, "trades_seen": 100})
    assert [update_due(after, n, config) for n in (149, 150)] == [False, True]
    back = after.model_copy(update={"updates": 0, "trades_seen": 150, "reverts": 1})  # at the champion again
    assert [update_due(back, n, config) for n in (150, 199, 200)] == [False, False, True]
    assert learning_rate(after.model_copy(update={"updates": 3}), config) == pytest.approx(1e-4 * 0.95**3)


def test_retrain_with_a_stable_weak_model_asks_once() -> None:
    config = LearningConfig()
    rng = np.random.default_rng(0)
    state, asked = LearningState(parent="w.universal/1"), 0
    correct = rng.random(3000) < 0.53
    for i in range(0, 3000, 50):
        at = AT + timedelta(hours=i)
        verdict = retrain(correct[: i + 1], at, state, config)
        if verdict.ask:
            asked += 1
            state = state.model_copy(update={"retrain_asked_at": at, "retrain_accuracy": verdict.accuracy})
    assert 1 <= asked <= 6  # sampling noise may lower the window's accuracy a few times; 60 looks were taken
    good = retrain(np.ones(200, dtype=bool), AT, state, config)
    assert not good.ask
    few = retrain(np.zeros(99, dtype=bool), AT, LearningState(parent="x"), config)
    assert not few.ask


def test_bounded_with_far_shadow_is_drawn_back_along_the_way() -> None:
    champion = [np.array([3.0, 0.0], np.float32), np.array([4.0], np.float32)]
    shadow = [np.array([3.0, 3.0], np.float32), np.array([0.0], np.float32)]
    kept, distance = bounded(champion, shadow, 0.1)
    assert distance == pytest.approx(1.0)
    moved = np.sqrt(sum(float(np.sum((k - c) ** 2)) for k, c in zip(kept, champion, strict=True)))
    assert moved / 5.0 == pytest.approx(0.1, abs=1e-6)
    near, distance = bounded(champion, kept, 0.2)
    assert near is kept
    assert distance == pytest.approx(0.1, abs=1e-6)


def test_revert_with_worse_shadow_is_due() -> None:
    labels = np.array([0, 1, 2, 2])
    good = np.eye(3)[labels] * 0.7 + 0.1
    bad = np.full((4, 3), 1 / 3)
    config = LearningConfig()
    assert log_loss(good, labels) == pytest.approx(-np.log(0.8))
    assert revert_due(good, bad, labels, config)
    assert not revert_due(bad, good, labels, config)
    assert not revert_due(good, good, labels, config)

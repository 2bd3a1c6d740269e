"""Each rule refuses alone and is named; sizes follow the steps; limits hold whatever comes in."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from barcast.config.decisions import DecisionsConfig
from barcast.decisions import (
    Account,
    Market,
    Position,
    Signal,
    Trade,
    decide,
    side_confidence,
    threshold_table,
)
from barcast.decisions.sizing import kelly_binary, kelly_continuous
from barcast.decisions.together import decide_together

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
CONFIG = DecisionsConfig()
GOOD = Signal("AAA", AT, 0.1, 0.3, 0.6, expected_return=0.01, expected_volatility=0.02, price=100.0)
MARKET = Market(AT, 3600.0, ("AAA", "BBB"), {"AAA": 1.0}, ((1.0, 0.9), (0.9, 1.0)))
EMPTY = Account(equity=1000.0, peak_equity=1000.0)


def rules(
    signal: Signal = GOOD, account: Account = EMPTY, market: Market = MARKET, **config: object
) -> set[str]:
    advice = decide(signal, account, market, CONFIG.model_copy(update=config))
    assert (advice.side == 0) == bool(advice.refusals)
    return {r.rule for r in advice.refusals}


def closed(minutes_ago: float, net: float, symbol: str = "ZZZ") -> Trade:
    at = AT - timedelta(minutes=minutes_ago)
    return Trade(symbol=symbol, opened_at=at - timedelta(hours=5), closed_at=at, net_return=net)


def test_decide_with_nothing_against_it_acts() -> None:
    advice = decide(GOOD, EMPTY, MARKET, CONFIG)
    assert (advice.action, advice.band, advice.refusals) == ("BUY", "high", ())
    # Kelly: min(2 * 6/7 - 1, (0.01 - 0.001) / 0.0004) = 0.714..., a quarter of it, x1.5, then 20% of equity
    assert advice.sizes.kelly == pytest.approx(0.25 * (2 * 6 / 7 - 1))
    assert advice.sizes.confidence_adjusted == pytest.approx(1.5 * 0.25 * (2 * 6 / 7 - 1))
    assert advice.size == pytest.approx(0.20)
    assert advice.notes[0].startswith("position_limit")


LOSSES = tuple(closed(m, -0.01) for m in (200, 100, 50))
CASES = {
    "confidence": rules(replace(GOOD, p_sell=0.28, p_hold=0.22, p_buy=0.5)),
    "move_probability": rules(replace(GOOD, p_sell=0.01, p_hold=0.95, p_buy=0.04)),
    "edge": rules(replace(GOOD, expected_return=0.0009)),
    "no_side": rules(replace(GOOD, p_sell=0.35, p_hold=0.3, p_buy=0.35)),
    "sanity_return": rules(replace(GOOD, expected_return=0.3, expected_volatility=0.2)),
    "sanity_sigmas": rules(replace(GOOD, expected_return=0.11)),
    "sanity_sign": rules(replace(GOOD, p_sell=0.6, p_buy=0.1)),
    "outlier": rules(replace(GOOD, outlier_distance=1.01)),
    "consensus": rules(replace(GOOD, members=((1, 0.4), (-1, 0.6)))),
    "drawdown": rules(account=Account(equity=840.0, peak_equity=1000.0)),
    "emergency_stop": rules(account=EMPTY.model_copy(update={"emergency_reason": "by Ana"})),
    "trades_per_hour": rules(
        account=EMPTY.model_copy(
            update={
                "trades": tuple(Trade(symbol=f"S{i}", opened_at=AT - timedelta(minutes=i)) for i in range(4))
            }
        )
    ),
    "trades_per_symbol_hour": rules(
        account=EMPTY.model_copy(
            update={"trades": (Trade(symbol="AAA", opened_at=AT - timedelta(minutes=9)),) * 2}
        )
    ),
    "cooldown": rules(account=EMPTY.model_copy(update={"trades": LOSSES})),
    "volatility": rules(market=replace(MARKET, volatility_ratio={"AAA": 3.1})),
    "long_only": rules(replace(GOOD, p_sell=0.6, p_buy=0.1, expected_return=-0.01), allow_short=False),
    "size_too_small": rules(min_size_share=0.9),
}


@pytest.mark.parametrize("rule", CASES)
def test_decide_with_one_thing_wrong_names_that_rule(rule: str) -> None:
    extra = {"sanity_sign": {"edge"}, "no_side": {"confidence"}}
    assert rule in CASES[rule]
    assert CASES[rule] - {rule} <= extra.get(rule, set())


def test_cooldown_with_time_gone_by_or_a_profit_between_does_not_refuse() -> None:
    long_ago = tuple(closed(m, -0.01) for m in (1000, 900, 12 * 60))
    assert rules(account=EMPTY.model_copy(update={"trades": long_ago})) == set()
    mixed = (closed(200, -0.01), closed(100, 0.01), closed(50, -0.01), closed(20, -0.01))
    assert rules(account=EMPTY.model_copy(update={"trades": mixed})) == set()


def test_trade_rate_with_trades_an_hour_old_does_not_refuse() -> None:
    old = (Trade(symbol="AAA", opened_at=AT - timedelta(minutes=60)),) * 9
    assert rules(account=EMPTY.model_copy(update={"trades": old})) == set()


def test_emergency_with_deep_drawdown_is_due() -> None:
    assert "emergency_stop" in rules(account=Account(equity=700.0, peak_equity=1000.0))


def test_reducing_an_opposite_position_passes_the_guards_of_new_risk() -> None:
    short = Account(
        equity=840.0,
        peak_equity=1000.0,
        positions=(Position(symbol="AAA", quantity=-2.0, price=100.0),),
        trades=LOSSES,
    )
    assert rules(account=short) == set()
    assert "emergency_stop" in rules(account=short.model_copy(update={"emergency_reason": "x"}))


def test_reducing_under_a_guard_of_new_risk_does_not_go_beyond_what_is_held() -> None:
    short = Account(
        equity=840.0, peak_equity=1000.0, positions=(Position(symbol="AAA", quantity=-0.5, price=100.0),)
    )
    advice = decide(GOOD, short, MARKET, CONFIG)
    assert (advice.side, advice.size) == (1, pytest.approx(50 / 840))  # out of the short, not into a long
    assert advice.only_closes
    assert advice.notes[-1].startswith("drawdown: reduced to the held")
    calm = decide(GOOD, short.model_copy(update={"peak_equity": 840.0}), MARKET, CONFIG)
    assert calm.size > 0.2
    assert not calm.only_closes


def test_account_with_times_without_a_zone_is_refused() -> None:
    """They cannot be compared with bars: every answer would fail."""
    trade = {"symbol": "AAA", "opened_at": "2024-05-01T11:00:00"}
    with pytest.raises(ValidationError, match="timezone"):
        Account.model_validate({"equity": 1.0, "peak_equity": 1.0, "trades": [trade]})
    with_zone = {**trade, "opened_at": "2024-05-01T11:30:00Z"}
    assert decide(GOOD, EMPTY.model_copy(update={"trades": (Trade(**with_zone),)}), MARKET, CONFIG).side == 1


@pytest.mark.parametrize(("confidence", "size"), [(0.64, 0.0), (0.66, 0.5), (0.72, 1.0), (0.85, 1.5)])
def test_confidence_band_scales_the_size_as_documented(confidence: float, size: float) -> None:
    wide = {"max_position_share": 1.0, "max_correlated_share": 1.0, "target_volatility": 10.0}
    signal = replace(GOOD, p_buy=0.5 * confidence, p_sell=0.5 * (1 - confidence), p_hold=0.5)
    advice = decide(signal, EMPTY, MARKET, CONFIG.model_copy(update=wide))
    assert advice.size == pytest.approx(size * 0.25 * (2 * confidence - 1))


def test_correlation_limit_counts_what_moves_together() -> None:
    held = EMPTY.model_copy(update={"positions": (Position(symbol="BBB", quantity=2.5, price=100.0),)})
    advice = decide(GOOD, held, MARKET, CONFIG)
    assert advice.size == pytest.approx(0.30 - 0.25)
    assert any(n.startswith("correlation_limit") for n in advice.notes)
    apart = replace(MARKET, correlation=((1.0, 0.1), (0.1, 1.0)))
    assert decide(GOOD, held, apart, CONFIG).size == pytest.approx(0.20)
    hedge = replace(MARKET, correlation=((1.0, -0.9), (-0.9, 1.0)))
    assert decide(GOOD, held, hedge, CONFIG).size == pytest.approx(0.20)  # it offsets: more room, not less


def test_side_confidence_with_known_numbers() -> None:
    assert side_confidence(0.2, 0.6) == pytest.approx(0.75)
    assert side_confidence(0.0, 0.0) == 0.5


def test_kelly_with_known_bets() -> None:
    assert kelly_binary(0.6, 1.0) == pytest.approx(0.2)
    assert kelly_binary(0.5, 2.0) == pytest.approx(0.25)
    assert kelly_binary(0.4, 1.0) == 0.0
    assert kelly_continuous(0.01, 0.1) == pytest.approx(1.0)


@settings(max_examples=200, deadline=None)
@given(
    p=st.tuples(*[st.floats(0, 1)] * 3).filter(lambda t: sum(t) > 0.01),
    expected=st.floats(-0.5, 0.5),
    volatility=st.floats(0, 0.5),
    shares=st.tuples(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6)),
    short=st.booleans(),
)
def test_decide_with_anything_keeps_every_limit(p, expected, volatility, shares, short) -> None:  # type: ignore[no-untyped-def]
    total = sum(p)
    signal = Signal("AAA", AT, p[0] / total, p[1] / total, p[2] / total, expected, volatility, 100.0)
    positions = tuple(
        Position(symbol=s, quantity=share * 10, price=100.0)
        for s, share in zip(("AAA", "BBB"), shares, strict=True)
    )
    account = EMPTY.model_copy(update={"positions": positions})
    config = CONFIG.model_copy(update={"allow_short": short})
    advice = decide(signal, account, MARKET, config)
    assert advice.size >= 0
    assert advice == decide(signal, account, MARKET, config)
    if advice.side == 0:
        assert advice.size == 0
        assert advice.refusals
        return
    before, after = shares[0], shares[0] + advice.side * advice.size
    assert abs(after) <= max(abs(before), config.max_position_share) + 1e-9
    assert abs(after) + abs(shares[1]) <= max(abs(before) + abs(shares[1]), config.max_capital_share) + 1e-9
    group = after + shares[1]
    reduces = abs(after) < abs(before)
    assert reduces or advice.side * group <= config.max_correlated_share + 1e-9
    if not short:
        assert after >= min(before, 0.0) - 1e-9


def test_together_with_contradicting_correlated_signals_keeps_the_stronger() -> None:
    weak = replace(GOOD, symbol="BBB", p_sell=0.5, p_buy=0.2, p_hold=0.3, expected_return=-0.005)
    advice = decide_together([GOOD, weak], EMPTY, MARKET, CONFIG)
    assert advice["AAA"].action == "BUY"
    assert advice["BBB"].action == "HOLD"
    (refusal,) = advice["BBB"].refusals
    assert refusal.rule == "conflict"
    assert "Contradicts AAA (correlation +0.90)" in refusal.message


def test_together_with_hundreds_of_signals_is_quick() -> None:
    names = tuple(f"S{i:03}" for i in range(500))
    apart = tuple(tuple(float(i == j) for j in range(500)) for i in range(500))
    signals = [replace(GOOD, symbol=name) for name in names]
    market = Market(AT, 3600.0, names, {}, apart)
    began = time.perf_counter()
    decide_together(signals, EMPTY, market, CONFIG)
    assert time.perf_counter() - began < 1.5  # looking each pair up by its names took twice that


def test_account_holds_as_many_positions_as_symbols_can_be_asked_for() -> None:
    held = tuple(Position(symbol=f"S{i}", quantity=1.0, price=1.0) for i in range(5000))
    assert len(Account(equity=1e6, peak_equity=1e6, positions=held).positions) == 5000


def test_together_with_many_signals_shares_limits_in_order_of_opportunity() -> None:
    names = [f"S{i}" for i in range(8)]
    signals = [replace(GOOD, symbol=n, expected_return=0.01 + 0.001 * i) for i, n in enumerate(names)]
    advice = decide_together(signals, EMPTY, Market(AT, 3600.0), CONFIG)
    acted = [n for n in names if advice[n].side]
    assert acted == ["S4", "S5", "S6", "S7"]  # four trades an hour, the best first
    assert {r.rule for n in names[:4] for r in advice[n].refusals} >= {"trades_per_hour"}
    assert sum(advice[n].size for n in names) <= CONFIG.max_capital_share + 1e-9


def test_together_with_portfolio_weights_is_capped_by_them() -> None:
    advice = decide_together([GOOD], EMPTY, MARKET, CONFIG, {"AAA": 0.03})
    assert advice["AAA"].size == pytest.approx(0.03)
    assert decide_together([GOOD], EMPTY, MARKET, CONFIG, {})["AAA"].action == "HOLD"


def test_threshold_table_with_hand_counted_rows() -> None:
    frame = pl.DataFrame(
        {
            "p_sell": [0.1, 0.6, 0.4, 0.0],
            "p_buy": [0.4, 0.2, 0.4, 0.02],
            "forward_log_return": [0.01, 0.02, 0.5, 0.01],
        }
    )
    table = threshold_table(frame, cost_bps=10, min_move_probability=0.1, thresholds=(0.5, 0.76, 0.9))
    # rows 1 and 2 act at 0.5 (0.8 right: +100 bps, 0.75 wrong: -200), row 1 alone at 0.76, none at 0.9
    assert table["acted_rows"].to_list() == [2, 1, 0]
    assert table["acted_share"].to_list() == [0.5, 0.25, 0.0]
    assert table["accuracy"].to_list() == [0.5, 1.0, None]
    assert table["net_bps"].to_list() == pytest.approx([-60.0, 90.0, None])

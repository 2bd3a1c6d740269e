"""The gate: every outcome, in words, with models that really differ."""

from __future__ import annotations

from datetime import timedelta

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError, RefusedError
from barcast.evaluation import alarms, frames, gate
from barcast.evaluation.gate_facts import Facts

POLICY = GateConfig(block_days=2, bootstrap_samples=5000, max_calibration_error=0.2)
COSTS = CostsConfig(fee_bps=14, spread_bps=0, slippage_bps=0)
SERVED = gate.Check("infrastructure", True, "loaded and answered 8 recorded requests")


@pytest.fixture(scope="module")
def labels() -> pl.DataFrame:
    return worlds.labelled(worlds.bars(4, 2400, seed=1))


def decide(candidate, incumbent, policy=POLICY, history=None, checks=(SERVED,), **more):
    return gate.decide(
        candidate, incumbent, policy, history, costs=COSTS, horizon_bars=4, checks=checks, **more
    )


def test_gate_with_better_candidate_promotes(labels):
    verdict = decide(worlds.predictions(labels, skill=0.12, seed=1), worlds.predictions(labels, seed=2))
    assert verdict.outcome == "promote", verdict.reasons
    assert "is better than incumbent" in verdict.reasons[0]
    assert verdict.numbers["log_loss_gain"] > 0
    assert verdict.numbers["log_loss_gain_low"] > 0
    assert verdict.spent == pytest.approx(POLICY.false_promotions_per_year / 52)
    assert verdict.decided


def test_gate_with_worse_candidate_keeps(labels):
    verdict = decide(worlds.predictions(labels, seed=2), worlds.predictions(labels, skill=0.12, seed=1))
    assert verdict.outcome == "keep"
    assert "is worse than incumbent" in verdict.reasons[0]


def test_gate_with_equal_skill_keeps_undecided_and_says_how_long(labels):
    found = [
        decide(worlds.predictions(labels, seed=s), worlds.predictions(labels, seed=s + 50)) for s in range(4)
    ]
    assert all(v.outcome == "keep" for v in found)
    undecided = [v for v in found if not v.decided]
    assert undecided
    days = [v.days_to_decide for v in undecided if v.days_to_decide is not None]
    assert days
    assert all(d > 0 for d in days)


def test_gate_with_same_answers_is_a_tie(labels):
    rows = worlds.predictions(labels, skill=0.1)
    verdict = decide(rows, rows)
    assert verdict.outcome == "keep"
    assert "a tie" in verdict.reasons[0]
    assert verdict.spent == 0


def test_gate_with_no_incumbent_promotes_when_all_checks_pass(labels):
    rows = worlds.predictions(labels, skill=0.05)
    assert decide(rows, None).outcome == "promote"
    held = decide(rows, None, checks=())
    assert held.outcome == "hold"
    assert any("infrastructure" in r for r in held.reasons)


def test_gate_with_nan_candidate_keeps_and_names_the_column(labels):
    rows = worlds.predictions(labels).with_columns(pl.lit(float("nan")).alias("p_buy"))
    verdict = decide(rows, worlds.predictions(labels, seed=3))
    assert verdict.outcome == "keep"
    assert "p_buy" in verdict.reasons[0]


def test_gate_with_nan_incumbent_raises(labels):
    rows = worlds.predictions(labels).with_columns(pl.lit(float("nan")).alias("p_buy"))
    with pytest.raises(DataError, match="NaN"):
        decide(worlds.predictions(labels, seed=3), rows)


def test_gate_with_one_trade_says_returns_mean_nothing(labels):
    """One lucky trade cannot promote."""
    hold = worlds.predictions(labels).with_columns(p_sell=pl.lit(0.0), p_hold=pl.lit(1.0), p_buy=pl.lit(0.0))
    hold = hold.with_columns(pl.col("label").mul(0).add(1).cast(pl.Int8).alias("label"))
    best = int(np.argmax(hold["forward_log_return"].to_numpy()))
    first = pl.int_range(hold.height) == best
    lucky = hold.with_columns(
        pl.when(first).then(0.0).otherwise(1.0).alias("p_hold"),
        pl.when(first).then(1.0).otherwise(0.0).alias("p_buy"),
    )
    verdict = decide(lucky, hold)
    assert verdict.outcome == "keep"
    assert any("Only 1 rows were acted on" in r for r in verdict.reasons)


def test_gate_with_different_windows_refuses(labels):
    with pytest.raises(RefusedError, match="not scored on the same rows"):
        decide(worlds.predictions(labels), worlds.predictions(labels.head(3000)))


def test_gate_with_different_labels_refuses(labels):
    other = worlds.predictions(labels).with_columns(pl.col("forward_log_return") * 2)
    with pytest.raises(RefusedError, match="not scored on the same rows"):
        decide(worlds.predictions(labels), other)


def test_gate_with_few_days_decides_nothing_and_says_when(labels):
    short = labels.filter(pl.col("event_timestamp") < worlds.START + timedelta(days=10))
    verdict = decide(worlds.predictions(short, skill=0.15), worlds.predictions(short, seed=9))
    assert verdict.outcome == "keep"
    assert not verdict.decided
    assert verdict.days_to_decide == pytest.approx((12 - verdict.numbers["blocks"]) * 2)


def test_gate_judges_only_rows_that_neither_model_saw(labels):
    seen = worlds.START + timedelta(days=50)
    candidate = gate.Scored("new", worlds.predictions(labels, skill=0.1), seen_until=seen)
    incumbent = gate.Scored("old", worlds.predictions(labels, seed=4), seen_until=seen - timedelta(days=20))
    verdict = decide(candidate, incumbent)
    assert verdict.numbers["rows"] == labels.filter(pl.col("event_timestamp") > seen).height
    with pytest.raises(RefusedError, match="Every row of the window had been seen"):
        decide(gate.Scored("new", candidate.rows, seen_until=worlds.START + timedelta(days=500)), incumbent)


@pytest.mark.parametrize("skill", [0.45, 0.6, 0.9])
def test_gate_with_leaked_outcome_holds_for_a_person(labels, skill):
    verdict = decide(
        worlds.predictions(labels, skill=skill, sharpness=1.0), worlds.predictions(labels, seed=2)
    )
    assert verdict.outcome == "hold", verdict.reasons
    assert any(c.name.startswith("leak") and c.passed is False for c in verdict.checks)


def test_gate_with_bad_calibration_keeps(labels):
    sure = worlds.predictions(labels, skill=0.12, seed=1).with_columns(pl.lit(0.99).alias("confidence"))
    verdict = decide(sure, worlds.predictions(labels, seed=2))
    assert verdict.outcome == "keep"
    assert any("calibration" in r for r in verdict.reasons)


def test_gate_with_gain_within_seed_noise_keeps(labels):
    rows = worlds.predictions(labels, skill=0.12, seed=1)
    noisy = gate.Scored("candidate", rows, seed_noise={"log_loss": 1.0, "net_return": 1.0})
    verdict = decide(noisy, worlds.predictions(labels, seed=2))
    assert verdict.outcome == "keep"
    assert any(c.name.startswith("seed noise") and c.passed is False for c in verdict.checks)


def test_seed_noise_of_equal_models_is_their_spread(labels):
    noise = gate.seed_noise([worlds.predictions(labels, seed=s) for s in range(3)], COSTS, horizon_bars=4)
    assert 0 < noise["log_loss"] < 0.05
    with pytest.raises(DataError):
        gate.seed_noise([worlds.predictions(labels)], COSTS, horizon_bars=4)


def test_gate_says_where_seed_noise_is_not_known(labels):
    rows, rival = worlds.predictions(labels, skill=0.12, seed=1), worlds.predictions(labels, seed=2)
    verdict = decide(rows, rival)
    assert verdict.outcome == "promote"
    unknown = [c for c in verdict.checks if c.name.startswith("seed noise")]
    assert unknown
    assert all(c.passed is None for c in unknown)


def test_gate_with_harmed_symbol_holds(labels):
    """Better over all, surely worse for one symbol."""
    good = worlds.predictions(labels, skill=0.16, seed=1)
    bad = worlds.predictions(labels, skill=-0.2, seed=1)
    is_s0 = pl.col("symbol") == "S0"
    mixed = pl.concat([good.filter(~is_s0), bad.filter(is_s0)])
    verdict = decide(mixed, worlds.predictions(labels, seed=2))
    harm = next(c for c in verdict.checks if c.name == "no harm to a slice")
    assert harm.passed is False
    assert "symbol=S0" in harm.detail
    assert verdict.outcome == "hold"
    assert "Yet it is not promoted" in verdict.reasons[0]


def test_gate_with_failed_blessing_or_infrastructure_holds(labels):
    pair = worlds.predictions(labels, skill=0.12, seed=1), worlds.predictions(labels, seed=2)
    for name in ("blessing", "infrastructure"):
        checks = (
            [SERVED, gate.Check(name, False, "it failed")]
            if name == "blessing"
            else [gate.Check(name, False, "no")]
        )
        verdict = decide(*pair, checks=checks)
        assert verdict.outcome == "hold"
        assert any(name in r for r in verdict.reasons)
    ignored = decide(
        *pair,
        policy=POLICY.model_copy(update={"require_blessing": False}),
        checks=[SERVED, gate.Check("blessing", False, "it failed")],
    )
    assert ignored.outcome == "promote"


def test_gate_spends_a_yearly_budget(labels):
    rows, rival = worlds.predictions(labels, skill=0.12, seed=1), worlds.predictions(labels, seed=2)
    now = worlds.START + timedelta(days=400)
    spent = [gate.Attempt(now - timedelta(days=d), 0.025, "keep") for d in (10, 20)]
    verdict = decide(rows, rival, history=gate.History(spent), as_of=now)
    assert verdict.outcome == "keep"
    assert verdict.numbers["alpha"] == 0
    old = [gate.Attempt(now - timedelta(days=366), 0.05, "keep")]
    assert decide(rows, rival, history=gate.History(old), as_of=now).outcome == "promote"


def test_gate_counts_trials_and_attempts_in_the_deflated_sharpe(labels):
    rows, rival = worlds.predictions(labels, skill=0.12, seed=1), worlds.predictions(labels, seed=2)
    few = decide(rows, rival).numbers
    many = decide(
        rows, rival, history=gate.History([gate.Attempt(worlds.START, 0.0, "keep")] * 3, num_trials=200)
    ).numbers
    assert many["trials_counted"] == 203
    assert many["deflated_sharpe"] < few["deflated_sharpe"] <= few["probabilistic_sharpe"] + 1e-12


def test_verdict_is_json_ready(labels):
    import json

    verdict = decide(worlds.predictions(labels), worlds.predictions(labels, seed=4))
    assert json.loads(json.dumps(verdict.to_dict()))["outcome"] == verdict.outcome
    assert verdict.attempt(worlds.START).spent == verdict.spent


def test_earlier_candidates_that_never_traded_do_not_bar_the_next_one(labels):
    never = worlds.predictions(labels, seed=3).with_columns(
        pl.lit(0.1).alias("p_sell"), pl.lit(0.8).alias("p_hold"), pl.lit(0.1).alias("p_buy")
    )
    rival = worlds.predictions(labels, seed=2)
    past = [decide(never, rival).attempt(worlds.START)] * 5
    assert past[0].sharpe_per_block is None
    honest = [gate.Attempt(worlds.START, 0.0, "keep", s) for s in (-0.1, 0.0, 0.1, 0.05, -0.05)]
    verdict = decide(
        worlds.predictions(labels, skill=0.12, seed=1), rival, history=gate.History([*past, *honest])
    )
    assert verdict.numbers["deflated_sharpe_of_gain"] > 0.5


def test_honest_confidence_on_few_rows_is_not_called_badly_calibrated():
    """Each label is drawn with the stated chance: what the calibration error shows is luck alone."""
    rows, blamed = worlds.labelled(worlds.bars(1, 300, step=timedelta(days=1), seed=2)), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        frame = worlds.predictions(rows, seed=seed)
        p = frame.select("p_sell", "p_hold", "p_buy").to_numpy()
        drawn = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        frame = frame.with_columns(pl.Series("label", drawn, dtype=pl.Int8))
        verdict = decide(frame, None, policy=GateConfig())
        blamed += any(c.name == "calibration" and c.passed is False for c in verdict.checks)
        sure = frame.with_columns(pl.lit(0.99).alias("confidence"))
        assert any("calibration" in r for r in decide(sure, None, policy=GateConfig()).reasons)
    assert blamed <= 1


def test_harm_to_one_symbol_of_many_is_seen():
    """Among 140 slices each has so small a share of the level that 5,000 resamples could never reach it."""
    rows = worlds.labelled(worlds.bars(140, 260, step=timedelta(days=1), seed=3))
    rival = worlds.predictions(rows, seed=1)
    better = worlds.predictions(rows, skill=0.3, seed=2)
    opposite = {"p_sell": pl.col("p_buy"), "p_buy": pl.col("p_sell")}
    wrong = worlds.predictions(rows, skill=0.95, seed=2, sharpness=3.0).with_columns(**opposite)
    candidate = frames.check(
        pl.concat([better.filter(pl.col("symbol") != "S7"), wrong.filter(pl.col("symbol") == "S7")])
    )
    facts = Facts.of(candidate, frames.check(rival), POLICY, COSTS, 4)
    (found,) = alarms.slices(candidate, facts, POLICY)
    assert found.passed is False
    assert "symbol=S7 is worse in log loss" in found.detail
    assert found.detail.count("symbol=") <= 2


def a_year_of_days(seed: int, persistence: int, tail: float) -> pl.DataFrame:
    """250 daily rows, labels over five days, a model that knows nothing and rarely changes its mind."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.01, 255))
    forward = walk[5:] - walk[:250]
    low, high = np.quantile(forward, [tail, 1 - tail])
    lean = 0.1 * np.convolve(rng.normal(size=249 + persistence), np.ones(persistence), mode="valid")
    odds = np.exp(np.stack([-lean, np.zeros(250), lean], axis=1))
    odds /= odds.sum(axis=1, keepdims=True)
    closes = pl.Series([worlds.START + timedelta(days=k) for k in range(250)]).cast(frames.TIME)
    found = pl.DataFrame(
        {
            "symbol": "S0",
            "event_timestamp": closes,
            "label_end_timestamp": closes + timedelta(days=6),
            "label": np.where(forward > high, 2, np.where(forward < low, 0, 1)),
            "forward_log_return": forward,
            **{name: odds[:, k] for k, name in enumerate(frames.PROBABILITIES)},
        }
    )
    return frames.check(found)


@pytest.mark.parametrize(
    ("name", "persistence", "tail"),
    [
        ("leak alarm, rank correlation", 20, 1 / 3),
        # two rows a class: both right by luck makes a mean recall beyond 60%
        ("leak alarm, balanced accuracy", 5, 0.01),
    ],
)
def test_a_leak_alarm_that_chance_explains_is_none(name, persistence, tail):
    over, raised = 0, 0
    for seed in range(150):
        rows = a_year_of_days(seed, persistence, tail)
        facts = Facts.of(rows, None, GateConfig(), CostsConfig(), 5)
        (check,) = (c for c in alarms.check(rows, facts, GateConfig()) if c.name == name)
        number, limit = (float(words.split()[-1].rstrip("%")) for words in check.detail.split(", limit"))
        over += number > limit
        raised += not check.passed
    assert over >= 5
    assert raised <= 2


def test_a_leak_in_too_few_blocks_to_tell_chance_is_an_alarm_still(labels):
    rows = worlds.predictions(labels, skill=0.9, sharpness=2.0).filter(
        pl.col("event_timestamp") < labels["event_timestamp"].min() + timedelta(days=3)
    )
    facts = Facts.of(frames.check(rows), None, POLICY, COSTS, 4)
    assert facts.blocks < 5
    found = {c.name: c.passed for c in alarms.check(frames.check(rows), facts, POLICY)}
    assert found["leak alarm, rank correlation"] is False

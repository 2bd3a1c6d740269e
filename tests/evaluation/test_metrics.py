"""Metrics against hand-made answers and the libraries themselves; undefined cases against their documented
values.
"""

from __future__ import annotations

import math

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config.evaluation import CostsConfig
from barcast.evaluation import (
    capacity,
    confidence,
    frames,
    metrics_financial,
    metrics_learning,
    metrics_ml,
    sharpe,
)

RNG = np.random.default_rng(0)


def test_ml_metrics_of_a_hand_made_case():
    labels = np.array([0, 0, 1, 2])
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    m = metrics_ml.metrics(labels, p, forward_return=np.array([-0.01, -0.02, 0.0, 0.03]))
    assert m["accuracy"] == 0.75
    assert m["majority_accuracy"] == 0.5
    assert m["recall_sell"] == 0.5
    assert m["precision_sell"] == 1.0
    assert m["precision_hold"] == 0.5
    assert m["f1_buy"] == 1.0
    assert m["balanced_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert m["log_loss"] == pytest.approx(-(math.log(0.8) * 3 + math.log(0.2)) / 4)
    brier = (3 * (0.04 + 0.01 + 0.01) + (0.64 + 0.25 + 0.09)) / 4
    assert m["brier"] == pytest.approx(brier)
    # three rows stated 0.8 and right, one stated 0.5 and wrong
    assert m["ece"] == pytest.approx(0.75 * 0.2 + 0.25 * 0.5)
    assert m["hit_rate"] == 1.0
    assert m["acted_share"] == 0.5
    prior = -(0.5 * math.log(0.5) + 0.5 * math.log(0.25))
    assert m["log_loss_prior"] == pytest.approx(prior)
    assert metrics_ml.confusion(labels, p).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_ml_metrics_equal_scikit_learn():
    from sklearn import metrics as sk

    labels = RNG.integers(0, 3, 500)
    p = RNG.dirichlet([1, 1, 1], 500)
    m = metrics_ml.metrics(labels, p)
    said = p.argmax(axis=1)
    assert m["log_loss"] == pytest.approx(sk.log_loss(labels, p))
    assert m["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, said))
    assert m["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, said))
    assert m["f1_macro"] == pytest.approx(sk.f1_score(labels, said, average="macro"))
    assert m["auc_roc_macro"] == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"))
    assert m["brier"] == pytest.approx(sum(sk.brier_score_loss(labels == k, p[:, k]) for k in range(3)))


def test_ml_metrics_with_one_class_have_documented_values():
    p = np.tile([0.1, 0.8, 0.1], (10, 1))
    m = metrics_ml.metrics(np.ones(10, dtype=int), p, forward_return=np.zeros(10))
    assert m["accuracy"] == 1.0
    assert m["mcc"] == 0.0
    assert m["cohen_kappa"] == 0.0
    assert math.isnan(m["auc_roc_macro"])
    assert math.isnan(m["hit_rate"])
    assert m["rank_ic"] == 0.0
    assert m["skill"] == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_ml_metrics_stay_in_their_ranges(seed, n):
    rng = np.random.default_rng(seed)
    m = metrics_ml.metrics(
        rng.integers(0, 3, n), rng.dirichlet([0.5] * 3, n), forward_return=rng.normal(size=n)
    )
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro", "ece", "acted_share"):
        assert 0 <= m[name] <= 1
    assert -1 <= m["mcc"] <= 1
    assert 0 <= m["brier"] <= 2
    assert m["log_loss"] >= 0


def test_financial_metrics_of_a_hand_made_case():
    r = np.array([0.10, -0.05, 0.02, 0.00])
    m = metrics_financial.metrics(r, bars_per_year=4, benchmark_returns=np.array([0.01, 0.01, 0.01, 0.01]))
    total = 1.10 * 0.95 * 1.02 - 1
    assert m["total_return"] == pytest.approx(total)
    assert m["annual_return"] == pytest.approx(total)
    assert m["max_drawdown"] == pytest.approx(-0.05)
    assert m["calmar"] == pytest.approx(total / 0.05)
    assert m["sharpe"] == pytest.approx(r.mean() / r.std(ddof=1) * 2)
    assert m["sortino"] == pytest.approx(r.mean() * 4 / (math.sqrt(0.0025 / 4) * 2))
    assert m["annual_volatility"] == pytest.approx(r.std(ddof=1) * 2)
    assert m["excess_annual_return"] == pytest.approx(total - (1.01**4 - 1))
    active = r - 0.01
    assert m["information_ratio"] == pytest.approx(active.mean() / active.std(ddof=1) * 2)
    assert m["value_at_risk"] == pytest.approx(np.percentile(r, 5))
    assert m["expected_shortfall"] == pytest.approx(-0.05)
    assert m["positive_bars"] == pytest.approx(2 / 3)


def test_financial_metrics_equal_empyrical_and_scipy():
    import empyrical as ep
    from scipy import stats

    r = RNG.normal(5e-4, 0.01, 600)
    m = metrics_financial.metrics(r, bars_per_year=252)
    assert m["annual_return"] == pytest.approx(ep.annual_return(r))
    assert m["calmar"] == pytest.approx(ep.calmar_ratio(r))
    assert m["sharpe"] == pytest.approx(ep.sharpe_ratio(r))
    assert m["sortino"] == pytest.approx(ep.sortino_ratio(r))
    assert m["stability"] == pytest.approx(ep.stability_of_timeseries(r))
    assert m["skewness"] == pytest.approx(stats.skew(r))
    assert m["kurtosis"] == pytest.approx(stats.kurtosis(r))


def test_trade_metrics_of_a_hand_made_case():
    trades = pl.DataFrame({"net_return": [0.02, -0.01, 0.03, -0.02], "duration_bars": [1, 2, 3, 4]})
    m = metrics_financial.metrics(np.array([0.01, 0.0]), bars_per_year=252, trades=trades)
    assert m["trades"] == 4
    assert m["win_rate"] == 0.5
    assert m["profit_factor"] == pytest.approx(0.05 / 0.03)
    assert m["average_win"] == pytest.approx(0.025)
    assert m["average_loss"] == pytest.approx(-0.015)
    assert m["payoff_ratio"] == pytest.approx(0.025 / 0.015)
    assert m["average_trade_bps"] == pytest.approx(50)
    assert m["trade_duration_bars"] == 2.5


@pytest.mark.parametrize("returns", [[], [0.0], [0.0] * 50, [0.001] * 50, [-1.0, 0.0, 0.0]])
def test_financial_metrics_with_undefined_cases_never_crash(returns):
    no_trades = pl.DataFrame(schema={"net_return": pl.Float64, "duration_bars": pl.Int64})
    m = metrics_financial.metrics(
        np.array(returns), bars_per_year=252, benchmark_returns=np.array(returns), trades=no_trades
    )
    if len(set(returns)) < 2:
        assert math.isnan(m["sharpe"])
        assert math.isnan(m["calmar"])
    assert m["trades"] == 0
    assert math.isnan(m["win_rate"])
    if -1.0 in returns:
        assert m["annual_return"] == -1.0
        assert m["total_return"] == -1.0


def test_profit_factor_without_losses_is_infinite():
    trades = pl.DataFrame({"net_return": [0.02], "duration_bars": [1]})
    assert (
        metrics_financial.metrics(np.array([0.01]), bars_per_year=252, trades=trades)["profit_factor"]
        == math.inf
    )


def test_deflated_sharpe_equals_the_published_example():
    """Bailey and Lopez de Prado (2014), section "a numerical example": 5 years of daily returns, annual
    Sharpe 2.5, skewness -3, kurtosis 10, 100 trials of variance 1/2 (annual) give an expected maximum of
    0.1132 a day and a deflated Sharpe of about 0.9004."""
    benchmark = sharpe.expected_max_sharpe(100, 0.5 / 250)
    assert benchmark == pytest.approx(0.1132, abs=2e-4)
    from scipy import stats

    ratio, skew, kurtosis, n = 2.5 / math.sqrt(250), -3.0, 10.0, 1250
    z = (ratio - benchmark) * math.sqrt(n - 1) / math.sqrt(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2)
    assert stats.norm.cdf(z) == pytest.approx(0.9004, abs=2e-3)


def test_probabilistic_sharpe_falls_with_trials_and_rises_with_length():
    r = RNG.normal(0.1, 1, 400)
    few, many = (sharpe.deflated_sharpe(r, num_trials=n) for n in (1, 500))
    assert many < few
    assert sharpe.probabilistic_sharpe(np.tile(r, 4)) > sharpe.probabilistic_sharpe(r)
    assert math.isnan(sharpe.probabilistic_sharpe(np.zeros(20)))


def test_learning_metrics_see_skill_that_fades_and_regimes_that_differ():
    labels = worlds.labelled(worlds.bars(2, 2000, seed=4))
    middle = labels["event_timestamp"].median()
    early, late = (
        labels.filter(pl.col("event_timestamp") < middle),
        labels.filter(pl.col("event_timestamp") >= middle),
    )
    rows = pl.concat([worlds.predictions(early, skill=0.8), worlds.predictions(late, skill=0.0)]).sort(
        "symbol", "event_timestamp"
    )
    table = metrics_learning.by_period(rows, CostsConfig(), horizon_bars=4, num_periods=4)
    assert table.height == 4
    assert table["rows"].sum() == rows.height
    assert table["accuracy"][0] > table["accuracy"][3] + 0.1
    m = metrics_learning.metrics(rows, CostsConfig(), horizon_bars=4)
    assert m["accuracy_trend"] < 0 < m["log_loss_trend"]
    assert m["profit_weighted_accuracy"] > float(table["accuracy"].mean())
    assert metrics_learning.by_regime(rows, CostsConfig(), horizon_bars=4).height == 6


def test_reaction_counts_bars_until_accuracy_is_back():
    """Wrong for 7 bars after each change of regime, right otherwise."""
    n = 120
    regime = np.array(["bull"] * 60 + ["bear"] * 60)
    right = np.ones(n, dtype=bool)
    right[60:67] = False
    base = worlds.labelled(worlds.bars(1, n + 30, seed=1)).head(n)
    p = np.where(right[:, None], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1])
    rows = worlds.predictions(base).with_columns(
        pl.Series("p_sell", p[:, 0]), pl.Series("p_hold", p[:, 1]), pl.Series("p_buy", p[:, 2]),
        pl.lit(2, dtype=pl.Int8).alias("label"), pl.Series("regime", regime),
    )  # fmt: skip
    m = metrics_learning.metrics(rows, CostsConfig(), horizon_bars=4)
    # usual accuracy 113/120: ten rows in a row must be right, so 7 + 10 bars
    assert m["reaction_bars"] == 17


def test_confidence_of_hold_only_shows_in_its_own_band():
    labels = worlds.labelled(worlds.bars(2, 600, seed=2))
    rows = worlds.predictions(labels, sharpness=0.2)
    hold = pl.col("label") == 1
    rows = rows.with_columns(
        pl.when(hold).then(0.05).otherwise(pl.col("p_sell")).alias("p_sell"),
        pl.when(hold).then(0.9).otherwise(pl.col("p_hold")).alias("p_hold"),
        pl.when(hold).then(0.05).otherwise(pl.col("p_buy")).alias("p_buy"),
    ).with_columns(pl.max_horizontal("p_sell", "p_hold", "p_buy").alias("confidence"))
    table = confidence.bands(rows, CostsConfig())
    assert table["rows"].sum() == rows.height
    top = table.filter(pl.col("low") >= 0.85)
    assert top["answer"].to_list() == ["HOLD"]
    assert top["accuracy"].to_list() == [1.0]
    assert table.filter(pl.col("answer") == "BUY/SELL")["high"].max() <= 0.7
    levels = confidence.thresholds(rows, CostsConfig(), horizon_bars=4)
    assert levels["acted_share"].is_sorted(descending=True)
    curve = confidence.coverage(rows).filter(pl.col("answer") == "all")
    assert curve["accuracy"][0] == 1.0
    assert curve["coverage"][-1] == 1.0
    assert curve["accuracy"][-1] == pytest.approx(
        float(
            np.mean(
                np.argmax(rows.select("p_sell", "p_hold", "p_buy").to_numpy(), axis=1)
                == rows["label"].to_numpy()
            )
        )
    )


def test_break_even_cost_brings_the_mean_row_to_zero():
    from barcast.evaluation import backtest

    labels = worlds.labelled(worlds.bars(2, 800, seed=3))
    rows = worlds.predictions(labels, skill=0.3).sort("symbol", "event_timestamp")
    costs = CostsConfig(borrow_bps_per_year=30)
    even = capacity.break_even_bps(rows, costs, horizon_bars=4)
    assert even > 5
    net = backtest.row_net_returns(rows, capacity.at_cost(costs, even), horizon_bars=4)
    assert net.sum() == pytest.approx(0, abs=1e-9)
    hold = rows.with_columns(p_sell=pl.lit(0.0), p_hold=pl.lit(1.0), p_buy=pl.lit(0.0))
    assert math.isnan(capacity.break_even_bps(hold, costs, horizon_bars=4))


def test_capacity_scales_with_traded_value_and_dies_without_an_edge():
    bars = worlds.bars(2, 800, seed=3)
    rows = worlds.predictions(worlds.labelled(bars), skill=0.3)
    costs = CostsConfig()
    one = capacity.by_symbol(bars, rows, costs, horizon_bars=4)
    ten = capacity.by_symbol(bars.with_columns(pl.col("volume") * 10), rows, costs, horizon_bars=4)
    np.testing.assert_allclose(ten["capital_cap"], one["capital_cap"] * 10)
    np.testing.assert_allclose(ten["capital_break_even"], one["capital_break_even"] * 10)
    poor = capacity.by_symbol(bars, rows, CostsConfig(fee_bps=500), horizon_bars=4)
    assert poor["capital_break_even"].to_list() == [0.0, 0.0]
    curve = capacity.cost_curve(bars, rows, costs, [0, 5, 20], horizon_bars=4, bars_per_year=8766)
    assert curve["total_return"].is_sorted(descending=True)


def test_where_sell_only_closes_a_long_no_short_is_counted():
    rows = frames.check(worlds.predictions(worlds.labelled(worlds.bars(2, 400, seed=3)), skill=0.3))
    buys = frames.actions(rows) == frames.BUY
    gross = np.expm1(rows["forward_log_return"].to_numpy()) * buys * 1e4
    costs = CostsConfig(side="exit_only")
    lowest = confidence.thresholds(rows, costs, horizon_bars=4).row(0, named=True)
    acted = lowest["acted_share"] * rows.height
    assert lowest["gross_bps"] == pytest.approx(gross.sum() / acted)
    assert lowest["net_bps"] == pytest.approx((gross - buys * 2e4 * costs.one_way).sum() / acted)


def test_capacity_of_a_model_that_takes_a_tenth_is_ten_times_as_large():
    bars = worlds.bars(2, 800, seed=3)
    rows = worlds.predictions(worlds.labelled(bars), skill=0.3)
    whole = capacity.by_symbol(bars, rows, CostsConfig(sizing="model"), horizon_bars=4)
    tenth = rows.with_columns(pl.lit(0.1).alias("position_size"))
    small = capacity.by_symbol(bars, tenth, CostsConfig(sizing="model"), horizon_bars=4)
    np.testing.assert_allclose(small["capital_cap"], whole["capital_cap"] * 10)
    np.testing.assert_allclose(small["capital_break_even"], whole["capital_break_even"] * 10)


def test_each_row_has_its_part_of_the_calibration_error():
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.3, 1.0, 500), rng.random(500) < 0.6
    parts = metrics_ml.calibration_parts(confidence, right)
    assert parts.mean() == pytest.approx(metrics_ml.expected_calibration_error(confidence, right))


def test_capacity_by_horizon_pays_what_the_bars_paid_until_then():
    bars = worlds.bars(2, 800, seed=3)
    labels = worlds.labelled(bars)
    rows = worlds.predictions(labels, skill=0.3)
    same = capacity.held_for(bars, rows, 4)
    np.testing.assert_allclose(same["forward_log_return"], rows["forward_log_return"], atol=1e-12)
    assert same["label_end_timestamp"].to_list() == rows["label_end_timestamp"].to_list()
    # by hand: the first row of a symbol, held for two bars from the next open
    first = rows.filter(pl.col("symbol") == "S1").row(0, named=True)
    of = bars.filter(pl.col("symbol") == "S1").sort("event_timestamp")
    at = of["event_timestamp"].to_list().index(first["event_timestamp"])
    two = capacity.held_for(bars, rows, 2).filter(pl.col("symbol") == "S1").row(0, named=True)
    assert two["forward_log_return"] == pytest.approx(math.log(of["open"][at + 3] / of["open"][at + 1]))
    assert two["label_end_timestamp"] == of["event_timestamp"][at + 3]
    table = capacity.by_symbol(bars, rows, CostsConfig(), horizon_bars=4, multiples=(0.5, 1.0, 2.0))
    assert table.select("symbol", "horizon_bars").rows() == [(s, h) for s in ("S0", "S1") for h in (2, 4, 8)]
    alone = capacity.by_symbol(bars, rows, CostsConfig(), horizon_bars=4)
    assert table.filter(pl.col("horizon_bars") == 4).equals(alone)


def test_operational_metrics_of_hand_made_cases(tmp_path):
    import time

    from barcast.evaluation import metrics_operational as ops

    m = ops.convergence([2.0, 1.5, 1.005, 1.0, 1.2], seconds=10)
    assert (m["epochs"], m["best_epoch"], m["epochs_to_99"], m["best_loss"]) == (5, 4, 3, 1.0)
    assert m["seconds_per_epoch"] == 2
    assert ops.convergence([1.0, 1.1])["epochs_to_99"] == 1
    assert math.isnan(ops.convergence([])["best_epoch"])
    assert ops.convergence([float("nan"), 1.0])["best_epoch"] == 2
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    assert ops.folder_bytes(tmp_path) == 5
    assert ops.latency_ms(lambda: time.sleep(0.002), repeats=5, warm_up=1)["p50"] >= 2
    assert ops.peak_memory_bytes() > 10_000_000

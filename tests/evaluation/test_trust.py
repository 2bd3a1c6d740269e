"""Reliability index, model card, explanations, bootstrap; purged cross-validation."""

from __future__ import annotations

import math
from datetime import timedelta

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config.evaluation import EvaluationConfig
from barcast.evaluation import (
    baselines,
    bootstrap,
    evaluate,
    explain,
    gate,
    model_card,
    reliability,
)


@pytest.fixture(scope="module")
def evaluation():
    bars = worlds.bars(2, 1200, seed=6)
    models = {"network": worlds.predictions(worlds.labelled(bars), skill=0.2, seed=1, sharpness=0.3)}
    return evaluate.evaluate(
        models, bars, EvaluationConfig(bootstrap_samples=200), horizon_bars=4, bars_per_year=8766
    )


def test_reliability_is_the_weighted_geometric_mean_of_its_parts():
    assert reliability.combine(dict.fromkeys(reliability.WEIGHTS, 1.0)).index == pytest.approx(1.0)
    assert sum(reliability.WEIGHTS.values()) == pytest.approx(1.0)
    parts = dict.fromkeys(reliability.WEIGHTS, 0.64)
    assert reliability.combine(parts).index == pytest.approx(0.64)
    broken = reliability.combine(dict.fromkeys(reliability.WEIGHTS, 1.0) | {"calibration": 0.0})
    assert broken.index == pytest.approx(1e-3**0.25)
    assert broken.word == "weak"
    assert reliability.combine({}).unknown == tuple(reliability.WEIGHTS)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=6, max_size=6), which=st.integers(0, 5), more=st.floats(0, 1)
)
def test_reliability_stays_in_range_and_rises_with_each_part(values, which, more):
    names = list(reliability.WEIGHTS)
    parts = dict(zip(names, values, strict=True))
    low = reliability.combine(parts).index
    assert 0 < low <= 1
    better = parts | {names[which]: max(parts[names[which]], more)}
    assert reliability.combine(better).index >= low - 1e-12


def test_reliability_falls_with_age_and_bad_data(evaluation):
    end = evaluation.window[1]
    fresh = reliability.index(evaluation, data_quality=1.0, trained_until=evaluation.window[0], as_of=end)
    old = reliability.index(
        evaluation, data_quality=1.0, trained_until=evaluation.window[0], as_of=end + timedelta(days=365)
    )
    dirty = reliability.index(evaluation, data_quality=0.2, trained_until=evaluation.window[0], as_of=end)
    assert old.index < fresh.index
    assert dirty.index < fresh.index
    assert reliability.index(evaluation).unknown == ("data_quality",)
    assert fresh.to_dict()["word"] in ("weak", "fair", "good")


def test_reliability_of_numbers_alone_is_that_of_the_evaluation(evaluation):
    ml = evaluation.metrics["network"]["ml"]
    whole = reliability.index(evaluation, data_quality=0.9)
    alone = reliability.measured(
        ml,
        evaluation.intervals["network"]["log_loss"],
        accuracy_spread=evaluation.metrics["network"]["learning"]["accuracy_spread"],
        window=evaluation.window,
        block_days=evaluation.block_days,
        data_quality=0.9,
    )
    assert alone == whole
    assert alone.unknown == ()


def test_model_card_shows_what_is_known_and_what_is_not(evaluation):
    card = model_card.render(
        {
            "name": "universal (daily.universal)", "kind": "ensemble", "interval": "1h", "horizon_bars": 4,
            "features": ["rsi_14", "atr_14"], "data": {"hash": "abc|def"}, "metrics": evaluation.flat_metrics(),
            "baselines": {"persistence": evaluation.flat_metrics("persistence")},
            "reliability": reliability.index(evaluation).to_dict(), "limits": ["A universe chosen in hindsight."],
        }
    )  # fmt: skip
    assert card.startswith("# Model card: universal (daily.universal)")
    assert "An ensemble. Out of sample it was right" in card
    assert "4 bars of 1h ahead" in card
    assert "| | this model | persistence |" in card
    assert "`rsi_14`, `atr_14`" in card
    assert "abc\\|def" in card
    assert "A universe chosen in hindsight." in card
    assert "| data quality | not known |" in card
    assert card.index("## Limits") < card.index("## Data") < card.index("## Features")
    some = model_card.render({"features": ["rsi_14", "atr_14"], "selected_features": ["atr_14"]})
    assert "It reads 1 of them:\n\n`atr_14`\n\nIt is given 2 features, in this order:" in some
    every = model_card.render({"features": ["rsi_14"], "selected_features": ["rsi_14"]})
    assert "It reads" not in every
    empty = model_card.render({"name": "x"})
    assert "It has not been evaluated." in empty
    assert empty.count("Not recorded.") == 6
    assert "Index **0.40** of 1." in model_card.render({"reliability": 0.4})


def test_permutation_importance_finds_the_feature_that_matters():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 5, 3))
    labels = np.where(x[:, -1, 1] > 0.4, 2, np.where(x[:, -1, 1] < -0.4, 0, 1))

    def predict(windows):
        lean = 2 * windows[:, -1, 1]
        p = np.exp(np.stack([-lean, np.zeros_like(lean), lean], axis=1))
        return p / p.sum(axis=1, keepdims=True)

    table = explain.permutation_importance(predict, x, labels, ["a", "b", "c"], blocks=np.arange(800) // 100)
    assert table.sort("importance", descending=True)["feature"][0] == "b"
    assert table.filter(pl.col("feature") != "b")["importance"].abs().max() == 0


def test_shap_of_lightgbm_finds_the_feature_that_matters():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 3))
    train = pl.DataFrame(x, schema=["a", "b", "c"]).with_columns(
        pl.Series("label", np.where(x[:, 2] > 0.4, 2, np.where(x[:, 2] < -0.4, 0, 1)))
    )
    booster = baselines.fit_lightgbm(train, ["a", "b", "c"], num_rounds=20)
    table = explain.shap_importance(booster, x[:50].astype(np.float32), ["a", "b", "c"])
    assert table.sort("importance", descending=True)["feature"][0] == "c"


def test_stability_of_importances_over_folds():
    a = pl.DataFrame({"feature": ["x", "y", "z"], "importance": [3.0, 2.0, 1.0]})
    opposite = a.with_columns(pl.Series("importance", [1.0, 2.0, 3.0]))
    assert explain.stability({"1": a, "2": a})["rank_correlation"] == pytest.approx(1.0)
    assert explain.stability({"1": a, "2": opposite})["rank_correlation"] == pytest.approx(-1.0)
    assert explain.stability({"1": a, "2": opposite}, top=1)["top_overlap"] == 0.0
    joined = explain.over_folds({"1": a, "2": opposite})
    assert joined["importance"].to_list() == pytest.approx([1 / 3] * 3)
    assert joined["sign_agreement"].to_list() == [1.0] * 3
    attributions = np.zeros((4, 5, 2))
    attributions[:, :, 1] = 0.1
    table = explain.gradient_importance(attributions, ["a", "b"])
    assert table["importance"].to_list() == pytest.approx([0.0, 0.5])
    spans, figures = explain.gradients_over_spans(attributions, ["a", "b"])
    assert spans["feature"].to_list() == ["b", "a"]
    assert spans["importance"].to_list() == pytest.approx([1.0, 0.0])
    assert figures["rank_correlation"] == pytest.approx(1.0)


def test_bootstrap_interval_covers_the_truth_of_correlated_rows():
    """Rows in strongly correlated days: single-row standard errors would cover about a third of the time."""
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(60):
        days = np.repeat(rng.normal(0, 1, 40), 30)
        values = 0.3 + days + rng.normal(0, 1, 1200)
        times = np.arange(1200) * 86_400_000_000 // 30
        low, high = bootstrap.interval(values, times, block_days=1, num_samples=400, seed=seed)
        covered += low <= 0.3 <= high
    assert covered >= 51


def test_bootstrap_blocks_hold_all_rows_once_and_span_the_labels():
    rows = worlds.predictions(worlds.labelled(worlds.bars(2, 300)))
    days = bootstrap.block_length_days(rows, 0.1)
    assert days == pytest.approx(3 * 5 / 24)
    times = rows["event_timestamp"].dt.epoch("us").to_numpy()
    sums, count = bootstrap.block_sums(np.ones(rows.height), times, days)
    assert count.sum() == rows.height
    np.testing.assert_array_equal(sums[:, 0], count)
    tie = bootstrap.paired(np.zeros(rows.height), times, block_days=days)
    assert tie.p_better == tie.p_worse == 1.0
    assert math.isnan(tie.low)
    sure = bootstrap.paired(np.full(rows.height, 0.1), times, block_days=days)
    assert sure.p_better == 0.0
    assert sure.p_worse == 1.0


def test_combinatorial_purged_groups_equal_skfolio():
    """Same groups and test sets as skfolio's CombinatorialPurgedCV; purging goes by each label's own span."""
    from skfolio.model_selection import CombinatorialPurgedCV

    from barcast import splits

    rows = worlds.labelled(worlds.bars(1, 400), horizon_bars=4).head(360)
    ours = splits.combinatorial(rows, 6, 2)
    theirs = list(
        CombinatorialPurgedCV(n_folds=6, n_test_folds=2, purged_size=5, embargo_size=0).split(
            np.zeros((rows.height, 1))
        )
    )
    assert len(ours) == len(theirs) == 15
    for (train, test, _), (their_train, their_tests) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(test, np.sort(np.concatenate(their_tests)))
        # skfolio purges a fixed number of rows on both sides, the splitter only those whose span meets the
        # test
        assert set(their_train) <= set(train)


@settings(max_examples=20, deadline=None)
@given(groups=st.integers(3, 8), horizon=st.integers(1, 12), seed=st.integers(0, 1000))
def test_no_training_label_span_meets_a_test_span(groups, horizon, seed):
    from barcast import splits

    rows = worlds.labelled(worlds.bars(2, 260, seed=seed), horizon_bars=horizon)
    start, end = (
        rows["event_timestamp"].dt.epoch("us").to_numpy(),
        rows["label_end_timestamp"].dt.epoch("us").to_numpy(),
    )
    for train, test, _ in splits.combinatorial(rows, groups, 1):
        low, high = start[test].min(), end[test].max()
        assert not ((start[train] <= high) & (end[train] >= low)).any()


def test_shuffling_over_spans_counts_only_the_named_features_and_says_how_stable():
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(300, 5, 4)).astype(np.float32)
    ids = np.arange(300) % 3
    labels = np.where(windows[:, -1, 2] > 0.4, 2, np.where(windows[:, -1, 2] < -0.4, 0, 1))
    asked = []

    def predict(changed, symbol_ids):
        asked.append(symbol_ids)
        lean = 2 * changed[:, -1, 2]
        p = np.exp(np.stack([-lean, 0.5 - np.abs(lean), lean], axis=1))
        return p / p.sum(axis=1, keepdims=True)

    table, stability = explain.permutation_over_spans(
        predict, windows, ids, labels, ["a", "b", "c", "d"], only=["b", "c", "d"], num_repeats=2
    )
    assert set(table["feature"]) == {"b", "c", "d"}
    assert table["feature"][0] == "c"
    assert table["importance"][0] == pytest.approx(1.0)
    assert table["sign_agreement"][0] == 1.0
    assert stability["top_overlap"] == 1.0
    assert len(asked) == 3 * (1 + 3 * 2)  # each span: once as it is, then each feature twice
    assert [len(i) for i in asked[:1]] == [100]


def test_gate_without_a_score_of_the_incumbent_holds_and_spends_nothing():
    check = gate.Check("infrastructure", True, "loaded")
    verdict = gate.incomparable(
        "universal", "champion v3 of universal", "it knows 300 features, not 307.", [check]
    )
    assert (verdict.outcome, verdict.decided, verdict.spent) == ("hold", False, 0.0)
    assert "champion v3 of universal answers now" in verdict.reasons[0]
    assert verdict.checks == (check,)

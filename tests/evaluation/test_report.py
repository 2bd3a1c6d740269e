"""`evaluate` and the report: same rows for all, honest words, a page that stands alone."""

from __future__ import annotations

import json
import re

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest

from barcast.config.evaluation import CostsConfig, EvaluationConfig
from barcast.errors import DataError, RefusedError
from barcast.evaluation import baselines, evaluate, gate, report

CONFIG = EvaluationConfig(bootstrap_samples=200)


@pytest.fixture(scope="module")
def world():
    bars = worlds.bars(2, 1500, seed=6)
    return bars, worlds.labelled(bars)


@pytest.fixture(scope="module")
def evaluation(world):
    bars, labels = world
    models = {
        "network": worlds.predictions(labels, skill=0.05, seed=1, sharpness=0.2),
        "linear": worlds.predictions(labels, skill=0.1, seed=2, sharpness=0.2),
    }
    return evaluate.evaluate(
        models, bars, CONFIG, costs=CostsConfig(fee_bps=5), horizon_bars=4, bars_per_year=8766
    )


def test_evaluation_holds_all_models_and_baselines_on_the_same_rows(evaluation):
    assert evaluation.models == ("network", "linear", "persistence", "buy_and_hold")
    keys = [evaluation.rows[m].select("symbol", "event_timestamp") for m in evaluation.models]
    assert all(k.equals(keys[0]) for k in keys)
    data = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert data["metrics"]["network"]["ml"]["rows"] == keys[0].height
    assert np.isfinite(list(evaluation.flat_metrics().values())).all()
    low, high = evaluation.intervals["network"]["accuracy"]
    assert low < evaluation.metrics["network"]["ml"]["accuracy"] < high
    hold = evaluation.metrics["buy_and_hold"]["financial"]
    assert hold["trades"] == 2
    assert hold["excess_annual_return"] == 0


def test_report_shows_acted_share_accuracy_and_net_bps_from_each_side_confidence(evaluation):
    table = evaluation.tables["network"]["side_thresholds"]
    rows = evaluation.rows["network"]
    p_sell, p_buy = rows["p_sell"].to_numpy(), rows["p_buy"].to_numpy()
    forward = rows["forward_log_return"].to_numpy()
    side = np.where(p_buy > p_sell, 1.0, -1.0)
    acted = (np.maximum(p_sell, p_buy) / (p_sell + p_buy) >= 0.65) & (p_sell + p_buy >= 0.10)
    line = table.row(by_predicate=pl.col("threshold") == 0.65, named=True)
    assert line["acted_rows"] == acted.sum() > 10
    assert line["acted_share"] == pytest.approx(acted.mean())
    assert line["accuracy"] == pytest.approx((side * forward > 0)[acted].mean())
    paid = 2e4 * CostsConfig(fee_bps=5).one_way
    assert line["net_bps"] == pytest.approx((side * forward * 1e4)[acted].mean() - paid)
    text = report.markdown(evaluation)
    head = "| side confidence from | acted rows | acted | right side | net bps |"
    assert head in text
    assert f"| 65.0% | {acted.sum():,} | {acted.mean():.1%} |" in text


def test_evaluation_drops_rows_that_a_model_lacks_and_says_so(world):
    bars, labels = world
    models = {
        "a": worlds.predictions(labels),
        "b": worlds.predictions(labels.head(labels.height - 10), seed=2),
    }
    result = evaluate.evaluate(models, bars, CONFIG, horizon_bars=4, bars_per_year=8766)
    assert result.dropped_rows == 10
    assert any("10 rows" in n for n in result.notes)


def test_evaluation_with_nothing_in_common_or_other_labels_refuses(world):
    bars, labels = world
    a = worlds.predictions(labels.filter(pl.col("symbol") == "S0"))
    b = worlds.predictions(labels.filter(pl.col("symbol") == "S1"))
    with pytest.raises(RefusedError, match="no bar in common"):
        evaluate.evaluate({"a": a, "b": b}, bars, CONFIG, horizon_bars=4, bars_per_year=8766)
    other = a.with_columns((2 - pl.col("label")).cast(pl.Int8).alias("label"))
    with pytest.raises(RefusedError, match="different labels"):
        evaluate.evaluate({"a": a, "b": other}, bars, CONFIG, horizon_bars=4, bars_per_year=8766)
    with pytest.raises(RefusedError, match="no model"):
        evaluate.evaluate({}, bars, CONFIG, horizon_bars=4, bars_per_year=8766)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.clear(), "no labelled rows"),
        (lambda f: f.drop("p_buy"), "lack the columns"),
        (lambda f: f.with_columns(pl.lit(float("nan")).alias("p_hold")), "NaN"),
        (lambda f: f.with_columns(pl.lit(None, dtype=pl.Int8).alias("label")), "label"),
        (lambda f: pl.concat([f, f]), "twice"),
        (lambda f: f.with_columns(pl.col("p_buy") * 2), "no distribution"),
        (lambda f: f.with_columns(pl.lit(4, dtype=pl.Int8).alias("label")), "go beyond"),
        (lambda f: f.with_columns(pl.col("event_timestamp").alias("label_end_timestamp")), "no later"),
    ],
)
def test_evaluation_with_bad_predictions_raises_a_clear_error(world, change, match):
    bars, labels = world
    with pytest.raises(DataError, match=match):
        evaluate.evaluate(
            {"a": change(worlds.predictions(labels))}, bars, CONFIG, horizon_bars=4, bars_per_year=8766
        )


def test_persistence_uses_only_labels_that_had_ended(world):
    """The class it repeats is that of the newest label whose end is not after the row's bar."""
    _, labels = world
    rows = worlds.predictions(labels).sort("symbol", "event_timestamp")
    said = np.argmax(baselines.persistence(rows).select("p_sell", "p_hold", "p_buy").to_numpy(), axis=1)
    for i in (50, 400, 900):
        row = rows.row(i, named=True)
        ended = rows.filter(
            (pl.col("symbol") == row["symbol"]) & (pl.col("label_end_timestamp") <= row["event_timestamp"])
        )
        assert said[i] == ended["label"][-1]


def test_lightgbm_baseline_learns_a_planted_rule_and_refuses_one_class(world):
    _, labels = world
    rng = np.random.default_rng(0)
    table = labels.with_columns(
        pl.Series("signal", labels["label"].to_numpy() + rng.normal(0, 0.3, labels.height)),
        pl.Series("noise", rng.normal(size=labels.height)),
    )
    middle = table["event_timestamp"].median()
    train = table.filter(pl.col("label_end_timestamp") <= middle)
    rows = worlds.predictions(labels.filter(pl.col("event_timestamp") > middle))
    out = baselines.lightgbm(
        rows,
        table.select("symbol", "event_timestamp", "signal", "noise"),
        train,
        ["signal", "noise"],
        num_rounds=30,
    )
    said = np.argmax(out.select("p_sell", "p_hold", "p_buy").to_numpy(), axis=1)
    assert np.mean(said == out["label"].to_numpy()) > 0.85
    with pytest.raises(DataError, match="two classes"):
        baselines.lightgbm(rows, table, train.with_columns(pl.lit(1).alias("label")), ["signal"])
    with pytest.raises(DataError, match="have no features"):
        baselines.lightgbm(rows, table.head(10), train, ["signal"], num_rounds=2)


@pytest.fixture(scope="module")
def page(evaluation):
    rows = evaluation.rows
    verdict = gate.decide(
        gate.Scored("network v2", rows["network"]), gate.Scored("linear v1", rows["linear"]),
        evaluation_gate(), horizon_bars=4,
    )  # fmt: skip
    context = report.Context(
        title="Sample <run>",
        verdicts=[verdict],
        learning_curves={"network": {"train_loss": [1.1, 1.0], "validation_loss": [1.1, 1.05]}},
        importance=pl.DataFrame(
            {"feature": ["rsi_14", "atr_14"], "importance": [0.02, 0.01], "spread": [0.001, 0.002]}
        ),
        shuffled=pl.DataFrame({"feature": ["rsi_14"], "importance": [1.0], "spread": [0.2]}),
        shuffled_words="Shuffled over the rows.",
        attention=[0.1, 0.2, 0.7],
        operational=pl.DataFrame(
            {
                "trained_model": ["network"],
                "parameters": [122581.0],
                "training_seconds": [17.2],
                "size_mib": [None],
            }
        ),
        facts={"data hash": "abc123"},
        notes=["3 rows were dropped."],
    )
    return report.render(evaluation, context), report.markdown(evaluation, context)


def evaluation_gate():
    from barcast.config.evaluation import GateConfig

    return GateConfig(bootstrap_samples=2000)


def test_report_stands_alone_and_escapes(page):
    html, _ = page
    assert "Sample &lt;run&gt;" in html
    assert not re.search(r'(src|href)="https?://', html)
    assert "<script" not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert html.count("<svg") == 10
    assert "var(--s1)" in html
    assert "prefers-color-scheme: dark" in html
    # no colour of matplotlib's own is left that would vanish on a dark page
    assert not re.search(r"(stroke|fill): #0(0|1|2|3|4|5|6)", html)


def test_report_says_first_that_a_baseline_is_better(page, evaluation):
    html, text = page
    lede = re.search(r'class="lede">(.*?)</p>', html, re.S)[1]
    assert "On the same rows linear did better as a forecast" in lede
    assert "always answering the commonest class" in lede
    assert "after costs" in lede
    assert "a year" in text
    assert "| Right answers |" in text
    assert "- data hash: `abc123`" in text


def test_report_shows_how_it_learned_and_what_it_costs(page):
    html, text = page
    assert "Against the linear baseline (no champion yet)" in html
    for heading in ("Learning curves", "Attention", "Features by gradient", "Features by shuffling"):
        assert f"<h3>{heading}</h3>" in html
    assert "not why it answers" in html
    assert "Shuffled over the rows." in html
    assert "122,581" in html
    assert "## What each model costs" in text
    assert "| network | 122,581 | 17.20 | – |" in text


def test_report_with_a_model_that_never_trades_says_so(world):
    bars, labels = world
    hold = worlds.predictions(labels).with_columns(p_sell=pl.lit(0.2), p_hold=pl.lit(0.6), p_buy=pl.lit(0.2))
    result = evaluate.evaluate({"hold": hold}, bars, CONFIG, horizon_bars=4, bars_per_year=8766)
    html = report.render(result)
    assert "It never traded" in html
    assert "It said HOLD on 100.0% of the bars: it hardly traded." in html


def test_report_of_a_model_that_only_buys_says_that_it_earned_the_market(world):
    bars, labels = world
    bull = worlds.predictions(labels).with_columns(p_sell=pl.lit(0.2), p_hold=pl.lit(0.2), p_buy=pl.lit(0.6))
    result = evaluate.evaluate({"bull": bull}, bars, CONFIG, horizon_bars=4, bars_per_year=8766)
    assert (
        "It said BUY on 100.0% of the bars: what it made or lost is mostly the market's own move."
        in report.render(result).replace("&#39;", "'")
    )

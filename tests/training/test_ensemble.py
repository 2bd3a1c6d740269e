"""The ensemble: members, weights, fallback, one SavedModel; and the slot for news."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast.errors import ModelError
from barcast.models import news, savedmodel, specialists
from barcast.training import ExportedModel, TrainedModel, ensemble, train_ensemble


@pytest.fixture(scope="module")
def joined(universal: Any, linear: Any, dataset: Any, fold: Any, small: Any) -> Any:
    return train_ensemble(universal, linear, dataset, fold, small)


def test_ensemble_is_one_savedmodel_with_the_same_answers(
    joined: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    rows = fold.test[:7]
    expected = joined.answers(dataset, rows)
    path = joined.export(tmp_path / "1")
    served = savedmodel.predict(path, dataset.windows(rows), joined.symbol_ids(dataset)[rows])
    assert set(served) == set(savedmodel.OUTPUTS)
    for name, values in served.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
    again = TrainedModel.load(path).answers(dataset, rows)
    np.testing.assert_array_equal(again["probabilities"], expected["probabilities"])
    np.testing.assert_allclose(served["probabilities"].sum(axis=1), 1, atol=1e-5)
    votes = savedmodel.predict(
        path, dataset.windows(rows), joined.symbol_ids(dataset)[rows], signature="members"
    )
    names = savedmodel.members(path)
    assert names[:3] == ("network", "linear", "momentum")
    assert votes["member_probabilities"].shape == (7, len(names), 3)
    np.testing.assert_allclose(votes["member_weights"].sum(axis=1), 1, atol=1e-5)


def test_ensemble_is_not_worse_than_chance_and_tracks_its_members(
    joined: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    exported = ExportedModel.load(joined.export(tmp_path / "1"))
    scores = ensemble.member_scores(exported, dataset, fold.test)
    whole = scores.filter(pl.col("regime") == "all")
    assert whole["member"].to_list() == list(joined.network.names)
    assert "momentum" in joined.network.names
    assert "news" not in joined.network.names
    parts = scores.filter(pl.col("regime") != "all").group_by("member").agg(pl.col("rows").sum())
    assert set(parts["rows"]) == {len(fold.test)}
    label = dataset.classes(joined.info.thresholds)[fold.test]
    p = joined.answers(dataset, fold.test)["probabilities"]
    loss = float(-np.log(p[np.arange(len(p)), label]).mean())
    assert loss < np.log(3)
    assert loss < whole["log_loss"].max()


def test_missing_member_has_no_say_and_the_others_answer(
    universal: Any, linear: Any, dataset: Any, fold: Any, small: Any
) -> None:
    without = train_ensemble(universal, linear, dataset, fold, small, missing=("linear", "momentum"))
    each, base = ensemble.member_probabilities(without.network, dataset, fold.test[:20])
    _, weight = without.network.join(base, each)
    weight = np.asarray(weight)
    for name in ("linear", "momentum"):
        np.testing.assert_array_equal(weight[:, without.network.names.index(name)], 0)
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ModelError, match="without its network"):
        train_ensemble(universal, linear, dataset, fold, small, missing=("network",))


def test_weights_follow_performance_by_regime() -> None:
    label = np.array([0, 1, 2, 0, 1, 2] * 40)
    regime = np.repeat([0, 2], 120)
    sure = np.full((240, 3), 0.1)
    sure[np.arange(240), label] = 0.8
    blind = np.full((240, 3), 1 / 3)
    first = np.where((regime == 0)[:, None], sure, blind)
    second = np.where((regime == 2)[:, None], sure, blind)
    table = ensemble.weights_table(np.stack([first, second], axis=1), regime, label)
    assert table[0, 0] > 0.9
    assert table[2, 1] > 0.9
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)


def test_vote_leans_to_the_member_that_did_well_lately() -> None:
    label, regime = np.zeros(400, dtype=int), np.zeros(400, dtype=int)
    good, bad = np.array([0.8, 0.1, 0.1]), np.array([0.2, 0.4, 0.4])
    early = np.arange(400)[:, None] < 300  # the first member is right three times of four, but not of late
    each = np.stack([np.where(early, good, bad), np.where(early, bad, good)], axis=1)
    assert ensemble.weights_table(each, regime, label)[0, 0] > 0.9
    assert ensemble.weights_table(each, regime, label, recency=ensemble.fading(400, 50))[0, 1] > 0.9


def test_members_of_different_kinds_are_refused(
    universal: Any, linear: Any, dataset: Any, fold: Any, small: Any
) -> None:
    with pytest.raises(ModelError, match="in this order"):
        train_ensemble(linear, universal, dataset, fold, small)


def test_groups_read_their_side_of_the_market() -> None:
    found = specialists.groups(["rsi_14", "obv_change_20", "garch_volatility", "sma_ratio_10", "news_count"])
    assert found["mean_reversion"] == (0,)
    assert found["volume"] == (1,)
    assert found["volatility"] == (2,)
    assert found["trend"] == (3,)
    assert found["news"] == (4,)


def test_news_becomes_features_known_at_the_bar_only(market: pl.DataFrame) -> None:
    rows = market.select("symbol", "event_timestamp").filter(pl.col("symbol") == "S0")[:5]
    t = rows["event_timestamp"]
    items = pl.DataFrame(
        {
            "symbol": ["S0", "S0", "S1"],
            "created_timestamp": [t[1], t[1] + timedelta(hours=5), t[1]],
            "sentiment": [1.0, -0.5, 1.0],
            "relevance": [1.0, 1.0, 1.0],
        },
        schema=news.ITEMS,
    )
    found = news.features(rows, news.FixedNews(items))
    assert found["news_count"].to_list() == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert found["news_sentiment"].to_list() == [0.0, 1.0, -0.5, 0.0, 0.0]

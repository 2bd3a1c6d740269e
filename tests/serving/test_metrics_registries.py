"""Two predictors in one process count apart, also after Feast was imported."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from serving_world import F, T, World

from barcast.serving.market import MarketBook


@pytest.mark.filterwarnings("ignore")  # Feast's imports warn of their own ways
def test_two_registries_do_not_add_up() -> None:
    import feast.metrics  # noqa: F401

    from barcast.serving.metrics import Metrics

    first, second = Metrics(), Metrics()
    labels = {"link": "universal", "kind": "universal", "fallback": "false"}
    for _ in range(3):
        first.count("answer", labels)
    second.count("answer", labels)
    assert second.registry.get_sample_value("barcast_answers_total", labels) == 1.0


def test_the_newest_bar_answered_does_not_go_back_with_a_symbol_that_stopped(world: World) -> None:
    newest = world.bars["event_timestamp"].max()
    world.store.put("CCC", newest - timedelta(hours=1), np.zeros((T, F)))
    world.book = MarketBook("1h")
    world.book.update(world.bars.filter((pl.col("symbol") != "CCC") | (pl.col("event_timestamp") < newest)))
    with world.predictor() as predictor:
        predictor.predict(["AAA", "CCC"])
    shown = predictor.metrics.registry.get_sample_value("barcast_feature_timestamp")
    assert shown == newest.timestamp()

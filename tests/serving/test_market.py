"""What the newest bars say of many symbols together, in time for an answer."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from serving_world import World, make_bars

from barcast.serving.live import LiveReader
from barcast.serving.market import MarketBook


def test_correlations_with_gaps_are_those_of_each_pairs_common_bars() -> None:
    bars = make_bars(["A", "B", "C", "D", "E"], count=200)
    times = sorted(bars["event_timestamp"].unique())
    gone = {"B": times[150:160], "C": times[100:101], "D": times[190:]}
    for symbol, missing in gone.items():
        bars = bars.filter(~((pl.col("symbol") == symbol) & pl.col("event_timestamp").is_in(missing)))
    bars = bars.with_columns(close=pl.when(pl.col("symbol") == "E").then(7.0).otherwise("close"))
    book = MarketBook("1h")
    book.update(bars)
    names = ("D", "A", "none", "C", "B", "E")
    found = book.correlation(names, 720.0)
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 1).all()
    for i, left in enumerate(names):
        for j, right in enumerate(names):
            if i == j or {left, right} & {"none", "E"}:
                assert found[i, j] == (i == j)  # nothing is known, or it does not move
                continue
            both = [
                bars.filter(pl.col("symbol") == s).select("event_timestamp", "close") for s in (left, right)
            ]
            closes = both[0].join(both[1], on="event_timestamp").sort("event_timestamp")
            moves = np.diff(np.log(closes.select("close", "close_right").to_numpy()), axis=0)
            assert found[i, j] == pytest.approx(np.corrcoef(moves.T)[0, 1], abs=1e-12)


def test_one_missing_bar_among_many_symbols_costs_no_answer_its_time() -> None:
    names = [f"S{i:03}" for i in range(300)]
    bars = make_bars(names, count=200)
    at = sorted(bars["event_timestamp"].unique())[150]
    book = MarketBook("1h")
    book.update(bars.filter(~((pl.col("symbol") == "S007") & (pl.col("event_timestamp") == at))))
    began = time.perf_counter()
    book.correlation(tuple(names), 720.0)
    assert time.perf_counter() - began < 2.0  # pair by pair it took more than 5 s


def test_files_of_many_live_versions_are_read_once_and_forgotten_with_them(world: World) -> None:
    models = {f"w.S{i}": {"stable": 1} for i in range(300)}
    world.live(models)
    for model in models:
        world.files(model, 1, {})
    reader = LiveReader(world.workspace.models, "w")
    reader.read()
    first = [reader.files(model, 1) for model in models]
    assert all(reader.files(model, 1) is files for model, files in zip(models, first, strict=True))
    world.live({"w.S0": {"stable": 1}})
    reader.read()
    assert reader.files("w.S0", 1) is first[0]
    assert reader.files("w.S1", 1) is not first[1]

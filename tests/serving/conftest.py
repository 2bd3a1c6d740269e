"""A small workspace with bars, windows and live models, and a model server double."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from model_double import ModelDouble, outputs
from serving_world import F, MemoryStore, T, World, linear_reference, make_bars

from barcast.config import Config
from barcast.serving.market import MarketBook
from barcast.workspace import Workspace


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config = Config(
        workspace="w",
        interval="1h",
        horizon_bars=5,
        lookback_bars=T,
        serving={"deadline_seconds": 10.0, "retries": 1, "breaker_failures": 3},
    )
    workspace = Workspace("w", tmp_path)
    bars = make_bars(["AAA", "BBB", "CCC"])
    book = MarketBook("1h")
    book.update(bars)
    store = MemoryStore()
    rng = np.random.default_rng(1)
    for symbol in ("AAA", "BBB", "CCC"):
        store.put(symbol, bars["event_timestamp"].max(), rng.normal(size=(T, F)))
    server = ModelDouble()
    made = World(workspace, config, store, book, server, bars)
    made.live({"w.universal": {"stable": 1}})
    made.files("w.universal", 1, {"AAA": 1, "BBB": 2}, **linear_reference())
    server.models[("w.universal", 1)] = outputs((0.1, 0.3, 0.6))
    yield made
    server.stop()

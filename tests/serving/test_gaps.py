"""A window over a gap that training would have dropped is refused, wherever it comes from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from serving_world import START, F, T, World

from barcast import datasets
from barcast.bars import adjusted, calendars_of
from barcast.bars.calendars import expected_closes
from barcast.bars.sources.simulator import simulate
from barcast.config import Config
from barcast.serving import replay
from barcast.serving.caches import Window
from barcast.serving.gaps import Gaps
from barcast.serving.market import MarketBook, micros


def _missing(world: World, first: int, count: int) -> datetime:
    """Take bars `first` to `first + count - 1` of AAA out of the world, counted from its newest; its newest close."""
    world.config = world.config.model_copy(
        update={"universe": world.config.universe.model_copy(update={"calendar": "24/7"})}
    )
    place = pl.int_range(pl.len()).reverse().over("symbol")
    gone = (pl.col("symbol") == "AAA") & place.is_between(first, first + count - 1)
    world.bars = world.bars.filter(~gone)
    world.book = MarketBook("1h")
    world.book.update(world.bars)
    newest: Any = world.bars["event_timestamp"].max()
    return newest


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("first", "count", "status"),
    [(20, 7, "refused"), (20, 6, "success"), (T - 1, 7, "refused"), (T, 7, "success"), (1, 7, "refused")],
)
def test_a_window_over_a_long_gap_is_refused(
    world: World, first: int, count: int, status: str, streamed: bool
) -> None:
    newest = _missing(world, first, count)
    with world.predictor() as predictor:
        if streamed:
            values = np.zeros((T, F), np.float32)
            predictor.windows.cache.put(
                [Window.of(s, newest, values) for s in ("AAA", "BBB")], world.book.revision
            )
            world.store.rows.clear()
        one, other = predictor.predict(["AAA", "BBB"])
    assert other.status == "success"
    assert one.status == status
    if status == "refused":
        assert one.reason is not None
        assert one.reason.startswith(f"bars are missing: {count} between 2024-01-")
        assert "learn over at most 6" in one.reason


def _training_keeps(bars: pl.DataFrame, config: Config) -> set[datetime]:
    """Ends of the windows that training would use, of bars whose one feature is the close."""
    whole = adjusted(bars)
    made = datasets.build(
        whole.select("symbol", "event_timestamp", "created_timestamp", pl.col("close").cast(pl.Float32)),
        lookback_bars=config.lookback_bars,
        interval_seconds=3600,
        expected_times=expected_closes(whole, "1h", calendars_of(config)),
        max_gap_bars=config.labels.max_gap_bars,
    )
    return set(made.rows["event_timestamp"])


@pytest.mark.parametrize("calendar", ["24/7", "XNYS"])
def test_gaps_are_those_of_training(calendar: str, tmp_path: Path) -> None:
    config = Config(
        workspace="w", interval="1h", lookback_bars=12, source={"kind": "simulator"}, universe={"calendar": calendar}
    )  # fmt: skip
    rng = np.random.default_rng(5)
    bars = simulate(1, 400, "1h", calendar=calendar).with_row_index()
    for start in rng.integers(20, 380, 12):
        bars = bars.filter(~pl.col("index").is_between(start, start + rng.integers(3, 9)))
    bars = bars.drop("index")
    gaps, symbol = Gaps(config), str(bars["symbol"][0])
    times = bars["event_timestamp"].dt.timestamp("us").to_numpy()
    served = {
        bars["event_timestamp"][i]
        for i in range(11, len(times))
        if not gaps.within(symbol, times[i - 11 : i + 1])
    }
    kept = _training_keeps(bars, config)
    assert served == kept
    assert 0 < len(kept) < len(times) - 11
    part = bars.select("symbol", "event_timestamp", "close")
    replayed = replay._windows(part, ("close",), 12, None, gaps)
    assert {w.event_timestamp for w in replayed} == kept


def test_no_calendar_is_asked_where_bars_follow_each_other() -> None:
    gaps = Gaps(Config(workspace="w", interval="1h", universe={"calendar": "XNYS"}))
    hours = micros(START) + np.arange(60) * 3_600_000_000
    assert gaps.within("A", hours) == ""
    assert gaps.within("A", hours[:0]) == gaps.within("A", hours[:1]) == ""
    assert START.tzinfo == UTC

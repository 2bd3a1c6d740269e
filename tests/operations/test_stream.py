"""The feed's closes become windows equal to the batch engine's, through restarts, splits and late bars."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast.bars import Calendar, adjusted
from barcast.bars.feed import Batch
from barcast.bars.ingest import open_store
from barcast.bars.live import follow, open_log
from barcast.bars.replay import Replay
from barcast.bars.sources.simulator import simulate
from barcast.bars.splits import restate
from barcast.config import Config
from barcast.features import compute
from barcast.operations.stream import LiveStream

BARS = simulate(3, 500, "5m", 7)
TIMES = BARS["event_timestamp"].unique().sort().to_list()
SYMBOLS = ["SIM0000", "SIM0001", "SIM0002"]
SPLIT = "SIM0001"


def split_bars(at: int) -> pl.DataFrame:
    """`SPLIT` trades at a quarter of the price after `TIMES[at]`."""
    after = (pl.col("symbol") == SPLIT) & (pl.col("event_timestamp") > TIMES[at])
    prices = [
        pl.when(after).then(pl.col(n) / 4).otherwise(n).alias(n) for n in ("open", "high", "low", "close")
    ]
    return BARS.with_columns(*prices, volume=pl.when(after).then(pl.col("volume") * 4).otherwise("volume"))


class World:
    """A workspace whose table ends at `TIMES[400]`."""

    def __init__(self, folder: Path, bars: pl.DataFrame = BARS, late_bars: str = "refuse") -> None:
        self.config = Config.model_validate(
            {
                "workspace": "live",
                "interval": "5m",
                "lookback_bars": 8,
                "universe": {"calendar": "24/7"},
                "features": {"categories": ["ohlcv", "price_action", "cross_symbol"], "late_bars": late_bars},
                "source": {"kind": "simulator"},
                "storage": {"root": str(folder)},
            }
        )
        self.place = self.config.open_workspace()
        self.table = open_store(self.config, self.place)
        self.bars = bars
        self.table.append(bars.filter(pl.col("event_timestamp") <= TIMES[400]))

    def live(self) -> LiveStream:
        live = LiveStream(self.config, self.place)
        live.begin()
        return live

    def follow(self, live: LiveStream, start: int, end: int) -> None:
        some = self.bars.filter(pl.col("event_timestamp") <= TIMES[end])
        done = follow(self.config, self.place, on_batch=live.take, replay=Replay(some, start=TIMES[start]))
        assert done.bars == 3 * (end - start)

    def split(self, at: int) -> None:
        known = TIMES[at] + timedelta(seconds=30)
        self.table.append(
            restate(self.table.read(), symbol=SPLIT, split_ratio=4.0, effective=TIMES[at + 1], known_at=known)
        )

    def check(self, live: LiveStream, end: int) -> None:
        """The windows are those of the batch engine over the table."""
        batch = compute(
            adjusted(self.table.read()),
            interval="5m",
            calendar=Calendar.of("24/7"),
            config=self.config.features,
        )
        taken = live.newest(SYMBOLS)
        assert taken.rows["symbol"].to_list() == SYMBOLS
        assert set(taken.rows["event_timestamp"]) == {TIMES[end]}
        for symbol, window in zip(SYMBOLS, taken.windows, strict=True):
            rows = batch.filter(pl.col("symbol") == symbol).tail(8)
            assert rows["event_timestamp"][-1] == TIMES[end]
            np.testing.assert_allclose(window, rows.select(live.names).to_numpy(), rtol=2e-6, atol=1e-9)


def test_each_close_has_the_windows_of_the_batch_engine(tmp_path: Path) -> None:
    world = World(tmp_path)
    live = LiveStream(world.config, world.place)
    assert len(live.begin().windows) == 3
    world.follow(live, 400, 420)
    assert live.warmed == 1
    world.check(live, 420)


def test_a_restart_takes_up_its_state_and_what_the_table_gained(tmp_path: Path) -> None:
    world = World(tmp_path)
    live = world.live()
    world.follow(live, 400, 410)
    live.keep()
    world.table.append(BARS.filter(pl.col("event_timestamp").is_between(TIMES[411], TIMES[413])))
    again = world.live()
    assert again.warmed == 0
    world.check(again, 413)
    world.follow(again, 413, 420)
    world.check(again, 420)


@pytest.mark.parametrize("damage", ["engine", "rows.npz"])
def test_a_damaged_state_is_replaced_by_a_warm_up(tmp_path: Path, damage: str) -> None:
    world = World(tmp_path)
    world.live().keep()
    path = world.place.state / "stream" / damage
    path.write_bytes(path.read_bytes()[:100])
    again = world.live()
    assert again.warmed == 1
    world.follow(again, 400, 403)
    world.check(again, 403)


def test_a_split_known_before_its_first_bar_goes_on_from_the_state(tmp_path: Path) -> None:
    world = World(tmp_path, split_bars(405))
    live = world.live()
    world.follow(live, 400, 405)
    world.split(405)
    world.follow(live, 405, 415)
    assert live.warmed == 1
    world.check(live, 415)
    live.keep()
    assert world.live().warmed == 0


def test_a_split_known_late_replays_the_state(tmp_path: Path) -> None:
    world = World(tmp_path, split_bars(405))
    live = world.live()
    world.follow(live, 400, 408)
    world.split(405)
    world.follow(live, 408, 412)
    assert live.warmed == 2
    world.check(live, 412)


def test_a_split_while_the_feed_was_off_is_met_at_the_start(tmp_path: Path) -> None:
    world = World(tmp_path, split_bars(400))
    world.live().keep()
    world.split(400)
    again = world.live()
    assert again.warmed == 0
    world.follow(again, 400, 404)
    world.check(again, 404)


@pytest.mark.parametrize(("late_bars", "warmed"), [("refuse", 2), ("replay", 1)])
def test_a_corrected_bar_is_worked_in_as_the_batch_engine_does(
    tmp_path: Path, late_bars: str, warmed: int
) -> None:
    world = World(tmp_path, late_bars=late_bars)
    live = world.live()
    world.follow(live, 400, 408)
    fixed = BARS.filter((pl.col("event_timestamp") == TIMES[405]) & (pl.col("symbol") == SPLIT)).with_columns(
        high=pl.col("high") * 1.01, created_timestamp=pl.lit(TIMES[407])
    )
    world.table.append(fixed, origin="live")  # as the feed's log does
    live.take(Batch(TIMES[405], fixed, "correction"))
    assert live.warmed == warmed
    world.check(live, 408)
    world.follow(live, 408, 410)
    world.check(live, 410)


def test_a_bar_known_from_the_table_gives_nothing_new(tmp_path: Path) -> None:
    live = World(tmp_path).live()
    known = BARS.filter(pl.col("event_timestamp") == TIMES[400])
    assert live.take(Batch(TIMES[400], known, "backfill")) is None
    assert live.warmed == 1


def test_a_symbol_that_stopped_before_the_others_is_worked_in(tmp_path: Path) -> None:
    behind = (pl.col("symbol") == "SIM0002") & (pl.col("event_timestamp") > TIMES[398])
    world = World(tmp_path, BARS.filter(~(behind & (pl.col("event_timestamp") <= TIMES[400]))))
    live = world.live()
    for at in (399, 400):
        missed = BARS.filter(behind & (pl.col("event_timestamp") == TIMES[at]))
        world.table.append(missed)
        live.take(Batch(TIMES[at], missed, "backfill"))
    world.bars = BARS
    world.follow(live, 400, 403)
    world.check(live, 403)


def test_a_new_symbol_with_history_is_warmed_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live().keep()
    other = BARS.filter(pl.col("symbol") == "SIM0000").with_columns(symbol=pl.lit("NEW"))
    world.table.append(other.filter(pl.col("event_timestamp") <= TIMES[400]))
    again = world.live()
    assert again.warmed == 1
    assert again.newest(["NEW"]).rows["symbol"].to_list() == ["NEW"]


def test_an_empty_table_begins_with_the_first_close(tmp_path: Path) -> None:
    config = World(tmp_path / "other").config.model_copy(update={"workspace": "empty"})
    live = LiveStream(config, config.open_workspace())
    assert live.begin().rows.height == 0
    first = BARS.filter(pl.col("event_timestamp") == TIMES[0])
    taken = live.take(Batch(TIMES[0], first, "live"))
    assert taken is not None
    assert taken.rows.height == 0


@pytest.mark.parametrize("change", ["corrected", "late"])
@pytest.mark.parametrize("running", [False, True])
def test_a_past_that_others_changed_in_the_table_begins_the_stream_again(
    tmp_path: Path, change: str, running: bool
) -> None:
    one = (pl.col("symbol") == SPLIT) & (pl.col("event_timestamp") == TIMES[396])
    world = World(tmp_path, BARS.filter(~one) if change == "late" else BARS)
    live = world.live()
    world.follow(live, 400, 405)
    live.keep()
    bar = BARS.filter(one).with_columns(
        pl.col("high", "close") * 1.02,
        created_timestamp=pl.lit(TIMES[406], dtype=BARS.schema["event_timestamp"]),
    )
    world.table.append(bar, origin="files")
    if not running:
        live = world.live()
    world.follow(live, 405, 408)
    world.check(live, 408)


def test_a_restart_after_a_crash_between_log_and_table_needs_no_warm_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    live = world.live()
    world.follow(live, 400, 402)
    waiting = BARS.filter(pl.col("event_timestamp") == TIMES[403])
    open_log(world.config, world.place).append(waiting)
    live.take(Batch(TIMES[403], waiting, "live"))
    live.keep()
    again = world.live()
    assert again.warmed == 0
    world.check(again, 403)

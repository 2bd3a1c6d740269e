"""The stream's state: saved and restored, late and corrected bars, splits; every wrong call is refused unharmed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from feature_bars import differences, make_bars, streamed

from barcast.bars.calendar import Calendar
from barcast.config.features import FeaturesConfig
from barcast.errors import DataError
from barcast.features import StreamEngine, compute

ALWAYS = Calendar.of("24/7")
REPLAY = FeaturesConfig(late_bars="replay", replay_bars=20)


def parts(frame: pl.DataFrame) -> list[pl.DataFrame]:
    return frame.sort("event_timestamp").partition_by("event_timestamp", maintain_order=True)


def feed(engine: StreamEngine, moments: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([engine.update(part) for part in moments])


def test_saved_and_restored_state_goes_on_as_if_nothing_happened(tmp_path: Path) -> None:
    moments = parts(make_bars(3, 260, missing=0.05, late_start=200))
    engine = StreamEngine("5m", ALWAYS)
    feed(engine, moments[:180])
    engine.save(tmp_path / "state")
    other = StreamEngine("5m", ALWAYS)
    other.load(tmp_path / "state")
    assert feed(engine, moments[180:]).equals(feed(other, moments[180:]), null_equal=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


@pytest.mark.parametrize("position", [0, 20, 100, -1])
def test_damaged_state_is_refused_and_the_engine_unharmed(tmp_path: Path, position: int) -> None:
    moments = parts(make_bars(2, 60))
    engine, twin = StreamEngine("5m", ALWAYS), StreamEngine("5m", ALWAYS)
    feed(engine, moments[:50])
    feed(twin, moments[:50])
    path = tmp_path / "state"
    engine.save(path)
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        engine.load(path)
    path.write_bytes(bytes(raw[: len(raw) // 2]))
    with pytest.raises(DataError, match="damaged"):
        engine.load(path)
    with pytest.raises(DataError, match="no stream state"):
        engine.load(tmp_path / "absent")
    assert feed(engine, moments[50:]).equals(feed(twin, moments[50:]), null_equal=True)


def test_state_of_other_features_interval_or_calendar_is_refused(tmp_path: Path) -> None:
    engine = StreamEngine("1d", ALWAYS)
    feed(engine, parts(make_bars(1, 3, "1d")))
    engine.save(tmp_path / "state")
    with pytest.raises(DataError, match="another set of features"):
        StreamEngine("1d", ALWAYS, FeaturesConfig(categories=("ohlcv",))).load(tmp_path / "state")
    with pytest.raises(DataError, match="1d bars"):
        StreamEngine("5m", ALWAYS).load(tmp_path / "state")
    with pytest.raises(DataError, match="XNYS"):
        StreamEngine("1d", Calendar.of("XNYS")).load(tmp_path / "state")


def wrong(kind: str, moments: list[pl.DataFrame]) -> pl.DataFrame:
    nxt = moments[100]
    if kind == "past":
        return moments[40]
    if kind == "repeated":
        return moments[99]
    if kind == "interval":
        return nxt.with_columns(event_timestamp=pl.col("event_timestamp") - timedelta(minutes=2))
    if kind == "nan":
        return nxt.with_columns(close=pl.lit(float("nan")))
    if kind == "null":
        return nxt.with_columns(open=pl.lit(None, dtype=pl.Float64))
    if kind == "several":
        return pl.concat(moments[100:102])
    if kind == "empty":
        return nxt.clear()
    if kind == "twice":
        return pl.concat([nxt, nxt])
    return nxt.drop("high")


@pytest.mark.parametrize(
    "kind", ["past", "repeated", "interval", "nan", "null", "several", "empty", "twice", "column"]
)
def test_wrong_update_is_refused_and_the_state_unharmed(kind: str) -> None:
    moments = parts(make_bars(2, 130, seed=5))
    engine, twin = StreamEngine("5m", ALWAYS), StreamEngine("5m", ALWAYS)
    feed(engine, moments[:100])
    feed(twin, moments[:100])
    with pytest.raises(DataError) as error:
        engine.update(wrong(kind, moments))
    assert error.value.hint
    assert feed(engine, moments[100:]).equals(feed(twin, moments[100:]), null_equal=True)


@pytest.mark.parametrize("delay", [1, 7, 18])
def test_late_bar_with_replay_gives_the_batch_values(delay: int) -> None:
    frame = make_bars(3, 200, seed=12)
    when = frame["event_timestamp"].unique().sort()[170]
    late = (pl.col("symbol") == "S1") & (pl.col("event_timestamp") == when)
    frame = frame.with_columns(
        created_timestamp=pl.when(late)
        .then(pl.col("event_timestamp") + timedelta(minutes=5 * delay))
        .otherwise("created_timestamp")
    )
    batch = compute(frame, interval="5m", calendar=ALWAYS)
    engine = StreamEngine("5m", ALWAYS, REPLAY)
    rows = {}
    for k, part in enumerate(parts(frame)):
        for row in engine.update(part.filter(~late)).partition_by("symbol", "event_timestamp"):
            rows[row["symbol"][0], row["event_timestamp"][0]] = row
        if k == 170 + delay:
            again = engine.update(frame.filter(late))
            assert again["event_timestamp"].min() == when
            for row in again.partition_by("symbol", "event_timestamp"):
                rows[row["symbol"][0], row["event_timestamp"][0]] = row
    stream = pl.concat(list(rows.values())).sort("symbol", "event_timestamp")
    assert differences(batch, stream) == []


def test_corrected_bar_with_replay_gives_the_batch_values() -> None:
    frame = make_bars(2, 190, seed=13)
    when = frame["event_timestamp"].unique().sort()[180]
    row = (pl.col("symbol") == "S0") & (pl.col("event_timestamp") == when)
    fixed = frame.with_columns(
        volume=pl.when(row).then(pl.col("volume") * 3).otherwise("volume"),
        created_timestamp=pl.when(row)
        .then(pl.col("event_timestamp") + timedelta(minutes=31))
        .otherwise("created_timestamp"),
    )
    engine = StreamEngine("5m", ALWAYS, REPLAY)
    feed(engine, parts(frame))
    again = engine.update(fixed.filter(row))
    batch = compute(fixed, interval="5m", calendar=ALWAYS)
    expected = batch.filter(pl.col("event_timestamp") >= when)
    assert differences(expected, again) == []


def test_late_bar_older_than_the_replay_is_refused() -> None:
    moments = parts(make_bars(2, 150))
    engine = StreamEngine("5m", ALWAYS, REPLAY)
    for part in moments:
        engine.update(part.filter(pl.col("symbol") == "S0") if part is moments[5] else part)
    with pytest.raises(DataError, match="came after"):
        engine.update(moments[5].filter(pl.col("symbol") == "S1"))


def test_live_split_with_rescale_equals_batch_on_adjusted_history() -> None:
    frame = make_bars(3, 260, seed=14)
    edge = frame["event_timestamp"].unique().sort()[200]
    mine = pl.col("symbol") == "S1"
    prices = ("open", "high", "low", "close")
    scale = [pl.when(mine).then(pl.col(n) / 4).otherwise(n).alias(n) for n in prices]
    restated = frame.with_columns(*scale, volume=pl.when(mine).then(pl.col("volume") * 4).otherwise("volume"))
    engine = StreamEngine("5m", ALWAYS)
    before = streamed(engine, frame.filter(pl.col("event_timestamp") <= edge))
    engine.rescale("S1", 0.25, 4.0)
    after = streamed(engine, restated.filter(pl.col("event_timestamp") > edge))
    batch = compute(restated, interval="5m", calendar=ALWAYS)
    assert differences(batch, pl.concat([before, after]).sort("symbol", "event_timestamp")) == []
    with pytest.raises(DataError, match="no bars"):
        engine.rescale("S9", 0.25, 4.0)
    with pytest.raises(DataError, match="positive"):
        engine.rescale("S1", 0.0, 4.0)


def test_memory_per_symbol_does_not_grow_with_history() -> None:
    engine = StreamEngine("5m", ALWAYS)
    frame = make_bars(1, 3000)
    engine.warm(frame.head(500))
    sizes = {name: array.nbytes for name, array in engine.memory.arrays.items()}
    feed(engine, parts(frame.slice(500)))
    assert {name: array.nbytes for name, array in engine.memory.arrays.items()} == sizes

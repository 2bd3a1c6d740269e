"""Batch, stream and any prefix give the same values, bar for bar."""

from __future__ import annotations

import polars as pl
import pytest
from feature_bars import differences, make_bars, streamed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barcast.bars.calendar import Calendar
from barcast.features import StreamEngine, compute

ALWAYS = Calendar.of("24/7")
SLOW = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

tables = st.builds(
    make_bars,
    symbols=st.integers(1, 4),
    count=st.integers(1, 330),
    interval=st.sampled_from(["5m", "1h", "1d"]),
    seed=st.integers(0, 10**6),
    missing=st.sampled_from([0.0, 0.02, 0.3]),
    volatility=st.sampled_from([0.0001, 0.005, 0.3]),
    zero_volume=st.sampled_from([0.0, 0.3, 1.0]),
    late_start=st.sampled_from([0, 50]),
    tick=st.sampled_from([0.0, 0.01]),
).filter(lambda frame: frame.height > 0)


def interval_of(frame: pl.DataFrame) -> str:
    seconds = frame["event_timestamp"].dt.epoch("s")
    return "1d" if (seconds % 86400 == 0).all() else ("1h" if (seconds % 3600 == 0).all() else "5m")


@SLOW
@given(tables)
def test_stream_with_any_bars_equals_batch(frame: pl.DataFrame) -> None:
    interval = interval_of(frame)
    batch = compute(frame, interval=interval, calendar=ALWAYS)
    stream = streamed(StreamEngine(interval, ALWAYS), frame)
    assert differences(batch, stream) == []


@SLOW
@given(tables, st.integers(1, 300), st.randoms())
def test_prefix_and_row_order_with_any_bars_change_nothing(
    frame: pl.DataFrame, cut: int, random: object
) -> None:
    interval = interval_of(frame)
    whole = compute(frame, interval=interval, calendar=ALWAYS)
    end = frame["event_timestamp"].unique().sort()[:cut].max()
    prefix = frame.filter(pl.col("event_timestamp") <= end).sample(fraction=1.0, shuffle=True, seed=cut)
    part = compute(prefix, interval=interval, calendar=ALWAYS)
    assert differences(whole.filter(pl.col("event_timestamp") <= end), part) == []


def test_warm_then_update_with_history_equals_batch() -> None:
    frame = make_bars(4, 900, missing=0.03, late_start=450, seed=5)
    batch = compute(frame, interval="5m", calendar=ALWAYS)
    edge = frame["event_timestamp"].unique().sort()[500]
    engine = StreamEngine("5m", ALWAYS)
    first = engine.warm(frame.filter(pl.col("event_timestamp") <= edge))
    rest = streamed(engine, frame.filter(pl.col("event_timestamp") > edge))
    assert differences(batch, pl.concat([first, rest]).sort("symbol", "event_timestamp")) == []


def test_late_peers_with_deadline_are_stale_in_batch_and_stream() -> None:
    frame = make_bars(4, 400, seed=8)
    late = (pl.col("symbol") == "S1") & (pl.col("event_timestamp").dt.minute() == 25)
    frame = frame.with_columns(
        created_timestamp=pl.when(late)
        .then(pl.col("event_timestamp").dt.offset_by("40s"))
        .otherwise("created_timestamp")
    )
    batch = compute(frame, interval="5m", calendar=ALWAYS)
    engine = StreamEngine("5m", ALWAYS)
    rows = []
    for part in frame.sort("event_timestamp").partition_by("event_timestamp", maintain_order=True):
        prompt = part.filter(pl.col("created_timestamp") == pl.col("event_timestamp"))
        rows.append(engine.update(prompt))
        if prompt.height < part.height:
            rows.append(engine.update(part.filter(pl.col("created_timestamp") > pl.col("event_timestamp"))))
    assert differences(batch, pl.concat(rows).sort("symbol", "event_timestamp")) == []
    prompt_only = compute(
        frame.with_columns(created_timestamp="event_timestamp"), interval="5m", calendar=ALWAYS
    )
    changed = (
        batch.filter(pl.col("symbol") == "S0")["market_return_1"]
        != prompt_only.filter(pl.col("symbol") == "S0")["market_return_1"]
    )
    assert changed.sum() > 0


def test_start_of_history_after_settling_changes_nothing() -> None:
    frame = make_bars(1, 1500, seed=3)
    whole = compute(frame, interval="5m", calendar=ALWAYS)
    later = compute(frame.slice(333), interval="5m", calendar=ALWAYS)
    tail = later.slice(1100)
    from barcast.features import catalogue

    specs = {spec.name: spec for spec in catalogue("5m")}
    found = [
        line
        for line in differences(whole.slice(1433), tail)
        if specs[line.split(":")[0]].settles_bars <= 1100
    ]
    assert found == []


@pytest.mark.parametrize("interval", ["5m", "1d"])
def test_new_york_calendar_with_half_days_streams_as_batch(interval: str) -> None:
    from datetime import UTC, datetime

    calendar = Calendar.of("XNYS")
    closes = calendar.close_times(
        datetime(2023, 11, 20, tzinfo=UTC), datetime(2024, 12, 31, tzinfo=UTC), interval
    )[:420]
    frame = make_bars(2, len(closes), interval, seed=2)
    order = pl.DataFrame({"event_timestamp": frame["event_timestamp"].unique().sort(), "real": closes})
    frame = (
        frame.join(order, on="event_timestamp")
        .with_columns(event_timestamp="real", created_timestamp="real")
        .drop("real")
    )
    batch = compute(frame, interval=interval, calendar=calendar)
    assert differences(batch, streamed(StreamEngine(interval, calendar), frame)) == []


def test_real_bars_with_gap_stream_as_batch(shared_data: object) -> None:
    from datetime import timedelta

    frames = []
    for symbol in ("BTCUSDT", "XRPUSDT", "ADAUSDT"):
        raw = pl.read_parquet(f"{shared_data}/crypto_1m/{symbol}.parquet").slice(
            6000, 900
        )  # holds the gap of 25 April
        close = (pl.col("timestamp") + timedelta(minutes=1)).cast(pl.Datetime("us", "UTC"))
        frames.append(
            raw.select(
                symbol=pl.lit(symbol),
                event_timestamp=close,
                created_timestamp=close,
                open="open",
                high="high",
                low="low",
                close="close",
                volume="volume",
            )
        )
    frame = pl.concat(frames)
    assert frame.sort("event_timestamp")["event_timestamp"].diff().max() > timedelta(hours=4)
    batch = compute(frame, interval="1m", calendar=ALWAYS)
    assert differences(batch, streamed(StreamEngine("1m", ALWAYS), frame)) == []

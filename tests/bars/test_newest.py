"""Table and log read as one: a live bar counts before it is moved, and nothing is missed while it moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast.bars.log import BarLog
from barcast.bars.newest import NewestBars
from barcast.bars.sources.simulator import simulate
from barcast.bars.store import BarStore
from barcast.errors import DataError

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def bars() -> pl.DataFrame:
    return simulate(2, 30, "1h", 3, start=START).sort("event_timestamp", "symbol")


def test_since_gives_what_is_new_in_table_and_log(tmp_path: Path, bars: pl.DataFrame) -> None:
    table = BarStore(tmp_path / "bars", "1h")
    reader = NewestBars(table, tmp_path / "log.sqlite")
    mark, found = reader.since(None, 100)
    assert found.is_empty()
    table.append(bars.head(40))
    mark, found = reader.since(mark, 5)  # the newest five of both symbols
    assert found.height == 10
    assert reader.since(mark, 5)[1].is_empty()
    log = BarLog(tmp_path / "log.sqlite")
    log.append(bars[40:44])
    mark, found = reader.since(mark, 5)
    assert found.sort("event_timestamp", "symbol").equals(bars[40:44])
    log.append(bars[44:46])
    mark, found = reader.since(mark, 5)
    assert found.sort("event_timestamp", "symbol").equals(bars[44:46])
    log.append(bars[46:48])
    log.flush(table)  # a bar that the reader has not met in the log
    mark, found = reader.since(mark, 2)
    assert found["event_timestamp"].max() == bars[47]["event_timestamp"][0]
    assert table.stands_at(mark[0])
    assert not table.stands_at(mark[0] - 1)
    assert not table.stands_at(mark[0] + 1)


def test_since_with_a_correction_in_the_log_gives_the_later_revision(
    tmp_path: Path, bars: pl.DataFrame
) -> None:
    table, log = BarStore(tmp_path / "bars", "1h"), BarLog(tmp_path / "log.sqlite")
    table.append(bars)
    newest = bars.tail(1)
    for factor, hours in ((0.999, 1), (0.998, 2)):
        changed = newest.with_columns(
            pl.col("close", "low") * factor, pl.col("created_timestamp") + timedelta(hours=hours)
        )
        log.append(changed)
    _, found = NewestBars(table, log.path).since(None, 3)
    assert found.height == 6
    same = found.join(newest, on=["symbol", "event_timestamp"], how="semi")
    assert same["close"].item() == pytest.approx(newest["close"].item() * 0.998)


def test_a_flush_is_read_from_its_own_files(tmp_path: Path, bars: pl.DataFrame) -> None:
    table = BarStore(tmp_path / "bars", "1h")
    table.append(bars[:40])
    reader = NewestBars(table, tmp_path / "log.sqlite")
    mark, _ = reader.since(None, 100)
    before = list(table.path.glob("symbol=*/*.parquet"))
    table.append(bars[40:44])
    for file in before:
        file.write_bytes(b"damaged")  # who reads the table now fails
    mark, found = reader.since(mark, 100)
    assert found.sort("event_timestamp", "symbol").equals(bars[40:44])
    with pytest.raises(DataError):
        reader.since(None, 100)


@pytest.mark.parametrize("seed", range(6))
def test_since_followed_through_anything_is_the_table_and_the_log(
    seed: int, tmp_path: Path, bars: pl.DataFrame
) -> None:
    """Appends, corrections, flushes and joined files in any order: who follows knows what who begins anew reads."""
    dice = np.random.default_rng(seed)
    table, log = BarStore(tmp_path / "bars", "1h"), BarLog(tmp_path / "log.sqlite")
    reader, mark, known = NewestBars(table, log.path), None, {}
    parts = bars.partition_by("event_timestamp", maintain_order=True)
    at, moves = 0, ["live", "history", "correct", "flush", "join", "look"]
    for _ in range(25):
        move = dice.choice(moves, p=[0.3, 0.15, 0.15, 0.15, 0.05, 0.2])
        if move in ("live", "history") and at < len(parts):
            (log if move == "live" else table).append(parts[at])
            at += 1
        elif move == "correct" and at:
            wrong = parts[dice.integers(at)]
            later = wrong["created_timestamp"] + timedelta(hours=int(dice.integers(1, 9)))
            changed = wrong.with_columns(later, volume=pl.col("volume") + int(dice.integers(1, 99)))
            (log if dice.random() < 0.5 else table).append(changed)
        elif move == "flush":
            log.flush(table)
        elif move == "join" and table.exists:
            table.compact()
        elif move == "look":
            mark, found = reader.since(mark, 100)
            known |= {(row["symbol"], row["event_timestamp"]): row for row in found.iter_rows(named=True)}
    mark, found = reader.since(mark, 100)
    known |= {(row["symbol"], row["event_timestamp"]): row for row in found.iter_rows(named=True)}
    _, whole = reader.since(None, 100)
    assert known == {(row["symbol"], row["event_timestamp"]): row for row in whole.iter_rows(named=True)}

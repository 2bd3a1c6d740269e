"""The durable log of live bars: nothing lost, nothing doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import polars as pl
import pytest
from deltalake import DeltaTable

from barcast.bars.log import BarLog
from barcast.bars.store import BarStore
from barcast.errors import DataError

from .conftest import one_bar


def test_bars_go_through_the_log_unchanged(tmp_path, hourly):
    log, store = BarLog(tmp_path / "bars.sqlite"), BarStore(tmp_path / "bars", "1h")
    assert log.append(hourly) == len(log) == 600
    assert log.pending().equals(hourly)
    report = log.flush(store)
    assert report is not None
    assert report.added == 600
    assert store.read().equals(hourly)
    assert len(log) == 0
    assert log.flush(store) is None


def test_revisions_of_one_bar_in_one_flush_all_arrive(tmp_path):
    log, store = BarLog(tmp_path / "l.sqlite"), BarStore(tmp_path / "bars", "1h")
    log.append(one_bar(close=10, known_after=1))
    log.append(one_bar(close=11, known_after=2))
    report = log.flush(store)
    assert report is not None
    assert (report.added, report.replaced) == (1, 1)
    assert store.read()["close"].to_list() == [11]
    assert store.corrections()["close"].to_list() == [10]


def test_crash_between_table_and_log_doubles_nothing(tmp_path, hourly):
    log, store = BarLog(tmp_path / "l.sqlite"), BarStore(tmp_path / "bars", "1h")
    log.append(hourly)
    store.append(log.pending())  # the table has them, the log was not emptied
    report = log.flush(store)
    assert report is not None
    assert (report.added, report.unchanged) == (0, 600)
    assert store.read().equals(hourly)


def test_small_files_of_many_flushes_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr("barcast.bars.log.COMPACT_EVERY", 5)
    log, store = BarLog(tmp_path / "l.sqlite"), BarStore(tmp_path / "bars", "1h")
    files = []
    for hour in range(8):
        log.append(one_bar(hour=hour))
        log.flush(store)
        files.append(len(DeltaTable(str(store.path)).file_uris()))
    assert files == [1, 2, 3, 4, 5, 1, 2, 3]  # version 5 is the sixth commit
    assert store.read()["event_timestamp"].n_unique() == 8
    assert store.read(version=4).height == 5


def test_due_by_count_and_by_age(tmp_path):
    log = BarLog(tmp_path / "l.sqlite", flush_bars=2, flush_seconds=0.2)
    assert not log.due()
    log.append(one_bar())
    assert not log.due()
    time.sleep(0.25)
    assert log.due()
    many = BarLog(tmp_path / "m.sqlite", flush_bars=2)
    many.append(one_bar())
    many.append(one_bar(hour=1))
    assert many.due()


def test_bad_bar_is_refused_and_the_rest_stays(tmp_path):
    log = BarLog(tmp_path / "l.sqlite")
    log.append(one_bar())
    with pytest.raises(DataError, match="high_below_low"):
        log.append(one_bar(hour=1).with_columns(high=pl.lit(0.1)))
    assert len(log) == 1


def test_damaged_log_says_what_to_do(tmp_path):
    (tmp_path / "l.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="cannot be used"):
        BarLog(tmp_path / "l.sqlite")


def test_threads_append_while_another_flushes(tmp_path):
    log, store = BarLog(tmp_path / "l.sqlite"), BarStore(tmp_path / "bars", "1h")

    def write(name: str) -> None:
        for hour in range(15):
            log.append(one_bar(name, hour))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("A", "B")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.flush(store)
    log.flush(store)
    assert dict(store.read().group_by("symbol").len().iter_rows()) == {"A": 15, "B": 15}


WRITER = """
import sys
from datetime import UTC, datetime, timedelta
import polars as pl
from barcast.bars.log import BarLog

log, hour = BarLog(sys.argv[1]), 0
while True:
    row = {"symbol": "X", "event_timestamp": datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=hour)}
    row |= {name: 1.0 for name in ("open", "high", "low", "close", "volume")}
    log.append(pl.DataFrame([row]))
    print(hour, flush=True)
    hour += 1
"""


def test_killed_writer_loses_no_acknowledged_bar(tmp_path):
    path = tmp_path / "l.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    said += writer.stdout.read().splitlines(keepends=True)
    writer.wait(10)
    acknowledged = sum(1 for line in said if line.endswith("\n"))
    log = BarLog(path)
    assert acknowledged <= len(log) <= acknowledged + 1
    hours = log.pending()["event_timestamp"].diff().drop_nulls().dt.total_hours()
    assert (hours == 1).all()

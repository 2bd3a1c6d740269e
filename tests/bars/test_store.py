"""The bar store: idempotent, order-free, recording what changes, never filling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import deltalake
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barcast import clock
from barcast.bars import Calendar
from barcast.bars.sources.simulator import simulate
from barcast.bars.splits import restate
from barcast.bars.store import BarStore
from barcast.errors import DataError

from .conftest import one_bar


def test_append_twice_adds_nothing_and_keeps_the_version(tmp_path, sample):
    store = BarStore(tmp_path / "bars", "1d")
    first = store.append(sample)
    second = store.append(sample)
    assert (first.added, second.added, second.unchanged) == (12154, 0, 12154)
    assert first.version == second.version
    assert store.read().equals(sample)


def test_corrected_bar_replaces_and_earlier_stays_for_as_of(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    early, late = one_bar(close=10, known_after=1), one_bar(close=12, known_after=60)
    store.append(early)
    assert store.append(late).replaced == 1
    assert store.read()["close"].to_list() == [12]
    start = early["event_timestamp"][0]
    assert store.read(as_of=start + timedelta(seconds=30))["close"].to_list() == [10]
    assert store.read(as_of=start + timedelta(seconds=90))["close"].to_list() == [12]
    assert store.read(as_of=start)["close"].to_list() == []
    assert store.corrections()["close"].to_list() == [10]
    assert store.corrections()["superseded_timestamp"][0] == late["created_timestamp"][0]


def test_earlier_version_reads_as_it_was(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    version = store.append(one_bar(close=10)).version
    digest = store.content_hash()
    store.append(one_bar(close=11, known_after=5))
    assert store.read(version=version)["close"].to_list() == [10]
    assert store.content_hash(version=version) == digest != store.content_hash()


def test_contradiction_without_own_time_counts_as_known_now(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    store.append(one_bar(close=10))
    now = datetime(2024, 5, 1, tzinfo=UTC)
    with clock.fixed(now):
        assert store.append(one_bar(close=11)).replaced == 1
    assert store.read()["created_timestamp"][0] == now
    assert store.append(one_bar(close=11)).unchanged == 1
    assert (
        store.append(one_bar(close=10)).unchanged == 1
    )  # the first file again: its revision is known already
    assert store.read()["close"].to_list() == [11]


def test_late_bars_are_counted_and_gaps_reported_not_filled(tmp_path, hourly):
    store = BarStore(tmp_path / "bars", "1h", calendar=Calendar.of("24/7"))
    one = hourly.filter(pl.col("symbol") == "SIM0000")
    store.append(one.head(10))
    report = store.append(one.slice(20, 10))
    assert report.gaps["missing_bars"].to_list() == [10]
    assert store.read().height == 20
    late = store.append(one.slice(12, 3))
    assert (late.added, late.late) == (3, 3)
    assert late.gaps["missing_bars"].to_list() == [2, 5]


revisions = st.lists(
    st.tuples(st.sampled_from(["A", "B/C"]), st.integers(0, 4), st.integers(0, 5)),
    min_size=1,
    max_size=12,
    unique=True,
)


def _bars(items: list[tuple[str, int, int]]) -> pl.DataFrame:
    """One revision each; its values follow from when it was known."""
    return pl.concat([one_bar(s, h, close=10.0 + k, known_after=float(k)) for s, h, k in items])


def _batches(items: list[tuple[str, int, int]]) -> list[pl.DataFrame]:
    """Batches in the order given; a batch has one revision of a bar."""
    batches: list[list[tuple[str, int, int]]] = []
    for item in items:
        fits = next((b for b in batches[-1:] if all(x[:2] != item[:2] for x in b)), None)
        if fits is None:
            batches.append([item])
        else:
            fits.append(item)
    return [_bars(batch) for batch in batches]


def _all(store: BarStore) -> pl.DataFrame:
    return pl.concat([store.read(), store.corrections().drop("superseded_timestamp")]).sort(pl.all())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=revisions, data=st.data())
def test_any_order_and_duplication_of_batches_gives_the_same_table(tmp_path_factory, items, data):
    shuffled = data.draw(st.permutations([*items, *items[: len(items) // 2]]))
    tables = []
    for order in (items, shuffled):
        store = BarStore(tmp_path_factory.mktemp("s") / "bars", "1h")
        for batch in _batches(list(order)):
            store.append(batch)
        tables.append((store.read(), _all(store), store.content_hash()))
    assert tables[0][0].equals(tables[1][0])
    assert tables[0][1].equals(tables[1][1])
    assert tables[0][2] == tables[1][2]
    newest = {(s, h): max(k for s2, h2, k in items if (s2, h2) == (s, h)) for s, h, _ in items}
    assert sorted(tables[0][0]["close"]) == sorted(10.0 + k for k in newest.values())


WRITER = """
import sys
from datetime import UTC, datetime, timedelta
import polars as pl
from barcast.bars.store import BarStore

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = BarStore(path, "1h")
for hour in range(count):
    for symbol in (name, "SHARED"):
        t = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        row = {"symbol": symbol, "event_timestamp": t}
        row |= {name: 1.0 for name in ("open", "high", "low", "close", "volume")}
        store.append(pl.DataFrame([row]))
"""


def test_concurrent_appends_of_processes_lose_and_double_nothing(tmp_path):
    path = str(tmp_path / "bars")
    workers = [subprocess.Popen([sys.executable, "-c", WRITER, path, f"P{i}", "6"]) for i in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    counts = dict(BarStore(path, "1h").read().group_by("symbol").len().iter_rows())
    assert counts == {"P0": 6, "P1": 6, "P2": 6, "SHARED": 6}


def test_live_split_restates_history_and_records_it(tmp_path, hourly):
    store = BarStore(tmp_path / "bars", "1h")
    one = hourly.filter(pl.col("symbol") == "SIM0000")
    store.append(one)
    effective = one["event_timestamp"][-1] + timedelta(minutes=1)
    restated = restate(
        store.read(), symbol="SIM0000", split_ratio=2.0, effective=effective, known_at=effective
    )
    report = store.append(restated, origin="split")
    assert report.replaced == one.height
    now = store.read()
    assert now["close"].equals(one["close"])
    assert set(now["price_factor"]) == {0.5}
    assert set(now["volume_factor"]) == {2.0}
    assert store.read(as_of=effective - timedelta(seconds=1)).equals(one)
    assert store.corrections().height == one.height


def test_history_names_origin_and_counts(tmp_path, hourly):
    store = BarStore(tmp_path / "bars", "1h")
    store.append(hourly, origin="simulator")
    entry = store.history()[0]
    assert (entry["version"], entry["origin"], entry["added"]) == (0, "simulator", "600")


def test_append_after_everything_reads_no_file(tmp_path, hourly):
    store = BarStore(tmp_path / "bars", "1h", calendar=Calendar.of("24/7"))
    newest = hourly["event_timestamp"].max()
    store.append(hourly.filter(pl.col("event_timestamp") < newest - timedelta(hours=2)))
    for file in store.path.glob("symbol=*/*.parquet"):
        file.write_bytes(b"damaged")
    report = store.append(hourly.filter(pl.col("event_timestamp") == newest))
    symbols = hourly["symbol"].n_unique()
    assert (report.added, report.late) == (symbols, 0)
    assert report.gaps["missing_bars"].to_list() == [2] * symbols  # of the bars left out
    with pytest.raises(DataError):
        store.append(hourly.filter(pl.col("event_timestamp") == newest - timedelta(hours=1)))


@pytest.mark.parametrize("seed", range(4))
def test_a_store_that_remembers_reports_and_keeps_what_a_new_one_does(tmp_path, seed):
    """Batches in and out of order, corrections, another writer: the same reports, gaps and table."""
    dice = np.random.default_rng(seed)
    bars = simulate(3, 30, "1h", seed, start=datetime(2024, 1, 1, tzinfo=UTC))
    times = bars["event_timestamp"].unique().sort()
    remembers = BarStore(tmp_path / "a", "1h", calendar=Calendar.of("24/7"))
    at = 0
    for _ in range(14):
        at = min(len(times) - 1, at + int(dice.integers(0, 4)))
        close = times[at] if dice.random() < 0.7 else times[int(dice.integers(at + 1))]
        batch = bars.filter(pl.col("event_timestamp") == close).sample(int(dice.integers(1, 4)), seed=at)
        if dice.random() < 0.3:
            later = pl.col("created_timestamp") + timedelta(minutes=int(dice.integers(1, 50)))
            batch = batch.with_columns(later, volume=pl.col("volume") + int(dice.integers(1, 9)))
        new = BarStore(tmp_path / "b", "1h", calendar=Calendar.of("24/7"))
        one, other = ((BarStore(tmp_path / "a", "1h") if dice.random() < 0.2 else remembers), new)
        first, second = one.append(batch), other.append(batch)
        assert first.summary() | {"missing_bars": 0} == second.summary() | {"missing_bars": 0}
        if one is remembers:
            assert first.gaps.equals(second.gaps)
    assert remembers.read().equals(BarStore(tmp_path / "b", "1h").read())
    assert remembers.corrections().equals(BarStore(tmp_path / "b", "1h").corrections())


def test_compact_keeps_content_and_old_versions(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    for hour in range(4):
        store.append(one_bar(hour=hour))
    digest, old = store.content_hash(), store.read(version=1)
    assert store.compact() == 4
    assert store.content_hash() == digest
    assert store.read(version=1).equals(old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"high": 1.0}, "high_below_low"),
        ({"volume": -1.0}, "volume_negative"),
        ({"close": float("nan")}, "missing_value"),
        ({"open": 0.0}, "price_not_positive"),
        ({"price_factor": float("inf")}, "infinite_value"),
        ({"event_timestamp": datetime(2124, 1, 1, tzinfo=UTC)}, "from_the_future|known_before_close"),
    ],
)
def test_append_of_a_bad_bar_stores_nothing(tmp_path, hourly, change, message):
    store = BarStore(tmp_path / "bars", "1h")
    row = pl.int_range(pl.len()) == 7
    bad = hourly.with_columns(
        pl.when(row).then(pl.lit(value)).otherwise(name).cast(hourly.schema[name]).alias(name)
        for name, value in change.items()
    )
    with pytest.raises(DataError, match=message):
        store.append(bad)
    assert not store.exists


def test_append_with_duplicate_keys_refused(tmp_path, hourly):
    with pytest.raises(DataError, match="share a symbol and a close time"):
        BarStore(tmp_path / "bars", "1h").append(pl.concat([hourly, hourly.head(1)]))


def test_other_interval_refused_on_append_and_open(tmp_path, sample, hourly):
    store = BarStore(tmp_path / "bars", "1d")
    with pytest.raises(DataError, match="do not belong in a table of 1d"):
        store.append(hourly)
    store.append(sample.head(10))
    with pytest.raises(DataError, match="holds bars of 1d"):
        BarStore(tmp_path / "bars", "1h").read()


def test_short_last_bars_of_sessions_belong_in_the_table(tmp_path):
    store = BarStore(tmp_path / "bars", "1h", calendar=Calendar.of("XNYS"))
    assert store.append(pl.concat([one_bar(hour=44.5), one_bar(hour=45)])).added == 2  # 20:30 and 21:00
    with pytest.raises(DataError, match="do not belong in a table of 1h"):
        store.append(pl.concat([one_bar(hour=44), one_bar(hour=44.5)]))


def test_missing_table_unknown_symbol_unknown_version_say_what_to_do(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    with pytest.raises(DataError, match="barcast ingest"):
        store.read()
    store.append(one_bar("BTC/USDT"))
    with pytest.raises(DataError, match="Did you mean 'BTC/USDT'"):
        store.read(["BTC/USD"])
    with pytest.raises(DataError, match="no readable version 9"):
        store.read(version=9)


def test_damaged_file_is_named_and_not_read_as_data(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    store.append(one_bar("BTC/USDT"))
    file = next((tmp_path / "bars").rglob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[:100])
    with pytest.raises(DataError, match="has 100 bytes instead of"):
        store.read()
    file.write_bytes(bytes(len(content)))
    with pytest.raises(DataError, match="cannot be read"):
        store.read()
    file.unlink()
    with pytest.raises(DataError, match="is missing"):
        store.read()


def test_latest_gives_the_last_bars_of_each_symbol(tmp_path, hourly):
    store = BarStore(tmp_path / "bars", "1h")
    store.append(hourly)
    latest = store.latest(["SIM0001", "SIM0002"], 2)
    assert latest.equals(
        hourly.filter(pl.col("symbol") != "SIM0000").group_by("symbol", maintain_order=True).tail(2)
    )
    assert store.last_timestamps()["SIM0000"] == hourly["event_timestamp"].max()


def test_times_without_a_zone_are_refused(tmp_path):
    store = BarStore(tmp_path / "bars", "1h")
    store.append(one_bar())
    with pytest.raises(DataError, match="as_of is 2024-01-01 00:00:00 without a time zone"):
        store.read(as_of=datetime(2024, 1, 1))


FULL = """
import sys
from barcast.bars.sources.simulator import simulate
from barcast.bars.store import BarStore
from barcast.errors import DataError
import polars as pl, resource, signal

store = BarStore(sys.argv[1], "1h")
bars = simulate(2, 3000, "1h", seed=1)
store.append(bars.head(100))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may grow beyond: like a full disk
try:
    store.append(bars.slice(100))
except DataError as error:
    assert "cannot be written" in str(error), error
    print("refused", store.version, store.read().height)
"""


def test_full_disk_is_an_error_and_the_table_stays(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "bars")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["refused", "0", "100"], done.stderr
    assert BarStore(tmp_path / "bars", "1h").read().height == 100


APPENDER = """
import sys
from barcast.bars.sources.simulator import simulate
from barcast.bars.store import BarStore

store, bars = BarStore(sys.argv[1], "1h"), simulate(1, 3000, "1h", seed=1)
start = store.read().height if store.exists else 0
print("ready", flush=True)
for at in range(start, 3000, 10):
    store.append(bars.slice(at, 10))
"""


@pytest.mark.slow
def test_killed_appends_leave_whole_batches_and_go_on(tmp_path):
    path = tmp_path / "bars"
    truth = simulate(1, 3000, "1h", seed=1)
    for round_ in range(12):
        worker = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.05 + 0.07 * round_)
        worker.kill()
        worker.wait()
        if BarStore(path, "1h").exists:
            have = BarStore(path, "1h").read()
            assert have.height % 10 == 0
            assert have.equals(truth.head(have.height))
    assert BarStore(path, "1h").read().height > 0


def test_restated_factors_keep_the_time_at_which_the_prices_were_known(tmp_path):
    store = BarStore(tmp_path / "bars", "5m")
    bars = simulate(2, 20, "5m", 3)
    store.append(bars)
    times = bars["event_timestamp"].unique().sort()
    known = times[-1] + timedelta(hours=1)
    mine = store.read(["SIM0000"])
    store.append(restate(mine, symbol="SIM0000", split_ratio=2.0, effective=times[10], known_at=known))
    found = store.read()
    assert found["created_timestamp"].equals(bars.sort("symbol", "event_timestamp")["created_timestamp"])
    halved = found.filter(pl.col("price_factor") == 0.5)
    assert halved.height == 10
    assert store.read(as_of=known - timedelta(seconds=1)).filter(pl.col("price_factor") != 1).height == 0
    late = mine.head(1).with_columns(pl.col("close") * 1.0001, created_timestamp=known + timedelta(hours=1))
    late = late.with_columns(high=pl.max_horizontal("high", "close"), price_factor=0.5, volume_factor=2.0)
    store.append(late)
    assert store.read(["SIM0000"])["created_timestamp"][0] == known + timedelta(hours=1)


def _made_older(store, days):
    """As if the table's files had been replaced and written so many days earlier."""
    for file in (store.path / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in file.read_text().splitlines()]
        for action in actions:
            if "remove" in action:
                action["remove"]["deletionTimestamp"] -= days * 86_400_000
        file.write_text("\n".join(map(json.dumps, actions)))
    for file in store.path.rglob("*.parquet"):
        os.utime(file, (file.stat().st_mtime - days * 86_400,) * 2)


@pytest.mark.parametrize("forgotten", [False, True])
def test_files_that_only_old_versions_need_are_deleted_after_a_week(tmp_path, forgotten):
    store = BarStore(tmp_path / "bars", "1h")
    for hour in range(4):
        store.append(one_bar(hour=hour))
    store.append(one_bar(hour=1, close=11, known_after=5))
    store.compact()
    bars, corrected = store.read(), store.corrections()
    _made_older(store, 6)
    store.compact()
    assert store.read(version=3).height == 4
    _made_older(store, 2)
    if forgotten:  # a checkpoint of Delta's log names old files no more
        deltalake.DeltaTable(str(store.path)).create_checkpoint()
    store.append(one_bar(hour=9))
    store.compact(whole=forgotten)
    assert (
        len(list(store.path.rglob("part-*.parquet"))) == 3
    )  # the first joining's, the new bar's, and both joined
    assert store.read(end=bars["event_timestamp"].max()).equals(bars)
    assert store.corrections().equals(corrected)
    assert store.read(as_of=bars["event_timestamp"].max()).height == 4
    with pytest.raises(DataError, match=r"Version 3 .* deleted after a week") as refused:
        store.read(version=3)
    assert "as_of" in refused.value.hint

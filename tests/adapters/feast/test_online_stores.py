"""The packed SQLite online store: what Feast expects of a store, and what several writers may do to it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast_world import LOOKBACK, NAMES, START, STEP, make_features, windows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barcast.adapters import feast_online
from barcast.adapters.feast import FeatureStore
from barcast.adapters.feast_online import Value

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast warns of its own alpha features


def write(
    store: FeatureStore, symbol: str, event: datetime, created: datetime | None, **values: float
) -> None:
    record = (
        feast_online.entity_key(symbol),
        {n: Value(float_val=v) for n, v in values.items()},
        event,
        created,
    )
    store.provider.online_write_batch(store.repo, store.definitions.rows[0], [record], None)


def read(store: FeatureStore, symbol: str) -> tuple[datetime | None, dict[str, float]]:
    view = store.definitions.rows[0]
    [(time, values)] = store.provider.online_read(store.repo, view, [feast_online.entity_key(symbol)], None)
    return time, {n: v.float_val for n, v in (values or {}).items()}


moment = st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 5)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(moment, min_size=1, max_size=8))
def test_of_many_writes_in_any_order_the_newest_stays(
    store: FeatureStore, writes: list[tuple[int, int | None]]
) -> None:
    """By event time, then created time (unknown counts as the event's), then the last written."""
    symbol = f"S{id(writes)}-{len(writes)}-{hash(tuple(writes))}"
    for number, (event, created) in enumerate(writes):
        known = None if created is None else START + timedelta(minutes=created)
        write(store, symbol, START + timedelta(minutes=event), known, f00=number)
    ranked = [(e, e if c is None else c, n) for n, (e, c) in enumerate(writes)]
    event, _, number = max(ranked)
    assert read(store, symbol) == (START + timedelta(minutes=event), {"f00": number})


def test_a_partial_row_changes_the_named_features_only(store: FeatureStore) -> None:
    write(store, "AAA", START, START, f00=1, f01=2)
    write(store, "AAA", START + STEP, START + STEP, f01=3)
    assert read(store, "AAA") == (START + STEP, {"f00": 1, "f01": 3})
    write(store, "AAA", START, START, f00=9)
    assert read(store, "AAA") == (START + STEP, {"f00": 1, "f01": 3})


@pytest.mark.slow
def test_times_keep_microseconds_in_every_local_time_zone(tmp_path: Path) -> None:
    """Feast's SQLite store loses microseconds, and an hour where local time jumps."""
    code = f"""
import os, sys, time
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]!r}
os.environ["TZ"] = "America/New_York"; time.tzset()
from datetime import UTC, datetime
from feast_world import CROSS, NAMES, make_config, make_features, windows_of
from barcast.adapters.feast import FeatureStore
from barcast.workspace import Workspace
store = FeatureStore(Workspace("small", {str(tmp_path)!r}), make_config(), NAMES, cross_symbol=CROSS)
store.apply()
end = datetime(2024, 3, 10, 2, 30, 0, 123456, tzinfo=UTC)  # 02:30 that night is no New York time
features = make_features(["AAA"], 6, start=end - 5 * (end - end.replace(minute=25)))
store.push(features.tail(1), windows_of(features, ["AAA"]))
assert store.online(["AAA"], as_of=end)["AAA"].event_timestamp == end
assert store.online_rows(["AAA"])["event_timestamp"].item() == end
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readers_beside_a_writer_see_whole_windows_and_time_never_goes_back(store: FeatureStore) -> None:
    features = make_features(["AAA"], 120)
    values = features.select(NAMES).to_numpy()
    times = features["event_timestamp"].to_list()
    known = {t: values[i + 1 - LOOKBACK : i + 1] for i, t in enumerate(times) if i + 1 >= LOOKBACK}
    store.push(features[LOOKBACK - 1 : LOOKBACK], values[None, :LOOKBACK])
    failures: list[str] = []
    done = threading.Event()

    def look() -> None:
        last = datetime(1970, 1, 1, tzinfo=UTC)
        while not done.is_set():
            try:
                found = store.online(["AAA"], as_of=times[0])["AAA"]
            except Exception as error:  # whatever it is, the test must tell
                failures.append(repr(error))
                return
            if found.event_timestamp < last or not np.array_equal(found.window, known[found.event_timestamp]):
                failures.append(f"{found.event_timestamp} after {last}")
            last = found.event_timestamp

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(LOOKBACK, 120):
        store.push(features[i : i + 1], values[None, i + 1 - LOOKBACK : i + 1])
    done.set()
    for reader in readers:
        reader.join()
    assert not failures


@pytest.mark.slow
def test_two_processes_write_and_both_rows_stay(store: FeatureStore) -> None:
    """Another process pushes another symbol meanwhile: no lock error, nothing lost."""
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[2] / "support")]!r}
from pathlib import Path
from feast_world import *
from barcast.adapters.feast import FeatureStore
from barcast.workspace import Workspace
store = FeatureStore(Workspace("small", Path({str(store.workspace.base)!r})), make_config(), NAMES, cross_symbol=CROSS)
features = make_features(["other"], 60)
for i in range(6, 61):
    store.push(features[i - 1 : i], features[i - 6 : i].select(NAMES).to_numpy()[None])
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stderr=subprocess.PIPE, text=True
    )
    features = make_features(["AAA"], 60)
    while process.poll() is None:
        for i in range(LOOKBACK, 61):
            store.push(features[i - 1 : i], features[i - LOOKBACK : i].select(NAMES).to_numpy()[None])
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    found = store.online(["AAA", "other"], as_of=START + 59 * STEP)
    assert {o.event_timestamp for o in found.values()} == {START + 59 * STEP}


def test_the_log_is_carried_into_the_database_while_writing(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from barcast.adapters import feast_sqlite

    monkeypatch.setattr(feast_sqlite, "_CHECKPOINT_BYTES", 20_000)
    features = make_features(["AAA"], 200)
    for i in range(LOOKBACK, 200):
        store.push(features[i - 1 : i], features[i - LOOKBACK : i].select(NAMES).to_numpy()[None])
    for thread in threading.enumerate():
        if thread.name == "online-store-checkpoint":
            thread.join()
    path = store.workspace.feast / "online.db"
    alone = path.with_name("copy.db")
    alone.write_bytes(path.read_bytes())  # the database without its log
    tables = {name for (name,) in sqlite3.connect(alone).execute("SELECT name FROM sqlite_master")}
    assert "small_bar_windows" in tables
    [(count,)] = sqlite3.connect(alone).execute("SELECT count(*) FROM small_bar_windows")
    assert count == 1


def test_a_failed_write_leaves_nothing_behind(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(["AAA", "BBB"], LOOKBACK)
    rows = features.group_by("symbol", maintain_order=True).tail(1)
    key = feast_online.entity_key

    def fail(symbol: str) -> Any:
        if symbol == "BBB":
            raise OSError("no more")
        return key(symbol)

    monkeypatch.setattr(feast_online, "entity_key", fail)
    with pytest.raises(OSError, match="no more"):
        store.push(rows, windows_of(features, ["AAA", "BBB"]))
    monkeypatch.undo()
    assert store.online(["AAA", "BBB"], strict=False) == {}
    store.push(rows, windows_of(features, ["AAA", "BBB"]))  # no transaction is left open
    assert len(store.online(["AAA", "BBB"], as_of=START + 5 * STEP)) == 2


def test_a_view_that_goes_takes_its_rows_with_it(store: FeatureStore) -> None:
    features = make_features(["AAA"], LOOKBACK)
    store.push(features.tail(1), windows_of(features, ["AAA"]))
    again = FeatureStore(store.workspace, store.config, NAMES)  # no cross-symbol view
    gone = store.feast.get_feature_view("cross_symbol_features")
    again.feast.apply([gone], objects_to_delete=[gone], partial=False)
    tables = sqlite3.connect(store.workspace.feast / "online.db").execute("SELECT name FROM sqlite_master")
    assert "small_cross_symbol_features" not in {name for (name,) in tables}

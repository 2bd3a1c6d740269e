"""The Polars offline store answers as Feast's own DuckDB store does."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import FeatureStore as Feast
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast_world import NAMES, make_config, make_features
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offline_world import START, make_store, write_rows

from barcast.adapters.feast import FeatureStore
from barcast.adapters.polars_offline_store import TYPE, PolarsOfflineStore, known_at
from barcast.errors import DataError
from barcast.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast warns of its own alpha features and of pandas

SYMBOLS = ["A", "B", "C/USDT"]


def ask(store: Feast, entities: pd.DataFrame, features: Any, **options: Any) -> pd.DataFrame:
    """A retrieval, in the order of the entity rows."""
    found = store.get_historical_features(entity_df=entities.copy(), features=features, **options).to_df()
    return found.sort_values("position").reset_index(drop=True)


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Equal values by column; integer columns with nulls come as floats on either side."""
    assert list(ours.columns) == list(theirs.columns)
    for name in ours.columns:
        left, right = ours[name], theirs[name]
        if name == "event_timestamp":
            left, right = pd.to_datetime(left, utc=True), pd.to_datetime(right, utc=True)
        if pd.api.types.is_numeric_dtype(left):
            left, right = left.astype("float64"), right.astype("float64")
        pd.testing.assert_series_equal(left, right, check_dtype=False)


minute = st.integers(0, 40)
a_row = st.tuples(st.sampled_from(SYMBOLS), minute, st.one_of(st.none(), st.integers(-5, 60)))
an_entity = st.tuples(st.sampled_from([*SYMBOLS, "missing"]), minute)


def distinct(rows: list[tuple[str, int, int | None]]) -> list[tuple[str, datetime, datetime | None]]:
    """Without full ties: among those Feast's stores pick any."""
    kept = {}
    for symbol, event, created in rows:
        kept[symbol, event, created] = None
    return [
        (s, START + timedelta(minutes=e), None if c is None else START + timedelta(minutes=c))
        for s, e, c in kept
    ]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(a_row, min_size=1, max_size=40),
    others=st.lists(a_row, min_size=1, max_size=10),
    entities=st.lists(an_entity, min_size=1, max_size=25),
    ttl=st.sampled_from([0, 1, 5, 30]),
    known=st.booleans(),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "naive"]),
    full=st.booleans(),
)
def test_historical_features_with_random_rows_equal_duckdb(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    others: list[Any],
    entities: list[Any],
    ttl: int,
    known: bool,
    zone: str,
    full: bool,
) -> None:
    folder = tmp_path_factory.mktemp("case")
    write_rows(folder / "rows.parquet", distinct(rows))
    write_rows(folder / "other.parquet", distinct(others), "c")
    times = pd.Series([START + timedelta(minutes=e) for _, e in entities])
    times = times.dt.tz_localize(None) if zone == "naive" else times.dt.tz_convert(zone)
    frame = pd.DataFrame(
        {"position": range(len(entities)), "symbol": [s for s, _ in entities], "event_timestamp": times}
    )
    answers = []
    for offline in (TYPE, "duckdb"):
        store = make_store(folder, offline, timedelta(minutes=ttl), several=True)
        service = store.get_feature_service("all")
        answers.append(ask(store, frame, service, filter_by_created_timestamp=known, full_feature_names=full))
    assert_same(*answers)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(a_row, min_size=1, max_size=40), start=minute, length=minute)
def test_pulls_with_random_rows_equal_duckdb(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], start: int, length: int
) -> None:
    folder = tmp_path_factory.mktemp("case")
    write_rows(folder / "rows.parquet", distinct(rows))
    first = START + timedelta(minutes=start)
    answers = []
    for offline, kind in ((TYPE, PolarsOfflineStore), ("duckdb", DuckDBOfflineStore)):
        store = make_store(folder, offline, timedelta(0))
        source = store.get_feature_view("rows").batch_source
        for pull in (kind.pull_latest_from_table_or_query, kind.pull_all_from_table_or_query):
            job = pull(
                store.config,
                source,
                ["symbol"],
                ["a", "n"],
                "event_timestamp",
                "created_timestamp",
                first,
                first + timedelta(minutes=length),
            )
            answers.append(job.to_df().sort_values("n").reset_index(drop=True))
    for ours, theirs in zip(answers[:2], answers[2:], strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)


def test_historical_features_with_hand_made_cases_give_known_rows(tmp_path: Path) -> None:
    """TTL edges, ties, late rows, missing entities, duplicates, any order: the answer is known beforehand."""
    at = [START + timedelta(minutes=m) for m in range(60)]
    write_rows(
        tmp_path / "rows.parquet",
        [
            ("A", at[10], at[10]),  # 0
            ("A", at[20], at[20]),  # 1
            ("A", at[20], at[50]),  # 2: a correction of 1, known much later
            ("A", at[15], at[55]),  # 3: a late row
            ("B", at[10], None),  # 4: created unknown
        ],
    )
    store = make_store(tmp_path, TYPE, timedelta(minutes=5))
    cases = [
        ("A", at[9], None, None),  # before the first
        ("A", at[10], 0, 0),  # on the row's own time
        ("A", at[15], 3, 0),  # the late row answers; known then: row 0, exactly at its TTL
        ("A", at[15] + timedelta(microseconds=1), 3, None),  # a microsecond past the TTL of row 0
        ("A", at[20], 2, 1),  # the later created of a tie; known then: the earlier
        ("A", at[26], None, None),  # past the TTL
        ("B", at[12], 4, None),  # without created time: unknown when it was known
        ("missing", at[12], None, None),
        ("A", at[10], 0, 0),  # a duplicate, out of order
    ]
    frame = pd.DataFrame(
        {
            "position": range(len(cases)),
            "symbol": [c[0] for c in cases],
            "event_timestamp": [c[1] for c in cases],
            "kept": ["as it is"] * len(cases),
        }
    )
    for column, known in ((2, False), (3, True)):
        job = store.get_historical_features(
            entity_df=frame.copy(), features=["rows:n"], filter_by_created_timestamp=known
        )
        found = job.to_polars()
        assert found["n"].to_list() == [c[column] for c in cases]
        assert found["position"].to_list() == list(range(len(cases)))
        assert found.columns == ["position", "symbol", "event_timestamp", "kept", "n"]


def test_known_at_with_a_past_moment_reproduces_the_past(tmp_path: Path) -> None:
    late = START + timedelta(hours=1)
    write_rows(tmp_path / "rows.parquet", [("A", START, START), ("A", START, late)])
    store = make_store(tmp_path, TYPE, timedelta(0))
    frame = pd.DataFrame({"position": [0], "symbol": ["A"], "event_timestamp": [late]})
    with known_at(late - timedelta(seconds=1)):
        job = store.get_historical_features(entity_df=frame, features=["rows:n"])
    assert job.to_polars()["n"].to_list() == [0]  # asked for inside, read outside
    assert ask(store, frame, ["rows:n"])["n"].to_list() == [1]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", None])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_source_times_in_any_zone_and_unit_are_the_same_moments(
    tmp_path: Path, zone: str | None, unit: Any
) -> None:
    times = pl.Series([START, START + timedelta(minutes=1)], dtype=pl.Datetime("us", "UTC"))
    shown = times.dt.cast_time_unit(unit)
    shown = shown.dt.replace_time_zone(None) if zone is None else shown.dt.convert_time_zone(zone)
    pl.DataFrame(
        {
            "symbol": ["A", "A"],
            "event_timestamp": shown,
            "created_timestamp": shown,
            "a": [0.0, 1.0],
            "n": [0, 1],
        }
    ).write_parquet(tmp_path / "rows.parquet")
    store = make_store(tmp_path, TYPE, timedelta(seconds=30))
    local = (START + timedelta(minutes=1)).astimezone(ZoneInfo("Asia/Tokyo"))
    frame = pd.DataFrame(
        {"position": [0, 1], "symbol": ["A", "A"], "event_timestamp": [local, local + timedelta(minutes=1)]}
    )
    assert ask(store, frame, ["rows:n"])["n"].fillna(-1).to_list() == [1, -1]


def test_rows_in_many_files_and_row_groups_are_found_by_number(tmp_path: Path) -> None:
    """A folder of files, written in any order of keys, answers as one table."""
    rows = [
        (s, START + timedelta(minutes=m), START + timedelta(minutes=m)) for m in range(40) for s in SYMBOLS
    ]
    folder = tmp_path / "rows.parquet"
    folder.mkdir()
    write_rows(tmp_path / "whole.parquet", rows)
    whole = pl.read_parquet(tmp_path / "whole.parquet")
    for i, part in enumerate(whole.iter_slices(17)):
        part.write_parquet(folder / f"part-{i:03d}.parquet", row_group_size=5)
    store = make_store(tmp_path, TYPE, timedelta(seconds=1))
    entities = whole.select("symbol", "event_timestamp", expected="n").sample(
        fraction=1, shuffle=True, seed=3
    )
    found = store.get_historical_features(
        entity_df=entities.to_pandas(), features=["rows:n", "rows:a"]
    ).to_polars()
    assert found["n"].to_list() == entities["expected"].to_list()
    assert found["a"].to_list() == [float(n) for n in entities["expected"]]


@pytest.mark.parametrize("lacking", [("a", ()), ((), "a")])
def test_a_column_absent_from_a_file_is_null_there(tmp_path: Path, lacking: tuple[Any, Any]) -> None:
    folder = tmp_path / "rows.parquet"
    folder.mkdir()
    write_rows(tmp_path / "whole.parquet", [("A", START, START), ("A", START + timedelta(minutes=1), START)])
    whole = pl.read_parquet(tmp_path / "whole.parquet")
    whole[:1].drop(lacking[0]).write_parquet(folder / "part-0.parquet")
    whole[1:].drop(lacking[1]).write_parquet(folder / "part-1.parquet")
    store = make_store(tmp_path, TYPE, timedelta(0))
    frame = pd.DataFrame(
        {"position": [0, 1], "symbol": ["A", "A"], "event_timestamp": [START, START + timedelta(minutes=1)]}
    )
    found = ask(store, frame, ["rows:n", "rows:a"])
    assert found["n"].to_list() == [0, 1]
    assert found["a"].isna().to_list() == [lacking[0] == "a", lacking[1] == "a"]


def test_a_new_feature_in_an_old_workspace_is_null_until_it_is_written(tmp_path: Path) -> None:
    """A generation grows: rows written before read as null in the new column, whatever is read first."""
    config = make_config(workspace="growing")
    features = make_features(["AAA"], 4)
    before = FeatureStore(Workspace("growing", tmp_path), config, NAMES[:-1])
    before.apply()
    before.write_offline(features.drop(NAMES[-1]))
    after = FeatureStore(Workspace("growing", tmp_path), config, NAMES)
    after.apply()
    keys = features.select("symbol", "event_timestamp")
    assert after.training_rows(keys)[NAMES[-1]].null_count() == 4
    assert after.write_offline(features[2:]) == 2
    found = after.training_rows(keys)
    assert found[NAMES[-1]].to_list() == [None, None, *features[NAMES[-1]][2:]]
    assert found[NAMES[0]].to_list() == features[NAMES[0]].to_list()


def test_retrieval_without_entities_gives_all_keys_between_the_dates(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [("A", START + timedelta(minutes=m), START) for m in range(10)])
    store = make_store(tmp_path, TYPE, timedelta(0))
    found = store.get_historical_features(
        features=["rows:n"], start_date=START + timedelta(minutes=2), end_date=START + timedelta(minutes=4)
    ).to_df()
    assert found["n"].to_list() == [2, 3, 4]


def test_saved_dataset_with_persist_comes_back_and_is_not_overwritten(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [("A", START + timedelta(minutes=m), START) for m in range(5)])
    store = make_store(tmp_path, TYPE, timedelta(0))
    frame = pd.DataFrame(
        {"position": [1, 0], "symbol": ["A", "A"], "event_timestamp": [START + timedelta(minutes=3), START]}
    )
    for path in (str(tmp_path / "saved.parquet"), "saved_folder"):
        storage = SavedDatasetFileStorage(path=path)

        def save(storage: Any = storage, path: str = path, **options: Any) -> Any:
            job = store.get_historical_features(entity_df=frame.copy(), features=["rows:n", "rows:a"])
            return store.create_saved_dataset(from_=job, name=Path(path).stem, storage=storage, **options)

        saved = save()
        assert sorted(saved.to_df()["n"]) == [0, 3]
        assert sorted(store.get_saved_dataset(Path(path).stem).to_df()["a"]) == [0.0, 3.0]
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            save()
        assert len(save(allow_overwrite=True).to_df()) == 2


def test_offline_write_with_feast_appends_rows_to_file_and_folder(tmp_path: Path) -> None:
    rows = [("A", START + timedelta(minutes=m), START) for m in range(3)]
    write_rows(tmp_path / "rows.parquet", rows)
    store = make_store(tmp_path, TYPE, timedelta(0))
    more = pl.read_parquet(tmp_path / "rows.parquet").with_columns(
        pl.col("event_timestamp") + timedelta(hours=1), pl.col("n") + 100
    )
    store.write_to_offline_store("rows", more.to_pandas())
    assert sorted(pl.read_parquet(tmp_path / "rows.parquet")["n"]) == [0, 1, 2, 100, 101, 102]
    with pytest.raises(ValueError, match="columns"):
        store.write_to_offline_store("rows", more.drop("n").to_pandas())
    view = store.get_feature_view("rows")
    with pytest.raises(DataError, match="missing columns \\['n'\\]"):
        PolarsOfflineStore.offline_write_batch(store.config, view, more.drop("n").to_arrow(), None)


def test_an_interrupted_write_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from barcast.adapters.polars_offline_store import files

    write_rows(tmp_path / "rows.parquet", [("A", START, START)])
    found = files.ParquetFiles((tmp_path / "rows.parquet",), tmp_path / "rows.parquet")
    table = pl.read_parquet(tmp_path / "rows.parquet").to_arrow(compat_level=pl.CompatLevel.oldest())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.append(found, table)
    assert pl.read_parquet(tmp_path / "rows.parquet")["n"].to_list() == [0]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_bad_requests_say_what_to_do(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [("A", START, START)])
    store = make_store(tmp_path, TYPE, timedelta(0))
    with pytest.raises(DataError, match="as a frame, not as a query"):
        store.get_historical_features(entity_df="SELECT 1", features=["rows:n"])
    with pytest.raises(DataError, match="lack the join keys \\['symbol'\\]"):
        store.get_historical_features(
            entity_df=pd.DataFrame({"event_timestamp": [START]}), features=["rows:n"]
        )
    job = store.get_historical_features(
        entity_df=pd.DataFrame({"symbol": ["A"], "event_timestamp": [START]}), features=["rows:n"]
    )
    assert job.metadata.keys == ["symbol"]
    assert job.metadata.min_event_timestamp == START
    assert isinstance(job.to_arrow(), pa.Table)

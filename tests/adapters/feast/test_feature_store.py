"""The feature store of a workspace on the embedded stores."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from feast_world import CROSS, LOOKBACK, NAMES, START, STEP, make_config, make_features, windows_of

from barcast import clock
from barcast.adapters.feast import FeatureStore, MissingWindowError, StaleWindowError
from barcast.errors import ConfigError, DataError, ServingError
from barcast.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast warns of its own alpha features and of pandas
SYMBOLS = ["AAA", "B/C", "dd"]


def test_training_rows_with_shuffled_duplicated_entities_gives_the_rows_at_their_times(
    store: FeatureStore,
) -> None:
    features = make_features(SYMBOLS, 20)
    assert store.write_offline(features) == 60
    entities = features.select("symbol", "event_timestamp", label=pl.int_range(pl.len()))
    entities = pl.concat([entities, entities[:7]]).sample(fraction=1, shuffle=True, seed=1)
    found = store.training_rows(entities)
    assert found.columns == [*entities.columns, *NAMES]
    assert found.select(entities.columns).equals(entities)
    expected = features[entities["label"].to_list()].select(NAMES)
    assert found.select(NAMES).equals(expected)
    assert found.schema["f00"] == pl.Float32


def test_training_rows_with_a_missing_bar_is_null_not_the_row_before(store: FeatureStore) -> None:
    features = make_features(["AAA"], 10)
    store.write_offline(features.filter(pl.col("event_timestamp") != START + 4 * STEP))
    found = store.training_rows(features.select("symbol", "event_timestamp"))
    assert found.with_row_index().filter(pl.col("f00").is_null())["index"].to_list() == [4]


def test_write_offline_repeated_adds_nothing_and_a_correction_wins_from_when_it_was_known(
    store: FeatureStore,
) -> None:
    features = make_features(SYMBOLS, 10)
    assert store.write_offline(features) == 30
    assert store.write_offline(features) == 0
    later = START + timedelta(days=1)
    corrected = features[3:4].with_columns(created_timestamp=pl.lit(later), f05=pl.lit(9.0, pl.Float32))
    assert store.write_offline(pl.concat([features[:3], corrected], how="vertical_relaxed")) == 1
    keys = features[3:4].select("symbol", "event_timestamp")
    assert store.training_rows(keys)["f05"].item() == 9.0
    past = store.training_rows(keys, as_of=later - timedelta(seconds=1))
    assert past["f05"].item() == features["f05"][3]


def test_write_offline_keeps_nulls_and_refuses_what_is_not_a_value(store: FeatureStore) -> None:
    features = make_features(["AAA"], 3).with_columns(
        f01=pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise(pl.col("f01"))
    )
    assert store.write_offline(features) == 3
    assert store.training_rows(features.select("symbol", "event_timestamp"))["f01"].null_count() == 1
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="NaN or infinite: f02"):
            store.write_offline(features.with_columns(f02=pl.lit(bad, pl.Float32)))
    with pytest.raises(DataError, match=r"lacks \['f02'\] and has unknown \['f2'\]"):
        store.write_offline(features.rename({"f02": "f2"}))
    with pytest.raises(DataError, match="no symbol or no time"):
        store.write_offline(features.with_columns(symbol=pl.lit(None, pl.String)))


def test_materialize_gives_the_latest_row_and_window_of_every_symbol(store: FeatureStore) -> None:
    features = make_features(SYMBOLS, 20)
    short = make_features(["new"], LOOKBACK - 1, seed=5, start=START + 15 * STEP)
    holed = make_features(["hole"], 20, seed=6).with_columns(
        f03=pl.when(pl.int_range(pl.len()) == 17).then(None).otherwise(pl.col("f03"))
    )
    store.write_offline(pl.concat([features, short, holed]))
    end = START + 19 * STEP
    done = store.materialize(as_of=end)
    assert (done.rows, done.windows) == (5, 3)
    assert done.without_window == {"new": f"{LOOKBACK - 1} rows, {LOOKBACK} needed", "hole": "null in f03"}
    found = store.online(SYMBOLS, as_of=end)
    for symbol, window in zip(SYMBOLS, windows_of(features, SYMBOLS), strict=True):
        assert np.array_equal(found[symbol].window, window)
        assert np.array_equal(found[symbol].row, window[-1])
        assert found[symbol].event_timestamp == end
        assert found[symbol].window.dtype == np.float32
    rows = store.online_rows([*SYMBOLS, "nowhere"])
    latest = features.group_by("symbol", maintain_order=True).tail(1)
    assert rows[:3].select(NAMES).equals(latest.select(NAMES))
    assert rows["event_timestamp"].to_list() == [end, end, end, None]
    assert rows["f00"].null_count() == 1


def test_materialize_up_to_a_moment_sees_nothing_later(store: FeatureStore) -> None:
    features = make_features(["AAA"], 20)
    store.write_offline(features)
    store.materialize(as_of=START + 10 * STEP)
    found = store.online(["AAA"], as_of=START + 10 * STEP)["AAA"]
    assert np.array_equal(found.window, features[5:11].select(NAMES).to_numpy())


def test_materialize_again_does_not_lose_late_rows(store: FeatureStore) -> None:
    """A row that arrives after a materialisation, for a time before it, still reaches the window."""
    features = make_features(["AAA", "BBB"], 20)
    end = START + 19 * STEP
    late = (pl.col("symbol") == "AAA") & (pl.col("event_timestamp") == START + 17 * STEP)
    latest = (pl.col("symbol") == "BBB") & (pl.col("event_timestamp") == end)
    store.write_offline(features.filter(~late & ~latest))
    store.materialize(as_of=end)
    known = pl.lit(end + timedelta(minutes=3))
    store.write_offline(features.filter(late | latest).with_columns(created_timestamp=known))
    store.materialize(as_of=end + STEP)
    found = store.online(["AAA", "BBB"], as_of=end)
    for symbol, window in zip(("AAA", "BBB"), windows_of(features, ["AAA", "BBB"]), strict=True):
        assert np.array_equal(found[symbol].window, window)
    assert found["AAA"].created_timestamp == end + timedelta(minutes=3)


def test_materialize_after_a_push_sets_nothing_back(store: FeatureStore) -> None:
    features = make_features(["AAA"], 20)
    store.write_offline(features[:15])  # history lags behind the stream
    store.push(features.tail(1), windows_of(features, ["AAA"]))
    store.materialize(as_of=START + 19 * STEP)
    assert np.array_equal(
        store.online(["AAA"], as_of=START + 19 * STEP)["AAA"].window, features.tail(6).select(NAMES)
    )
    assert store.online_rows(["AAA"])["event_timestamp"].item() == START + 19 * STEP


def test_push_equals_feasts_own_push(tmp_path: Path) -> None:
    """The fast way and `feast.FeatureStore.push` leave the same rows, read by Feast's own online read."""
    features = make_features(SYMBOLS, LOOKBACK)
    rows = features.group_by("symbol", maintain_order=True).tail(1)
    windows = windows_of(features, SYMBOLS)
    answers = []
    for way in ("ours", "feast"):
        store = FeatureStore(Workspace("small", tmp_path / way), make_config(), NAMES, cross_symbol=CROSS)
        store.apply()
        if way == "ours":
            store.push(rows, windows)
        else:
            store.feast.push("bar_features_push", rows.to_pandas())
            window_frame = rows.select("symbol", "event_timestamp", "created_timestamp").with_columns(
                window=pl.Series([w.astype("<f4").tobytes() for w in windows]),
                window_end_us=pl.col("event_timestamp").dt.epoch("us"),
                window_created_us=pl.col("created_timestamp").dt.epoch("us"),
            )
            store.feast.push("bar_windows_push", window_frame.to_pandas())
        entity_rows = [{"symbol": s} for s in SYMBOLS]
        read: dict[str, Any] = {}
        for service in ("direction_v1", "direction_v1_window"):
            found = store.feast.get_online_features(store.feast.get_feature_service(service), entity_rows)
            read |= found.to_dict()
        read["online"] = [o.window.tolist() for o in store.online(SYMBOLS, as_of=START + 6 * STEP).values()]
        read["rows"] = store.online_rows(SYMBOLS).rows()
        answers.append(read)
    assert answers[0] == answers[1]
    assert set(NAMES) < set(answers[0])


def test_push_of_an_older_row_changes_nothing_and_a_correction_replaces(store: FeatureStore) -> None:
    features = make_features(["AAA"], 20)
    new, old = features[14:20], features[13:19]
    store.push(new[-1:], new.select(NAMES).to_numpy()[None])
    store.push(old[-1:], old.select(NAMES).to_numpy()[None])
    moment = START + 19 * STEP
    assert np.array_equal(store.online(["AAA"], as_of=moment)["AAA"].window, new.select(NAMES))
    assert store.online_rows(["AAA"])["f00"].item() == new["f00"][-1]
    fixed = new.with_columns(
        pl.col("f00") + 1, created_timestamp=pl.col("created_timestamp") + timedelta(seconds=9)
    )
    store.push(fixed[-1:], fixed.select(NAMES).to_numpy()[None])
    assert np.array_equal(store.online(["AAA"], as_of=moment)["AAA"].window, fixed.select(NAMES))
    assert store.online_rows(["AAA"])["f00"].item() == fixed["f00"][-1]


def test_push_with_bad_rows_or_windows_is_refused_and_writes_nothing(store: FeatureStore) -> None:
    features = make_features(SYMBOLS, LOOKBACK)
    rows = features.group_by("symbol", maintain_order=True).tail(1)
    windows = windows_of(features, SYMBOLS)
    holed = windows.copy()
    holed[1, 2, 3] = np.nan
    for bad_rows, bad_windows, told in (
        (rows.with_columns(f01=pl.lit(None, pl.Float32)), windows, "null, NaN or infinite features.*f01"),
        (rows, windows[:, 1:], r"shape \(3, 5, 8\), expected \(3, 6, 8\)"),
        (rows, windows[:2], "shape"),
        (rows, holed, "not finite"),
        (rows, windows[::-1], "does not end with its row"),
        (rows.drop("f07"), windows, r"lacks \['f07'\]"),
    ):
        with pytest.raises(DataError, match=told):
            store.push(bad_rows, bad_windows)
    assert store.online(SYMBOLS, strict=False) == {}


def test_online_refuses_stale_and_missing_windows_with_their_age(store: FeatureStore) -> None:
    features = make_features(["AAA"], LOOKBACK)
    store.push(features.tail(1), windows_of(features, ["AAA"]))
    end = START + 5 * STEP
    one_bar_later = end + STEP
    assert not store.online(["AAA"], as_of=one_bar_later)["AAA"].stale  # one newer bar may have closed
    two_bars_later = end + 2 * STEP
    with pytest.raises(
        StaleWindowError, match=r"AAA \(0:10:00 old, last bar 2024-03-01 00:25 UTC\); at most 1 bars"
    ):
        store.online(["AAA"], as_of=two_bars_later)
    assert not store.online(["AAA"], as_of=two_bars_later - timedelta(microseconds=1))["AAA"].stale
    marked = store.online(["AAA", "nowhere"], as_of=two_bars_later, strict=False)
    assert list(marked) == ["AAA"]
    assert marked["AAA"].stale
    assert marked["AAA"].age == 2 * STEP
    with pytest.raises(MissingWindowError, match="no window of nowhere"):
        store.online(["AAA", "nowhere"], as_of=end)
    with clock.fixed(end):
        assert store.online(["AAA"])["AAA"].age == timedelta(0)


def test_online_over_a_weekend_is_fresh_on_the_exchange_calendar(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    config = make_config(interval="1d", universe={"calendar": "XNYS"})
    store = FeatureStore(Workspace("small", tmp_path), config, NAMES)
    store.apply()
    friday = datetime(2024, 3, 8, 21, tzinfo=UTC)
    features = make_features(["AAA"], 1).with_columns(
        event_timestamp=pl.lit(friday), created_timestamp=pl.lit(friday)
    )
    window = np.repeat(features.select(NAMES).to_numpy()[None], LOOKBACK, axis=1)
    store.push(features, window)
    sunday, monday_close = datetime(2024, 3, 10, 12, tzinfo=UTC), datetime(2024, 3, 11, 20, tzinfo=UTC)
    tuesday_close = datetime(2024, 3, 12, 20, tzinfo=UTC)  # summer time began on the Sunday
    assert not store.online(["AAA"], as_of=sunday)["AAA"].stale
    assert not store.online(["AAA"], as_of=monday_close)["AAA"].stale
    assert not store.online(["AAA"], as_of=tuesday_close - timedelta(seconds=1))["AAA"].stale
    with pytest.raises(StaleWindowError, match="3 days, 23:00:00 old"):
        store.online(["AAA"], as_of=tuesday_close)


def test_a_store_of_another_feature_set_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    features = make_features(["AAA"], LOOKBACK)
    store.push(features.tail(1), windows_of(features, ["AAA"]))
    for names in (NAMES[:-1], [*NAMES[1:], NAMES[0]]):
        other = FeatureStore(Workspace("small", tmp_path), make_config(), names)
        with pytest.raises(ConfigError, match="registered with other features"):
            other.online(["AAA"])
    unapplied = FeatureStore(Workspace("fresh", tmp_path), make_config(), NAMES)
    with pytest.raises(ConfigError, match="has no feature view"):
        unapplied.training_rows(features.select("symbol", "event_timestamp"))
    longer = FeatureStore(
        Workspace("small", tmp_path), make_config(lookback_bars=7), NAMES, cross_symbol=CROSS
    )
    with pytest.raises(DataError, match="has 192 bytes, expected 224 for 7 bars of 8 features"):
        longer.online(["AAA"])


def test_bad_definitions_are_refused(tmp_path: Path) -> None:
    workspace = Workspace("small", tmp_path)
    with pytest.raises(ConfigError, match="has no features"):
        FeatureStore(workspace, make_config(), [])
    with pytest.raises(ConfigError, match="'f01' is given twice"):
        FeatureStore(workspace, make_config(), ["f01", "f01"])
    with pytest.raises(ConfigError, match="'symbol' is given twice or is a key"):
        FeatureStore(workspace, make_config(), ["symbol"])
    with pytest.raises(ConfigError, match="Did you mean 'f01'"):
        FeatureStore(workspace, make_config(), ["f01", "f02"], cross_symbol=["f1"])
    with pytest.raises(ConfigError, match="is no file"):
        FeatureStore(workspace, make_config(feast={"feature_store_yaml": tmp_path / "none.yaml"}), NAMES)


def test_a_damaged_online_database_is_told_as_such(store: FeatureStore, tmp_path: Path) -> None:
    features = make_features(["AAA"], LOOKBACK)
    store.push(features.tail(1), windows_of(features, ["AAA"]))
    folder = store.workspace.feast
    for path in folder.glob("online.db*"):
        path.write_bytes(b"this is no database" * 300)
    again = FeatureStore(store.workspace, store.config, NAMES, cross_symbol=CROSS)
    with pytest.raises(ServingError, match=r"online store .* does not answer: .*database"):
        again.online(["AAA"])


def test_a_store_that_says_nothing_when_it_fails_is_told_as_such(store: FeatureStore) -> None:
    with (
        pytest.raises(ServingError, match=r"online store .* does not answer: TimeoutError"),
        store._answering(),
    ):
        raise TimeoutError


def test_saved_state_is_read_by_another_store_object(store: FeatureStore) -> None:
    features = make_features(SYMBOLS, 12)
    store.write_offline(features)
    store.materialize(as_of=START + 11 * STEP)
    again = FeatureStore(store.workspace, store.config, NAMES, cross_symbol=CROSS)
    assert again.write_offline(features) == 0
    assert np.array_equal(
        again.online(["dd"], as_of=START + 11 * STEP)["dd"].window, features.tail(6).select(NAMES)
    )


def test_clear_removes_the_rows_of_both_stores(store: FeatureStore) -> None:
    features = make_features(SYMBOLS, 12)
    store.write_offline(features)
    store.materialize(as_of=START + 11 * STEP)
    store.clear()
    store.apply()
    assert store.online(SYMBOLS, strict=False) == {}
    assert store.training_rows(features.select("symbol", "event_timestamp"))["f00"].null_count() == 36
    assert store.write_offline(features) == 36


def test_a_damaged_registry_is_told_and_can_be_made_again(store: FeatureStore) -> None:
    features = make_features(SYMBOLS, 12)
    store.write_offline(features)
    (store.workspace.feast / "registry.db").write_bytes(b"\xff" * 100)
    again = FeatureStore(store.workspace, store.config, NAMES, cross_symbol=CROSS)
    with pytest.raises(ConfigError, match=r"registry .* is damaged"):
        again.training_rows(features.select("symbol", "event_timestamp"))
    (store.workspace.feast / "registry.db").unlink()
    third = FeatureStore(store.workspace, store.config, NAMES, cross_symbol=CROSS)
    third.apply()
    assert third.write_offline(features) == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("project: ${NOT_SET_ANYWHERE}\nregistry: r.db", "not set or empty: NOT_SET_ANYWHERE"),
        ("project: ${EMPTY}\nregistry: r.db", "not set or empty: EMPTY"),
        (
            "project: p\nregistry: r.db\noffline_store: {type: postgres}",
            "RepoConfig; host; Field required",
        ),
        ("project: p", "no feature_store.yaml that Feast can use"),
        ("project: [p\nregistry: r.db", "no feature_store.yaml that Feast can use"),
        (
            "project: p\nregistry: r.db\nonline_store: {type: nothing}",
            "no feature_store.yaml that Feast can use",
        ),
    ],
)
def test_a_feature_store_yaml_that_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    path = tmp_path / "feature_store.yaml"
    path.write_text(text)
    config = make_config(feast={"feature_store_yaml": path})
    with pytest.raises(ConfigError, match=told):
        FeatureStore(Workspace("small", tmp_path), config, NAMES)

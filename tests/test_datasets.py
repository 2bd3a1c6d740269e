"""Datasets: windows by index equal materialised ones; gaps, unknown values and bad features are handled in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast import datasets, labels
from barcast.errors import DataError

START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(n: int = 120, symbols: int = 2, gap_at: int | None = None) -> pl.DataFrame:
    parts = []
    for s in range(symbols):
        rng = np.random.default_rng(s)
        close = 100 * np.exp(np.cumsum(rng.normal(size=n) * 0.01))
        shift = [600 if gap_at is not None and i >= gap_at else 0 for i in range(n)]
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [f"S{s}"] * n,
                    "event_timestamp": [START + timedelta(minutes=5 * i + shift[i]) for i in range(n)],
                    "open": close,
                    "high": close,
                    "low": close,
                    "close": close,
                    "volume": np.ones(n),
                }
            )
        )
    return pl.concat(parts).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))


def features(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        "symbol",
        "event_timestamp",
        pl.col("event_timestamp").alias("created_timestamp"),
        pl.col("close").cast(pl.Float32).alias("a"),
        pl.col("close").log().diff(3).over("symbol").cast(pl.Float32).alias("b"),
    )


def test_windows_by_index_equal_materialised_windows() -> None:
    frame = bars()
    found = datasets.build(features(frame), labels.make(frame, horizon_bars=3), lookback_bars=10)
    row = 5
    symbol, t = found.rows["symbol"][row], found.rows["event_timestamp"][row]
    expected = (
        features(frame).filter((pl.col("symbol") == symbol) & (pl.col("event_timestamp") <= t)).tail(10)
    )
    np.testing.assert_array_equal(found.windows(np.array([row]))[0], expected.select("a", "b").to_numpy())
    assert found.symbol_id[row] == found.symbols.index(symbol) + 1
    # The raw features once, not ten times.
    assert found.nbytes < 1.5 * 240 * (2 * 4 + 12)
    # b is unknown for three bars, a window needs ten: the first usable row is bar 12; labels begin later.
    assert found.dropped["short"] == 18
    assert found.dropped["unknown"] == 6


def test_window_spanning_a_long_gap_is_dropped_and_counted() -> None:
    frame = bars(symbols=1, gap_at=60)
    found = datasets.build(features(frame), None, lookback_bars=10)
    ends = found.rows["event_timestamp"].to_list()
    times = frame["event_timestamp"].to_list()
    assert found.dropped["gap"] == 9
    assert times[59] in ends
    assert times[60] not in ends
    assert times[68] not in ends
    assert times[69] in ends


def test_symbol_ids_are_append_only() -> None:
    frame = bars(symbols=2)
    found = datasets.build(features(frame), None, lookback_bars=5, symbols=["OLD", "S1"])
    assert found.symbols == ("OLD", "S1", "S0")
    assert set(found.symbol_id[found.of_symbol("S1")]) == {2}
    assert set(found.symbol_id[found.of_symbol("S0")]) == {3}


def test_rows_keep_their_symbol_when_a_model_numbers_it_otherwise() -> None:
    frame = bars(symbols=3)
    built = datasets.build(features(frame), lookback_bars=5)
    here = list(built.symbols)
    again = built.numbered([here[2], "GONE", here[0]])
    assert again.symbols == (here[2], "GONE", here[0], here[1])
    assert [again.symbols[i - 1] for i in again.symbol_id] == again.rows["symbol"].to_list()


def test_one_symbol_alone_reads_the_same_windows() -> None:
    frame = bars(symbols=3)
    found = datasets.build(features(frame), labels.make(frame, horizon_bars=3), lookback_bars=10)
    alone, rows = found.only("S1")
    assert len(alone.features) < len(found.features) / 2
    assert alone.rows.equals(found.rows[rows])
    np.testing.assert_array_equal(alone.windows(np.arange(len(rows))), found.windows(rows))
    np.testing.assert_array_equal(alone.symbol_id, found.symbol_id[rows])
    nobody, none = found.only("S9")
    assert len(nobody) == len(none) == 0


def test_saved_dataset_loads_equal_and_a_half_written_one_is_refused(tmp_path: Path) -> None:
    frame = bars()
    found = datasets.build(features(frame), labels.make(frame, horizon_bars=3), lookback_bars=10)
    loaded = datasets.load(datasets.save(found, tmp_path / "d"))
    np.testing.assert_array_equal(loaded.features, found.features)
    np.testing.assert_array_equal(loaded.window_end, found.window_end)
    assert loaded.rows.equals(found.rows)
    assert (loaded.symbols, loaded.feature_names, loaded.dropped) == (
        found.symbols,
        found.feature_names,
        found.dropped,
    )
    (tmp_path / "d" / "dataset.json").unlink()
    with pytest.raises(DataError, match="No dataset"):
        datasets.load(tmp_path / "d")


def test_a_dataset_written_over_another_half_way_is_no_mixture_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(n: int) -> datasets.Dataset:
        frame = bars(n)
        return datasets.build(features(frame), labels.make(frame, horizon_bars=3), lookback_bars=10)

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    first = made(120)
    reader = datasets.load(datasets.save(first, tmp_path / "d"))
    with monkeypatch.context() as broken:
        broken.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            datasets.save(made(200), tmp_path / "d")
    with pytest.raises(DataError, match="No dataset"):
        datasets.load(tmp_path / "d")
    np.testing.assert_array_equal(reader.features, first.features)  # as long as somebody reads it


def test_bad_features_are_refused_in_words() -> None:
    frame = features(bars())
    with pytest.raises(DataError, match="never known: dead"):
        datasets.build(frame.with_columns(pl.lit(None, pl.Float32).alias("dead")), lookback_bars=5)
    with pytest.raises(DataError, match="infinite values: a"):
        datasets.build(frame.with_columns((pl.col("a") / 0.0).alias("a")), lookback_bars=5)
    with pytest.raises(DataError, match="repeat"):
        datasets.build(pl.concat([frame, frame]), lookback_bars=5)
    with pytest.raises(DataError, match="No row has a whole window"):
        datasets.build(frame, lookback_bars=500)
    with pytest.raises(DataError, match="no feature rows"):
        datasets.build(frame.head(0), lookback_bars=5)


def test_uniqueness_against_hand_computed_values() -> None:
    frame = bars(n=60, symbols=1)
    found = datasets.build(features(frame), labels.make(frame, horizon_bars=2), lookback_bars=5)
    three = np.array([0, 1, 2])
    # Labels live over bars {1, 2}, {2, 3}, {3, 4} after the first: concurrency 1, 2, 2, 1.
    np.testing.assert_allclose(datasets.uniqueness(found, three), [0.75, 0.5, 0.75])
    np.testing.assert_allclose(datasets.uniqueness(found, np.array([0, 10])), [1.0, 1.0])

"""Constant prices, empty volume, gaps, jumps, splits: finite or null, never infinite. Wrong bars are refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from feature_bars import differences, make_bars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barcast.bars.calendar import Calendar
from barcast.errors import DataError
from barcast.features import catalogue, compute

ALWAYS = Calendar.of("24/7")
PRICES = ("open", "high", "low", "close")


def finite(frame: pl.DataFrame) -> None:
    for name in frame.columns[3:]:
        values = frame[name].drop_nulls()
        assert values.is_finite().all(), name
    last = frame.group_by("symbol").last()
    assert last.null_count().sum_horizontal().item() == 0, "a row far after the warm-up must be whole"


@pytest.mark.parametrize("interval", ["5m", "1d"])
def test_constant_prices_and_no_volume_give_finite_values(interval: str) -> None:
    frame = make_bars(3, 200, interval).with_columns(
        [pl.lit(12.34).alias(n) for n in PRICES], volume=pl.lit(0.0)
    )
    finite(compute(frame, interval=interval, calendar=ALWAYS))


def test_prices_that_stop_moving_give_finite_values() -> None:
    frame = make_bars(2, 500, seed=3)
    edge = frame["event_timestamp"].unique().sort()[250]
    still = [
        pl.when(pl.col("event_timestamp") > edge).then(7.7).otherwise(pl.col(n)).alias(n) for n in PRICES
    ]
    frame = frame.with_columns(
        *still, volume=pl.when(pl.col("event_timestamp") > edge).then(0.0).otherwise("volume")
    )
    finite(compute(frame, interval="5m", calendar=ALWAYS))


@pytest.mark.parametrize("factor", [1e8, 1e-8])
def test_huge_jumps_give_finite_values(factor: float) -> None:
    frame = make_bars(2, 400, seed=4)
    edge = frame["event_timestamp"].unique().sort()[200]
    jump = [
        pl.when(pl.col("event_timestamp") == edge).then(pl.col(n) * factor).otherwise(n).alias(n)
        for n in (*PRICES, "volume")
    ]
    finite(compute(frame.with_columns(jump), interval="5m", calendar=ALWAYS))


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(1e-4, 1e4), st.sampled_from(["5m", "1d"]), st.integers(0, 1000))
def test_scaled_price_history_changes_no_feature(k: float, interval: str, seed: int) -> None:
    frame = make_bars(3, 260, interval, seed=seed, missing=0.02)
    split = pl.col("symbol") == "S1"
    scaled = frame.with_columns(
        [pl.when(split).then(pl.col(n) * k).otherwise(n).alias(n) for n in PRICES],
        volume=pl.when(split).then(pl.col("volume") / k).otherwise("volume"),
    )
    one, two = (compute(f, interval=interval, calendar=ALWAYS) for f in (frame, scaled))
    units = {spec.name: spec for spec in catalogue(interval)}
    wrong = []
    for name in one.columns[3:]:
        a, b = one[name].to_numpy(), two[name].to_numpy()
        if not np.allclose(a, b, rtol=1e-5, atol=1e-6 * max(np.nanmax(np.abs(a)), 1e-3), equal_nan=True):
            wrong.append((name, units[name].unit, float(np.nanmax(np.abs(a - b)))))
    assert wrong == []


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("close", None, "missing"),
        ("open", float("nan"), "missing"),
        ("high", float("inf"), "infinite"),
        ("low", -1.0, "non-positive"),
        ("close", 0.0, "non-positive"),
        ("volume", -3.0, "volume"),
        ("high", 0.001, "outside low to high"),
    ],
)
def test_bad_value_is_refused_and_named(column: str, value: float | None, words: str) -> None:
    frame = make_bars(2, 20)
    bad = frame["event_timestamp"][7]
    frame = frame.with_columns(
        pl.when((pl.col("symbol") == "S1") & (pl.col("event_timestamp") == bad))
        .then(pl.lit(value))
        .otherwise(column)
        .alias(column)
    )
    with pytest.raises(DataError, match=words) as error:
        compute(frame, interval="5m", calendar=ALWAYS)
    assert "S1" in str(error.value)


def test_missing_column_and_duplicate_bars_are_refused() -> None:
    frame = make_bars(1, 5)
    with pytest.raises(DataError, match="volume"):
        compute(frame.drop("volume"), interval="5m", calendar=ALWAYS)
    with pytest.raises(DataError, match="Two bars"):
        compute(pl.concat([frame, frame.tail(1)]), interval="5m", calendar=ALWAYS)


def test_empty_table_gives_an_empty_frame() -> None:
    frame = compute(make_bars(1, 3).clear(), interval="5m", calendar=ALWAYS)
    assert frame.height == 0
    assert len(frame.columns) == 3 + len(catalogue("5m"))


def test_two_symbols_among_many_keep_their_own_features() -> None:
    many = make_bars(5, 200)
    own = [spec.name for spec in catalogue("5m") if not spec.cross_symbol]
    keys = ["symbol", "event_timestamp", "created_timestamp"]
    whole = compute(many, interval="5m", calendar=ALWAYS).filter(pl.col("symbol") == "S2").select(keys + own)
    alone = compute(many.filter(pl.col("symbol") == "S2"), interval="5m", calendar=ALWAYS).select(keys + own)
    assert differences(whole, alone) == []

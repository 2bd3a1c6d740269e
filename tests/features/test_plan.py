"""Completeness: the counts of the requirements, by interval, counted as features that vary; the catalogue; the
budget."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feature_bars import make_bars

from barcast.bars.calendar import Calendar
from barcast.config.features import FeaturesConfig
from barcast.errors import DataError
from barcast.features import WARMUP_BUDGET_BARS, catalogue, compute, feature_names, require, warmup_bars

GOLDEN = Path(__file__).with_name("golden.json")
LEAST = {
    "ohlcv": 5,
    "technical": 50,
    "price_action": 20,
    "temporal": 15,
    "regime": 20,
    "cross_symbol": 30,
    "meta": 20,
}


def table(calendar: str, interval: str) -> pl.DataFrame:
    """Bars that span enough of a year for the calendar to show."""
    if calendar == "24/7":
        return make_bars(
            4,
            900 if interval == "1d" else 6000,
            interval,
            seed=4,
            late_start=100,
            start=datetime(2023, 12, 20, tzinfo=UTC),
        )
    closes = Calendar.of(calendar).close_times(
        datetime(2023, 12, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC), interval
    )[: 600 if interval == "1d" else 6000]
    frame = make_bars(4, len(closes), interval, seed=4, late_start=100)
    times = pl.DataFrame({"event_timestamp": frame["event_timestamp"].unique().sort(), "real": closes})
    return (
        frame.join(times, on="event_timestamp")
        .with_columns(event_timestamp="real", created_timestamp="real")
        .drop("real")
    )


def told(column: str) -> dict[str, int]:
    """That column of the table in docs/features.md."""
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    at = rows[0].index(column)
    return {row[0]: int(row[at]) for row in rows[2:]}


@pytest.mark.parametrize("calendar", ["24/7", "XNYS"])
@pytest.mark.parametrize("interval", ["1d", "15m"])
def test_counts_of_varying_features_reach_the_requirements(calendar: str, interval: str) -> None:
    frame = compute(table(calendar, interval), interval=interval, calendar=Calendar.of(calendar)).drop_nulls()
    assert frame.height > 1000
    spread = frame.select(pl.all().exclude("symbol", "event_timestamp", "created_timestamp").n_unique()).row(
        0, named=True
    )
    varying = Counter(spec.category for spec in catalogue(interval) if spread[spec.name] > 1)
    assert all(varying[name] >= least for name, least in LEAST.items()), varying
    assert sum(varying.values()) > 150
    column = f"{'daily' if interval == '1d' else '15 minutes'}, {calendar}"
    assert told(column) == {**varying, "all": sum(varying.values())}, "bring docs/features.md up to date"
    constant = [name for name, values in spread.items() if values == 1]
    assert len(constant) <= 10, (
        constant
    )  # New York is never open in Tokyo's hours, at weekends or on its holidays


def test_daily_set_has_no_time_of_day_and_intraday_has() -> None:
    daily, intraday = set(feature_names("1d")), set(feature_names("5m"))
    assert {"hour_sin", "hour_cos", "session_us"} <= intraday
    assert not any(name.startswith(("hour", "session")) for name in daily)


@pytest.mark.parametrize("interval", ["1d", "1h", "5m", "1m"])
def test_catalogue_says_everything_and_names_are_unique(interval: str) -> None:
    specs = catalogue(interval)
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.name == spec.name.lower()
        assert all((spec.category, spec.formula, spec.unit, spec.source))
        assert 1 <= spec.lookback_bars <= spec.settles_bars
        assert spec.cross_symbol == (spec.category == "cross_symbol")
        assert (spec.neutral is None) == (spec.flag is None)
        assert spec.flag is None or spec.flag in {other.name for other in specs}
    assert warmup_bars(interval) <= WARMUP_BUDGET_BARS


@pytest.mark.parametrize("interval", ["1d", "5m"])
def test_values_are_null_until_the_look_back_and_never_after(interval: str) -> None:
    frame = compute(make_bars(2, 150, interval, seed=1), interval=interval, calendar=Calendar.of("24/7"))
    one = frame.filter(pl.col("symbol") == "S0")
    wrong = [
        (spec.name, spec.lookback_bars, one[spec.name].null_count() + 1)
        for spec in catalogue(interval)
        if one[spec.name].null_count() != spec.lookback_bars - 1
        or one[spec.name][spec.lookback_bars - 1] is None
    ]
    assert wrong == []


def test_frame_has_the_contracted_columns_and_types() -> None:
    frame = compute(make_bars(2, 30), interval="5m", calendar=Calendar.of("24/7"))
    assert frame.columns[:3] == ["symbol", "event_timestamp", "created_timestamp"]
    assert tuple(frame.columns[3:]) == feature_names("5m")
    assert set(frame.dtypes[3:]) == {pl.Float32}
    assert not any(
        frame[name].is_nan().any() or frame[name].is_infinite().any() for name in frame.columns[3:]
    )


def test_unknown_feature_suggests_the_nearest() -> None:
    names = list(feature_names("1d"))
    with pytest.raises(DataError, match="rsi_14"):
        require([*names[:-1], "rsi14"], "1d")


def test_differing_feature_set_is_refused() -> None:
    names = list(feature_names("1d"))
    require(names, "1d")
    with pytest.raises(DataError, match="lacks"):
        require(names[:-1], "1d")
    with pytest.raises(DataError, match="another order"):
        require(names[::-1], "1d")


def test_categories_by_configuration_leave_out_the_others() -> None:
    config = FeaturesConfig(categories=("ohlcv", "regime"))
    names = feature_names("1d", config)
    assert {spec.category for spec in catalogue("1d", config)} == {"ohlcv", "regime"}
    frame = compute(make_bars(1, 140, "1d"), interval="1d", calendar=Calendar.of("24/7"), config=config)
    full = compute(make_bars(1, 140, "1d"), interval="1d", calendar=Calendar.of("24/7"))
    assert frame.select(names).equals(full.select(names))


def test_time_outside_the_calendar_is_refused() -> None:
    frame = make_bars(1, 5, "1d").with_columns(
        event_timestamp=pl.col("event_timestamp") + timedelta(days=365 * 30)
    )
    with pytest.raises(DataError, match="outside"):
        compute(frame, interval="1d", calendar=Calendar.of("24/7"))


def test_changed_formula_needs_a_new_name() -> None:
    """Values on fixed bars are pinned by name, so a changed formula under an old name shows here."""
    pinned = json.loads(GOLDEN.read_text())
    for interval in ("1h", "1d"):
        now = sample(interval)
        assert set(now) == set(pinned[interval]), "pin the new features: python tests/features/test_plan.py"
        changed = [k for k, v in now.items() if not np.allclose(v, pinned[interval][k], rtol=1e-4, atol=1e-7)]
        assert changed == [], (
            "give a changed formula a new name, then pin it: python tests/features/test_plan.py"
        )


def sample(interval: str) -> dict[str, list[float]]:
    frame = compute(make_bars(3, 400, interval, seed=11), interval=interval, calendar=Calendar.of("24/7"))
    return {
        name: [float(f"{v:.7g}") for v in frame[name].drop_nulls().gather_every(211).to_list()]
        for name in frame.columns[3:]
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({interval: sample(interval) for interval in ("1h", "1d")}, indent=0) + "\n")

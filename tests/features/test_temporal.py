"""The clock's features against dates written by hand, and higher intervals against Polars' own grouping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from feature_bars import make_bars

from barcast.bars.calendar import Calendar
from barcast.features import compute
from barcast.features.temporal import Clock, clock_specs


def at(calendar: str, interval: str, *moments: datetime) -> pl.DataFrame:
    times = np.array([int(m.timestamp() * 1e6) for m in moments], dtype=np.int64)
    columns = Clock(Calendar.of(calendar), interval).columns(times)
    names = [spec.name for spec in clock_specs(interval != "1d")]
    return pl.DataFrame(dict(zip(names, columns, strict=True)))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type]


def test_sessions_follow_daylight_saving() -> None:
    winter, summer = utc(2024, 1, 10, 14, 35), utc(2024, 7, 10, 13, 35)
    found = at("24/7", "5m", winter, winter - timedelta(minutes=5), summer, summer - timedelta(minutes=5))
    assert found["session_us"].to_list() == [1, 0, 1, 0]
    assert found["session_overlap"].to_list() == [1, 0, 1, 0]
    london = at("24/7", "5m", utc(2024, 1, 10, 8, 5), utc(2024, 7, 10, 7, 5), utc(2024, 7, 13, 7, 5))
    assert london["session_europe"].to_list() == [1, 1, 0]
    assert at("24/7", "5m", utc(2024, 1, 10, 0, 5), utc(2024, 1, 10, 6, 5))["session_asia"].to_list() == [
        1,
        0,
    ]


def test_half_day_ends_the_session_early() -> None:
    half = at("XNYS", "5m", utc(2024, 11, 29, 18, 0), utc(2024, 11, 27, 18, 0))
    assert half["session_progress"].to_list() == pytest.approx([1.0, 3.5 / 6.5])
    assert half["session_hours_left"].to_list() == pytest.approx([0.0, 3 / 24])
    assert half["session_last_hour"].to_list() == [1, 0]


def test_days_months_and_holidays_by_hand() -> None:
    close = utc(2024, 7, 3, 17, 0)  # the half day before Independence Day
    row = at("XNYS", "1d", close).row(0, named=True)
    assert row["before_holiday"] == 1
    assert row["days_to_holiday"] == pytest.approx(1 / 30)
    assert row["days_since_holiday"] == pytest.approx(14 / 30)  # Juneteenth
    assert row["month_start"] == 1
    assert row["quarter"] == 3
    assert row["weekday_sin"] == pytest.approx(np.sin(2 * np.pi * 2 / 7))
    assert row["winter_half"] == 0
    end = at("XNYS", "1d", utc(2024, 12, 31, 21, 0)).row(0, named=True)
    assert (end["month_end"], end["quarter_end"], end["month_sessions_left"], end["winter_half"]) == (
        1,
        1,
        0,
        1,
    )
    christmas = at("24/7", "1d", utc(2024, 12, 26)).row(0, named=True)  # the day that ends then is the 25th
    assert (christmas["holiday"], christmas["weekend"], christmas["friday"]) == (1, 0, 0)
    assert at("24/7", "1d", utc(2024, 12, 29))["weekend"].item() == 1


def test_daily_close_in_new_york_belongs_to_its_own_session() -> None:
    for close in (utc(2024, 1, 5, 21, 0), utc(2024, 7, 5, 20, 0), utc(2024, 11, 29, 18, 0)):
        assert at("XNYS", "1d", close)["friday"].item() == 1


def test_higher_intervals_equal_grouping_of_closed_bars() -> None:
    frame = make_bars(1, 2600, seed=5, missing=0.05)
    out = compute(frame, interval="5m", calendar=Calendar.of("24/7"))
    for prefix, every in (("hour", "1h"), ("day", "1d")):
        bucket = (pl.col("event_timestamp") - pl.duration(microseconds=1)).dt.truncate(every)
        closed = (
            frame.with_columns(bucket=bucket)
            .group_by("bucket", maintain_order=True)
            .agg(pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last())
            .with_columns(end=pl.col("bucket").dt.offset_by(every))
        )
        for when in (out["event_timestamp"][k] for k in (2100, 2222, 2300, 2440)):
            row = out.filter(pl.col("event_timestamp") == when).row(0, named=True)
            done = closed.filter(pl.col("end") <= when)
            c = done["close"].to_numpy()
            last = done.row(-1, named=True)
            now = frame.filter(pl.col("event_timestamp") == when)["close"].item()
            assert row[f"{prefix}_available"] == 1
            assert row[f"{prefix}_return_1"] == pytest.approx(np.log(c[-1] / c[-2]), rel=1e-5)
            assert row[f"{prefix}_return_4"] == pytest.approx(np.log(c[-1] / c[-5]), rel=1e-5)
            assert row[f"{prefix}_distance"] == pytest.approx(np.log(now / c[-1]), rel=1e-5, abs=1e-8)
            span = last["high"] - last["low"]
            assert row[f"{prefix}_body"] == pytest.approx((last["close"] - last["open"]) / span, rel=1e-5)
            assert row[f"{prefix}_position"] == pytest.approx(
                np.clip((now - last["low"]) / span, -2, 3), rel=1e-5
            )
            moves = np.diff(np.log(c[-6:]))
            assert row[f"{prefix}_volatility_5"] == pytest.approx(np.sqrt((moves**2).mean()), rel=1e-5)


def test_first_higher_bar_that_began_before_history_is_left_out() -> None:
    frame = make_bars(1, 288 * 9, seed=5).slice(100)
    out = compute(frame, interval="5m", calendar=Calendar.of("24/7"))
    first = out.filter(pl.col("day_available") == 1)["event_timestamp"][0]
    assert first == frame["event_timestamp"][0].replace(hour=0, minute=0) + timedelta(days=7)


def test_seasonal_features_equal_plain_means() -> None:
    frame = make_bars(1, 700, "1h", seed=8)
    out = compute(frame, interval="1h", calendar=Calendar.of("24/7"))
    r = np.abs(np.diff(np.log(frame["close"].to_numpy()), prepend=np.log(frame["close"][0])))
    t = 600
    assert out["hour_activity"][t] == pytest.approx(min(r[t - 24] / r[t - 24 : t].mean(), 10.0), rel=1e-5)
    daily = make_bars(1, 200, "1d", seed=8)
    found = compute(daily, interval="1d", calendar=Calendar.of("24/7"))["weekday_return_8"][150]
    moves = np.diff(np.log(daily["close"].to_numpy()), prepend=np.nan)
    assert found == pytest.approx(
        moves[[150 - 7 * k for k in range(1, 9)]].mean() / moves[91:151].std(), rel=1e-4
    )

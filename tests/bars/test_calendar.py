"""Sessions, expected closes and gaps against days known by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from barcast.bars import Calendar
from barcast.bars.sources.simulator import simulate
from barcast.errors import ConfigError, DataError

NEW_YORK = Calendar.of("XNYS")
CRYPTO = Calendar.of("24/7")


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def test_daily_closes_across_daylight_saving_are_by_hand():
    closes = NEW_YORK.close_times(at(2024, 3, 7, 21), at(2024, 3, 12), "1d").to_list()
    assert closes == [at(2024, 3, 8, 21), at(2024, 3, 11, 20)]


def test_session_close_on_half_day_and_holiday():
    closes = NEW_YORK.session_closes(pl.Series([date(2024, 7, 3), date(2024, 7, 4), date(2024, 7, 5)]))
    assert closes.to_list() == [at(2024, 7, 3, 17), None, at(2024, 7, 5, 20)]


def test_intraday_closes_begin_after_open_and_end_at_close():
    closes = NEW_YORK.close_times(at(2024, 1, 2), at(2024, 1, 3), "5m")
    assert closes.len() == 78
    assert (closes[0], closes[-1]) == (at(2024, 1, 2, 14, 35), at(2024, 1, 2, 21))


def test_hourly_closes_end_with_a_short_bar():
    closes = NEW_YORK.close_times(at(2024, 1, 2), at(2024, 1, 3), "1h").to_list()
    assert len(closes) == 7
    assert closes[-2:] == [at(2024, 1, 2, 20, 30), at(2024, 1, 2, 21)]


def test_always_open_closes_are_multiples_and_exclude_start():
    closes = CRYPTO.close_times(at(2024, 1, 1), at(2024, 1, 1, 0, 15), "5m").to_list()
    assert closes == [at(2024, 1, 1, 0, 5), at(2024, 1, 1, 0, 10), at(2024, 1, 1, 0, 15)]
    assert CRYPTO.close_times(at(2024, 1, 2), at(2024, 1, 1), "5m").len() == 0


def test_bars_per_year_of_each_market():
    assert NEW_YORK.bars_per_year("1d") == pytest.approx(252, abs=1)
    assert NEW_YORK.bars_per_year("5m") == pytest.approx(252 * 78, rel=0.01)
    assert CRYPTO.bars_per_year("1h") == pytest.approx(8766)


def test_next_close_skips_weekend_and_is_open_knows_the_session():
    assert NEW_YORK.next_close(at(2024, 1, 5, 21), "1d") == at(2024, 1, 8, 21)
    assert NEW_YORK.is_open(at(2024, 1, 5, 15))
    assert not NEW_YORK.is_open(at(2024, 1, 6, 15))
    assert CRYPTO.is_open(at(2024, 1, 6, 15))


def test_gaps_name_their_edges_and_count():
    bars = simulate(1, 20, "1h", seed=1)
    kept = pl.concat([bars.head(5), bars.slice(8, 4), bars.slice(13)])
    gaps = CRYPTO.gaps(kept, "1h")
    assert gaps["missing_bars"].to_list() == [3, 1]
    assert gaps["after_timestamp"][0] == bars["event_timestamp"][4]
    assert gaps["before_timestamp"][0] == bars["event_timestamp"][8]


def test_off_grid_finds_bars_of_another_time():
    bars = simulate(1, 10, "1h", seed=1)
    shifted = bars.with_columns(
        event_timestamp=pl.when(pl.int_range(pl.len()) == 4)
        .then(pl.col("event_timestamp") + timedelta(minutes=7))
        .otherwise("event_timestamp")
    )
    assert CRYPTO.off_grid(shifted, "1h").height == 1


def test_market_with_lunch_break_has_no_bars_in_it():
    closes = Calendar.of("XTKS").close_times(at(2024, 1, 9), at(2024, 1, 10), "1h")
    # Tokyo trades 09:00-11:30 and 12:30-15:00 local = 00:00-02:30 and 03:30-06:00 UTC
    assert at(2024, 1, 9, 3, 0) not in closes.to_list()
    assert at(2024, 1, 9, 6, 0) in closes.to_list()


def test_unknown_calendar_suggests_one():
    with pytest.raises(ConfigError, match="XNYS"):
        Calendar.of("XNYSE")


def test_dates_beyond_the_calendar_hint_at_the_time_unit():
    with pytest.raises(DataError, match="seconds, milliseconds"):
        NEW_YORK.close_times(at(1972, 1, 1), at(1972, 2, 1), "1d")


def test_next_close_after_weeks_without_trading():
    athens = Calendar.of("ASEX")  # closed from 29 June to 31 July 2015
    assert athens.next_close(at(2015, 6, 27), "1d").date() == date(2015, 8, 3)


def test_bar_closes_and_opens_are_each_others_inverse_breaks_and_half_days_included():
    for name, interval in (("XNYS", "1h"), ("XNYS", "4h"), ("XHKG", "1h"), ("XHKG", "2h"), ("24/7", "1h")):
        calendar = Calendar.of(name)
        closes = calendar.close_times(at(2024, 6, 28), at(2024, 7, 6), interval)
        opens = calendar.bar_opens(closes, interval)
        assert calendar.bar_closes(opens, interval).to_list() == closes.to_list()
    before = pl.Series([at(2024, 7, 3, 12), at(2024, 7, 3, 13, 30), at(2024, 7, 3, 16, 30)])
    closes = NEW_YORK.bar_closes(before, "1h").to_list()  # 3 July ends at 17:00
    assert closes == [at(2024, 7, 3, 13), at(2024, 7, 3, 14, 30), at(2024, 7, 3, 17)]

"""The packaged sample: adjustment on real splits and a real special dividend, closes by the calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from barcast.bars import BARS, Calendar, adjusted
from barcast.bars.sources.sample import SampleSource
from barcast.bars.splits import detect, restate
from barcast.errors import ConfigError, DataError


def around(bars: pl.DataFrame, symbol: str, day: date) -> tuple[dict, dict]:
    """The bar before `day` and the bar of `day`."""
    rows = bars.filter(pl.col("symbol") == symbol).with_row_index("i")
    at = rows.filter(pl.col("event_timestamp").dt.date() == day)["i"][0]
    return rows.row(at - 1, named=True), rows.row(at, named=True)


def test_sample_frame_has_contract_schema_and_order(sample):
    assert sample.schema == BARS
    assert sample.equals(sample.sort("symbol", "event_timestamp"))
    counts = dict(sample.group_by("symbol").len().iter_rows())
    assert counts == {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}


@pytest.mark.parametrize(("symbol", "day"), [("AAPL", date(2005, 2, 28)), ("MSFT", date(2003, 2, 18))])
def test_split_of_two_for_one_halves_history_and_doubles_volume(sample, symbol, day):
    before, after = around(sample, symbol, day)
    assert before["close"] / after["close"] == pytest.approx(2, rel=0.05)
    assert after["price_factor"] / before["price_factor"] == pytest.approx(2)
    assert before["volume_factor"] == 2 * after["volume_factor"]
    smooth_before, smooth_after = around(adjusted(sample), symbol, day)
    assert smooth_after["close"] / smooth_before["close"] == pytest.approx(1, rel=0.05)
    assert smooth_before["volume"] == 2 * before["volume"] * after["volume_factor"]


def test_special_dividend_changes_prices_and_leaves_volume(sample):
    before, after = around(sample, "MSFT", date(2004, 11, 15))
    assert after["price_factor"] / before["price_factor"] == pytest.approx(1.1124, rel=1e-3)
    assert before["volume_factor"] == after["volume_factor"] == 1.0
    smooth_before, smooth_after = around(adjusted(sample), "MSFT", date(2004, 11, 15))
    assert smooth_after["close"] / smooth_before["close"] == pytest.approx(27.39 / 29.97 * 1.11245, rel=1e-4)


def test_volume_factors_of_sample_are_its_three_splits(sample):
    seen = {s: set(g["volume_factor"]) for (s,), g in sample.group_by("symbol")}
    assert seen == {"AAPL": {4.0, 2.0, 1.0}, "MSFT": {2.0, 1.0}, "IBM": {1.0}, "GOOG": {1.0}, "FB": {1.0}}


def test_adjusted_keeps_close_as_traded_recoverable(sample):
    smooth = adjusted(sample)
    assert (smooth["close"] / smooth["price_factor"] - sample["close"]).abs().max() < 1e-9


def test_sample_closes_follow_daylight_saving_and_half_days(sample):
    closes = sample.filter(pl.col("symbol") == "IBM")["event_timestamp"]
    by_day = dict(zip(closes.dt.date(), closes.dt.time(), strict=True))
    assert by_day[date(2012, 1, 10)].hour == 21
    assert by_day[date(2012, 7, 10)].hour == 20
    assert by_day[date(2012, 11, 23)].hour == 18  # the day after Thanksgiving ends at 13:00 in New York


def test_sample_has_no_gap_and_nothing_off_the_calendar(sample):
    calendar = Calendar.of("XNYS")
    assert calendar.gaps(sample, "1d").height == 0
    assert calendar.off_grid(sample, "1d").height == 0


def test_fetch_limits_symbols_and_time():
    start, end = datetime(2013, 2, 25, 21, tzinfo=UTC), datetime(2013, 2, 27, 21, tzinfo=UTC)
    bars = SampleSource().fetch(["MSFT", "AAPL"], start, end)
    assert bars["symbol"].to_list() == ["AAPL", "AAPL", "MSFT", "MSFT"]
    assert bars["event_timestamp"].min() > start
    assert bars["event_timestamp"].max() == end


def test_unknown_symbol_names_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'MSFT'"):
        SampleSource().fetch(["MSFTT"])


def test_sample_with_other_interval_refused():
    with pytest.raises(ConfigError, match="daily bars"):
        SampleSource("5m")


def test_detect_needs_the_price_to_jump_with_the_factor():
    factor, flat = pl.Series([0.5, 1.0]), pl.Series([10.0, 10.0])
    assert detect(factor, flat, flat).to_list() == [1.0, 1.0]
    halved = pl.Series([20.0, 10.0])
    assert detect(factor, halved, halved).to_list() == [1.0, 2.0]
    reverse = pl.Series([1.0, 10.0])
    assert detect(pl.Series([1.0, 0.1]), reverse, reverse).to_list() == [1.0, 0.1]


def test_restate_with_ratio_one_refused(sample):
    now = datetime(2013, 3, 4, tzinfo=UTC)
    with pytest.raises(DataError, match="is no split"):
        restate(sample, symbol="AAPL", split_ratio=1.0, effective=now, known_at=now)

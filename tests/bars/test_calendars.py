"""Symbols of several markets in one workspace: each is held against its own calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from barcast.bars import Calendar, calendars_of
from barcast.bars.calendars import bars_per_year, close_times, expected_closes, gaps, next_close
from barcast.bars.sources import open_source
from barcast.config import load
from barcast.config.bars import FilesConfig, SourceConfig
from barcast.errors import DataError

NAMES = {"BTC": "24/7", "IBM": "XNYS"}
FRIDAY = datetime(2024, 7, 5, 20, tzinfo=UTC)  # New York's close


def calendars(symbol: str) -> Calendar:
    return Calendar.of(NAMES[symbol])


def at(symbol: str, *closes: datetime) -> pl.DataFrame:
    times = pl.Series(closes, dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame({"symbol": [symbol] * len(closes), "event_timestamp": times})


def test_gaps_of_a_weekend_are_those_of_the_market_that_trades_then() -> None:
    monday = datetime(2024, 7, 8, 14, 30, tzinfo=UTC)
    bars = pl.concat([at("BTC", FRIDAY, monday.replace(minute=0)), at("IBM", FRIDAY, monday)])
    found = gaps(bars, "1h", calendars)
    assert found.select("symbol", "missing_bars").rows() == [("BTC", 65)]


def test_closes_of_several_markets_together_are_those_of_any() -> None:
    begin, end = datetime(2024, 7, 5, 19, 15, tzinfo=UTC), datetime(2024, 7, 5, 22, 15, tzinfo=UTC)
    both = close_times(calendars, NAMES, begin, end, "1h")
    assert [(t.hour, t.minute) for t in both] == [(19, 30), (20, 0), (21, 0), (22, 0)]
    assert next_close(calendars, NAMES, begin, "1h") == both[0]
    assert next_close(calendars, ["BTC"], begin, "1h") == both[1]


def test_expected_closes_are_by_symbol_over_the_span_of_all() -> None:
    bars = pl.concat([at("BTC", FRIDAY), at("IBM", FRIDAY - timedelta(hours=3))])
    expected = expected_closes(bars, "1h", calendars)
    assert {symbol: len(closes) for symbol, closes in expected.items()} == {"BTC": 3, "IBM": 4}
    assert expected_closes(bars.clear(), "1h", calendars) == {}


def test_bars_per_year_of_a_portfolio_count_each_close_once() -> None:
    assert bars_per_year(calendars, ["IBM"], "1d") == pytest.approx(251.6, abs=0.5)
    assert bars_per_year(calendars, ["BTC", "BTC"], "1d") == 365.25
    together = bars_per_year(calendars, NAMES, "1d")  # no close is common: 20 or 21 o'clock, and midnight
    assert together == pytest.approx(251.6 + 365.2, abs=0.5)


def test_daily_files_take_the_close_of_each_symbols_own_session(tmp_path) -> None:
    universe = tmp_path / "universe.yaml"
    universe.write_text("symbols: {BTC: {calendar: 24/7}, IBM: {}}")
    config = load(None, universe={"path": str(universe), "calendar": "XNYS"}, source={"kind": "simulator"})
    header = "date,symbol,open,high,low,close,volume"
    rows = ["2024-07-03,BTC,1,2,0.5,1.5,10", "2024-07-03,IBM,1,2,0.5,1.5,10"]
    (tmp_path / "bars").mkdir()
    file = tmp_path / "bars" / "all.csv"
    file.write_text("\n".join([header, *rows]))
    source = SourceConfig(kind="files", files=FilesConfig(path=str(tmp_path / "bars")))
    opened = open_source(source, interval="1d", calendars=calendars_of(config))
    closes = dict(opened.fetch().select("symbol", "event_timestamp").iter_rows())
    assert closes == {
        "BTC": datetime(2024, 7, 4, tzinfo=UTC),
        "IBM": datetime(2024, 7, 3, 17, tzinfo=UTC),  # a half day
    }
    file.write_text("\n".join([header, "2024-07-04,BTC,1,2,0.5,1.5,10", "2024-07-04,IBM,1,2,0.5,1.5,10"]))
    with pytest.raises(DataError, match=r"1 date\(s\) are no session of calendar XNYS"):
        open_source(source, interval="1d", calendars=calendars_of(config)).fetch()

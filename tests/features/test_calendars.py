"""A universe of two markets: each symbol's annual figures, hours and sessions follow its own calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feature_bars import differences, make_bars, streamed

from barcast.bars.calendar import Calendar
from barcast.config.features import CATEGORIES, FeaturesConfig
from barcast.errors import DataError
from barcast.features import StreamEngine, catalogue, compute

NAMES = {"BTC": "24/7", "ETH": "24/7", "IBM": "XNYS", "SONY": "XTKS"}
OWN = FeaturesConfig(categories=tuple(name for name in CATEGORIES if name != "cross_symbol"))
BEGIN = datetime(2024, 5, 6, tzinfo=UTC)


def calendar_of(symbol: str) -> Calendar:
    return Calendar.of(NAMES[symbol])


def mixed(interval: str, days: int, symbols: tuple[str, ...] = tuple(NAMES)) -> pl.DataFrame:
    """Bars of each symbol at the closes of its own market, from Monday 6 May 2024 on."""
    parts = []
    for k, symbol in enumerate(symbols):
        closes = calendar_of(symbol).close_times(BEGIN, BEGIN + timedelta(days=days), interval)
        bars = make_bars(1, len(closes), interval, seed=20 + k)
        parts.append(
            bars.with_columns(symbol=pl.lit(symbol), event_timestamp=closes, created_timestamp=closes)
        )
    return pl.concat(parts)


@pytest.mark.parametrize(("interval", "days"), [("1h", 60), ("1d", 500)])
def test_own_features_in_a_mixed_universe_equal_those_on_one_calendar(interval: str, days: int) -> None:
    bars = mixed(interval, days)
    together = compute(bars, interval=interval, calendar=calendar_of, config=OWN)
    for symbol in NAMES:
        mine = pl.col("symbol") == symbol
        alone = compute(bars.filter(mine), interval=interval, calendar=calendar_of(symbol), config=OWN)
        assert differences(together.filter(mine), alone) == []
        assert alone.drop_nulls().height > 0


@pytest.mark.parametrize(("interval", "days"), [("1h", 45), ("1d", 300)])
def test_stream_warm_start_and_prefix_with_mixed_calendars_equal_batch(interval: str, days: int) -> None:
    bars = mixed(interval, days)
    batch = compute(bars, interval=interval, calendar=calendar_of)
    assert differences(batch, streamed(StreamEngine(interval, calendar_of), bars)) == []
    edge = BEGIN + timedelta(days=days * 0.6)
    early = pl.col("event_timestamp") <= edge
    engine = StreamEngine(interval, calendar_of)
    first = engine.warm(bars.filter(early).sample(fraction=1.0, shuffle=True, seed=1))
    rest = streamed(engine, bars.filter(~early))
    assert differences(batch, pl.concat([first, rest]).sort("symbol", "event_timestamp")) == []
    prefix = compute(bars.filter(early), interval=interval, calendar=calendar_of)
    assert differences(batch.filter(early), prefix) == []


def test_annual_volatility_takes_the_bars_of_the_symbols_year() -> None:
    out = compute(mixed("1h", 60), interval="1h", calendar=calendar_of, config=OWN)
    per_year = {"BTC": 365.25 * 24, "IBM": 252 * 7}  # six whole hours and a half a session: seven bars
    bars = mixed("1h", 60)
    for symbol, expected in per_year.items():
        close = bars.filter(pl.col("symbol") == symbol)["close"].to_numpy()
        deviation = np.diff(np.log(close))[-50:].std()
        found = out.filter(pl.col("symbol") == symbol)["volatility_annual_50"][-1]
        assert found == pytest.approx(deviation * np.sqrt(expected), rel=0.01)


def test_sessions_and_holidays_are_those_of_the_symbols_market() -> None:
    out = compute(mixed("1h", 70), interval="1h", calendar=calendar_of, config=OWN)

    def row(symbol: str, *when: int) -> dict[str, float]:
        at = (pl.col("symbol") == symbol) & (pl.col("event_timestamp") == datetime(*when, tzinfo=UTC))  # type: ignore[arg-type]
        return out.filter(at).row(0, named=True)

    stock, coin = (
        row("IBM", 2024, 7, 3, 17),
        row("BTC", 2024, 7, 3, 17),
    )  # New York's half day: 13:30 to 17:00
    assert (stock["session_progress"], stock["session_last_hour"]) == (1, 1)
    assert (coin["session_progress"], coin["session_last_hour"]) == (pytest.approx(17 / 24), 0)
    assert (stock["before_holiday"], coin["before_holiday"]) == (1, 1)
    tokyo = row("SONY", 2024, 7, 3, 1)  # opens at 9 o'clock, midnight in UTC
    assert (tokyo["session_first_hour"], tokyo["before_holiday"]) == (1, 0)
    assert (stock["days_to_holiday"], tokyo["days_to_holiday"]) == pytest.approx(
        (1 / 30, 12 / 30)
    )  # 4 and 15 July


def test_hours_are_counted_from_the_open_and_end_with_the_session() -> None:
    bars = mixed("30m", 40, ("BTC", "IBM"))
    out = compute(bars, interval="30m", calendar=calendar_of, config=OWN)
    ibm = out.filter(pl.col("symbol") == "IBM").join(
        bars.filter(pl.col("symbol") == "IBM").select("event_timestamp", "close"), on="event_timestamp"
    )
    # a session of 13 bars: four hours are eight of them, the rest is the second part
    place = pl.int_range(pl.len()) % 13
    ends = ibm.with_columns(place=place).filter(pl.col("place").is_in([7, 12]))
    back = ends["close"].log().diff()
    shown = ends["hour_return_1"]
    assert np.allclose(shown[20:], back[20:], rtol=1e-4)
    assert np.allclose(ends["hour_distance"][20:], 0.0, atol=1e-7)
    between = ibm.with_columns(place=place).filter(pl.col("place") == 3)["hour_return_1"]
    before = ends.filter(pl.col("place") == 12)["hour_return_1"]
    assert between[12:].to_list() == pytest.approx(before[11 : 11 + len(between) - 12].to_list(), rel=1e-5)


def test_cross_symbol_features_run_on_the_common_clock() -> None:
    out = compute(mixed("1h", 45), interval="1h", calendar=calendar_of)
    ibm = out.filter(pl.col("symbol") == "IBM").tail(1)
    assert ibm["market_available"].item() == 1  # the coins' bars of half an hour ago
    night = out.filter((pl.col("symbol") == "BTC") & (pl.col("event_timestamp").dt.hour() == 12)).tail(1)
    assert night["market_available"].item() == 1  # the other coin
    alone = compute(mixed("1h", 45, ("BTC", "IBM")), interval="1h", calendar=calendar_of)
    weekend = alone.filter((pl.col("symbol") == "BTC") & (pl.col("event_timestamp").dt.weekday() == 7)).tail(
        1
    )
    assert weekend["market_available"].item() == 0  # Friday's bars are too old
    names = {spec.name for spec in catalogue("1h") if spec.category == "cross_symbol"}
    assert weekend.select(sorted(names)).null_count().sum_horizontal().item() == 0


def test_bar_off_its_own_markets_grid_is_refused_and_changes_nothing() -> None:
    bars = mixed("1h", 8, ("BTC", "IBM"))
    engine = StreamEngine("1h", calendar_of)
    engine.warm(bars)
    last = engine.newest
    assert last is not None
    next_hour = last + timedelta(hours=1)
    late = bars.group_by("symbol", maintain_order=True).last()
    both = late.with_columns(event_timestamp=pl.lit(next_hour), created_timestamp=pl.lit(next_hour)).select(
        bars.columns
    )
    with pytest.raises(DataError, match="no close of 1h bars on XNYS"):
        engine.update(both.sort("symbol"))
    assert engine.newest == last
    assert engine.update(both.filter(pl.col("symbol") == "BTC")).height == 1


def test_state_of_a_symbol_that_moved_to_another_calendar_is_refused(tmp_path: Path) -> None:
    bars = mixed("1h", 8, ("BTC", "IBM"))
    engine = StreamEngine("1h", calendar_of)
    engine.warm(bars)
    engine.save(tmp_path / "state")
    again = StreamEngine("1h", calendar_of)
    again.load(tmp_path / "state")
    close = datetime(2024, 5, 14, 1, tzinfo=UTC)
    coming = (
        bars.filter(pl.col("symbol") == "BTC")
        .tail(1)
        .with_columns(event_timestamp=pl.lit(close), created_timestamp=pl.lit(close))
    )
    assert differences(engine.update(coming), again.update(coming)) == []
    with pytest.raises(DataError, match="IBM on XNYS; 24/7 was expected"):
        StreamEngine("1h", Calendar.of("24/7")).load(tmp_path / "state")

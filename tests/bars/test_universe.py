"""Lives of symbols, and hindsight said aloud."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from barcast.bars.quality import validate_bars
from barcast.bars.universe import Universe, open_universe
from barcast.config.bars import QualityConfig, UniverseConfig
from barcast.errors import ConfigError, DataError

from .conftest import one_bar

TEXT = """
name: mine
chosen_on: 2005-01-01
calendar: XNYS
symbols:
  META: {listed: 2012-05-18, former_names: {FB: 2022-06-09}}
  LEH: {listed: 1994-05-02, delisted: 2008-09-17}
  BTC/USDT: {calendar: 24/7, currency: USDT}
"""


@pytest.fixture
def mine(tmp_path) -> Universe:
    file = tmp_path / "universe.yaml"
    file.write_text(TEXT)
    return Universe.load(file)


def test_members_follow_listing_and_delisting(mine):
    assert mine.members(date(2008, 9, 16)) == ["BTC/USDT", "LEH"]
    assert mine.members(date(2008, 9, 17)) == ["BTC/USDT"]
    assert mine.members(date(2012, 5, 18)) == ["BTC/USDT", "META"]


def test_names_resolve_by_day(mine):
    assert mine.resolve("FB", date(2015, 1, 1)) == "META"
    assert mine.name_on("META", date(2022, 6, 8)) == "FB"
    assert mine.name_on("META", date(2022, 6, 9)) == "META"
    with pytest.raises(DataError, match="no symbol 'FB'"):
        mine.resolve("FB", date(2023, 1, 1))


def test_bars_take_the_present_name(mine):
    assert mine.renamed(one_bar("FB"))["symbol"].to_list() == ["FB"]  # 2024: another company's ticker by then
    early = one_bar("FB", -24 * 365 * 4)
    assert mine.renamed(early)["symbol"].to_list() == ["META"]


def test_calendar_and_currency_fall_back_to_the_universe(mine):
    assert (mine.calendar_of("BTC/USDT").name, mine.calendar_of("LEH").name) == ("24/7", "XNYS")
    assert (mine.currency_of("BTC/USDT"), mine.currency_of("unknown")) == ("USDT", "USD")


def test_hindsight_is_said_only_when_true(mine):
    assert mine.hindsight(date(2005, 1, 1)) == ""
    assert "chosen in hindsight: on 2005-01-01" in mine.hindsight(date(2000, 1, 1))
    assert "at an unknown date" in Universe().hindsight(date(2000, 1, 1))


def test_packaged_universe_covers_the_sample(sample):
    assert sorted(sample["symbol"].unique()) == sorted(Universe.packaged().symbols)


def test_open_universe_without_file_takes_all_symbols_seen():
    seen = open_universe(UniverseConfig(calendar="24/7"), source_kind="simulator", symbols=["B", "A"])
    assert list(seen.symbols) == ["A", "B"]
    assert seen.calendar_of("A").name == "24/7"


def test_open_universe_with_file_leaves_to_the_configuration_what_it_does_not_place(tmp_path):
    (tmp_path / "silent.yaml").write_text("symbols: {A: {}, B: {calendar: XTKS, currency: JPY}}")
    (tmp_path / "placed.yaml").write_text("calendar: XLON\nsymbols: {A: {}, B: {calendar: XTKS}}")

    def of(file: str, symbol: str) -> tuple[str, str]:
        config = UniverseConfig(path=str(tmp_path / file), calendar="24/7", currency="EUR")
        found = open_universe(config)
        return found.calendar_of(symbol).name, found.currency_of(symbol)

    assert [of("silent.yaml", s) for s in "ABC"] == [("24/7", "EUR"), ("XTKS", "JPY"), ("24/7", "EUR")]
    assert [of("placed.yaml", s)[0] for s in "ABC"] == ["XLON", "XTKS", "24/7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbols: {A: {listed: 2020-01-02, delisted: 2020-01-01}}", "but listed on"),
        ("symbols: {A: {listd: 2020-01-02}}", "listd"),
        (
            "symbols: {A: {former_names: {X: 2020-01-01}}, B: {former_names: {X: 2020-01-01}}}",
            "former name of A and of B",
        ),
        ("calendar: XXXX\nsymbols: {A: {}}", "no calendar 'XXXX'"),
        ("symbols: [", "cannot be used"),
    ],
)
def test_wrong_universe_files_are_refused(tmp_path, text, message):
    file = tmp_path / "u.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Universe.load(file)


def test_missing_universe_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no universe file"):
        Universe.load(tmp_path / "none.yaml")


def test_a_bar_that_closes_at_midnight_belongs_to_the_day_before():
    life = {"listed": "2024-09-02", "delisted": "2024-09-06", "former_names": {"MATIC": "2024-09-04"}}
    universe = Universe.model_validate({"calendar": "24/7", "symbols": {"POL": life}})
    last = one_bar("MATIC", hour=24 * 247)  # closes on 4 September at 00:00: the last day under the old name
    assert universe.renamed(last)["symbol"].to_list() == ["POL"]
    days = [one_bar("POL", hour=24 * day) for day in (245, 246, 249, 250)]  # of 1, 2, 5 and 6 September
    for outside, bars in enumerate((days[1:3], days)):
        as_of = bars[-1]["event_timestamp"][0]
        report = validate_bars(pl.concat(bars), "1d", as_of, QualityConfig(), universe=universe)
        (found,) = (r for r in report.results if r.name == "outside_listing")
        assert found.observed == ("POL: 2" if outside else "within the limit")

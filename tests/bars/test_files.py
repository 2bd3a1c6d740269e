"""Files of many shapes in, bars out; bad files refused with words."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from barcast.bars import Calendar
from barcast.bars.sources import open_source
from barcast.bars.sources.times import parse_times
from barcast.config.bars import CustomConfig, FilesConfig, SourceConfig
from barcast.errors import BarcastError, ConfigError, DataError

T0 = datetime(2024, 1, 1, tzinfo=UTC)


def source(path: Path, interval: str = "5m", calendar: str = "24/7", **files: object):
    config = SourceConfig(kind="files", files=FilesConfig(path=str(path), **files))
    return open_source(config, interval=interval, calendar=calendar)


def csv(path: Path, rows: list[str], header: str = "timestamp,open,high,low,close,volume") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def good(count: int = 5) -> list[str]:
    return [f"{(T0 + timedelta(minutes=5 * i)).isoformat()},1,2,0.5,1.5,10" for i in range(count)]


def test_open_times_become_closes(tmp_path):
    csv(tmp_path / "BTC.csv", good())
    bars = source(tmp_path).fetch()
    assert bars["symbol"].unique().to_list() == ["BTC"]
    assert bars["event_timestamp"][0] == T0 + timedelta(minutes=5)
    assert bars["created_timestamp"].equals(bars["event_timestamp"].alias("created_timestamp"))
    assert source(tmp_path, timestamp="close").fetch()["event_timestamp"][0] == T0


def test_parquet_csv_gz_and_symbol_column_give_the_same_bars(tmp_path):
    frame = pl.read_csv(csv(tmp_path / "x.csv", good())).with_columns(
        pl.col("timestamp").str.to_datetime(time_zone="UTC")
    )
    for folder in "abc":
        (tmp_path / folder).mkdir()
    frame.write_parquet(tmp_path / "a" / "BTC_2fUSDT.parquet")
    (tmp_path / "b" / "BTC_2fUSDT.csv.gz").write_bytes(gzip.compress((tmp_path / "x.csv").read_bytes()))
    both = pl.concat(
        [frame.with_columns(ticker=pl.lit("BTC/USDT")), frame.with_columns(ticker=pl.lit("ETH"))]
    )
    both.write_parquet(tmp_path / "c" / "all.parquet")
    a, b = source(tmp_path / "a").fetch(), source(tmp_path / "b").fetch()
    c = source(tmp_path / "c" / "all.parquet")
    assert a.equals(b)
    assert a.equals(c.fetch(["BTC/USDT"]))
    assert c.symbols() == ["BTC/USDT", "ETH"]


def test_aliases_own_names_and_time_format(tmp_path):
    csv(tmp_path / "X.csv", ["02.01.2024 10:00;1;2;0.5;1.5;10"], "Zeit;O;H;L;Last;Vol")
    with pytest.raises(DataError, match="no time column"):
        source(tmp_path).fetch()
    csv(tmp_path / "X.csv", ["02.01.2024 10:00,1,2,0.5,1.5,10"], "Zeit,O,H,L,Kurs,Vol")
    columns = {"timestamp": "Zeit", "close": "Kurs"}
    bars = source(tmp_path, columns=columns, time_format="%d.%m.%Y %H:%M", timezone="Europe/Berlin").fetch()
    assert bars["event_timestamp"][0] == datetime(2024, 1, 2, 9, 5, tzinfo=UTC)
    assert bars["close"][0] == 1.5


def test_daily_dates_become_session_closes_and_adjusted_close_factors(tmp_path):
    rows = ["2024-07-02,100,101,99,100,10,50", "2024-07-03,50,51,49,50,20,50", "2024-07-05,50,51,49,50,20,50"]
    csv(tmp_path / "X.csv", rows, "Date,Open,High,Low,Close,Volume,Adj Close")
    bars = source(tmp_path, "1d", "XNYS").fetch()
    assert [t.hour for t in bars["event_timestamp"]] == [20, 17, 20]  # 3 July is a half day
    assert bars["price_factor"].to_list() == [0.5, 1, 1]
    assert bars["volume_factor"].to_list() == [2, 1, 1]


@pytest.mark.parametrize("factor", [1, 1000, 1_000_000, 1_000_000_000])
def test_epoch_numbers_of_any_unit_are_told_by_size(factor):
    times = parse_times(pl.Series([int(T0.timestamp()) * factor]), "UTC", "", "x")
    assert times.to_list() == [T0]


def test_real_exchange_files_convert_and_show_their_gap(shared_data):
    bars = source(shared_data / "crypto_1m", "1m").fetch(["BTCUSDT"])
    assert bars["event_timestamp"][0] == datetime(2021, 4, 20, 20, 43, tzinfo=UTC)
    gaps = Calendar.of("24/7").gaps(bars, "1m")
    assert gaps["missing_bars"].to_list() == [284]
    assert gaps["after_timestamp"][0] == datetime(2021, 4, 25, 4, 1, tzinfo=UTC)


def later(rows: list[str], index: int, old: str, new: str) -> list[str]:
    return [row.replace(old, new) if i == index else row for i, row in enumerate(rows)]


HEADER = "timestamp,open,high,low,close,volume"
FUTURE = "2124-01-01T00:00:00+00:00,1,2,0.5,1.5,10"
BAD = {
    "no rows": (HEADER, [], "no rows"),
    "column missing": (
        "timestamp,open,high,low,volume",
        ["2024-01-01T00:00:00Z,1,2,0.5,10"],
        r"lacks the column.*close",
    ),
    "text in price": (HEADER, later(good(), 2, "1.5", "n/a"), "holds 'n/a' in row 3"),
    "high below low": (HEADER, later(good(), 1, ",2,", ",0.1,"), "high_below_low.*high at or above low"),
    "negative volume": (HEADER, later(good(), 1, ",10", ",-10"), "volume_negative"),
    "duplicate time": (HEADER, [*good(2), good(2)[1]], "occurs twice"),
    "unsorted": (HEADER, good()[::-1], "comes after a later one"),
    "future": (HEADER, [*good(), FUTURE], "from_the_future"),
    "empty price": (HEADER, later(good(), 3, ",1.5,", ",,"), "missing_value"),
    "no time": (HEADER, ["x,1,2,0.5,1.5,10"], "not understood"),
    "other interval": (HEADER, good()[::3], "the configured interval is 5m"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_with_words(tmp_path, name):
    header, rows, message = BAD[name]
    csv(tmp_path / "X.csv", rows, header)
    with pytest.raises(DataError, match=message) as caught:
        source(tmp_path).fetch()
    assert caught.value.hint
    assert caught.value.exit_code == 3


def test_missing_empty_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        source(tmp_path / "none").symbols()
    with pytest.raises(DataError, match=r"holds no \.parquet"):
        source(tmp_path).symbols()
    (tmp_path / "X.csv").write_text("")
    with pytest.raises(DataError, match="0 bytes"):
        source(tmp_path).fetch()
    (tmp_path / "X.csv").unlink()
    (tmp_path / "X.parquet").write_bytes(b"PAR1 and then nonsense")
    with pytest.raises(DataError, match="cannot be read"):
        source(tmp_path).fetch()


def test_truncated_parquet_is_refused(tmp_path):
    file = tmp_path / "X.parquet"
    pl.read_csv(csv(tmp_path / "y.txt", good(200))).write_parquet(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read"):
        source(tmp_path).fetch()


def test_local_times_at_a_clock_change_are_refused(tmp_path):
    twice = [f"2024-10-27 02:{m:02d}:00,1,2,0.5,1.5,10" for m in range(0, 60, 5)]
    csv(tmp_path / "X.csv", twice)
    with pytest.raises(DataError, match="cannot be placed in Europe/Berlin"):
        source(tmp_path, timezone="Europe/Berlin").fetch()


def test_date_on_a_holiday_is_refused_with_the_calendar(tmp_path):
    csv(tmp_path / "X.csv", ["2024-07-04,1,2,0.5,1.5,10"])
    with pytest.raises(DataError, match="no session of calendar XNYS"):
        source(tmp_path, "1d", "XNYS").fetch()


def test_wrong_settings_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"files\.path is empty"):
        open_source(SourceConfig(kind="files"))
    with pytest.raises(ConfigError, match="Canonical columns"):
        source(tmp_path, columns={"price": "x"})
    csv(tmp_path / "X.csv", good())
    with pytest.raises(DataError, match=r"source\.files\.columns says close"):
        source(tmp_path, columns={"close": "Nope"}).fetch()
    with pytest.raises(ValueError, match=r"start\n.*'soon'"):
        SourceConfig(start="soon")


OWN = '''
"""A source of one's own in one file."""
from datetime import UTC, datetime, timedelta
import polars as pl
from barcast.bars.schema import conform
from barcast.bars.sources import between, selected

class Own:
    def __init__(self, interval, calendar, price=1.0):
        self.price = price
    def symbols(self):
        return ["OWN"]
    def fetch(self, symbols=None, start=None, end=None):
        selected(self.symbols(), symbols)
        times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(5)]
        p = [self.price] * 5
        prices = {name: p for name in ("open", "high", "low", "close", "volume")}
        frame = pl.DataFrame({"symbol": "OWN", "event_timestamp": times, **prices})
        return between(conform(frame), start, end)
'''


def test_own_source_in_one_file_works_by_configuration(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    config = SourceConfig(kind="custom", custom=CustomConfig(factory=f"{file}:Own", options={"price": 3.0}))
    bars = open_source(config, interval="1h").fetch(end=T0 + timedelta(hours=1))
    assert bars["close"].to_list() == [3.0, 3.0]
    for wrong in (f"{file}:None_", "nowhere.py:Own", "no.such.module:x", ""):
        with pytest.raises(BarcastError):
            open_source(SourceConfig(kind="custom", custom=CustomConfig(factory=wrong)), interval="1h")


def test_configured_symbols_and_span_limit_every_source():
    config = SourceConfig(symbols=("FB",), start="2013-02-20", end="2013-02-25")
    limited = open_source(config)
    assert limited.symbols() == ["FB"]
    days = limited.fetch()["event_timestamp"].dt.date().to_list()
    assert days == [date(2013, 2, 20), date(2013, 2, 21), date(2013, 2, 22)]
    with pytest.raises(DataError, match="no symbol 'AAPL'"):
        limited.fetch(["AAPL"])


def test_daily_midnights_are_dates_and_calendar_is_guessed(tmp_path):
    from barcast.bars.sources.files import guess_calendar

    days = [T0 + timedelta(days=i) for i in range(1, 12)]
    (tmp_path / "all").mkdir()
    (tmp_path / "stocks").mkdir()
    bars = pl.DataFrame({"timestamp": days}).with_columns(
        **{n: pl.lit(5.0) for n in ("open", "high", "low", "close", "volume")}
    )
    bars.write_parquet(tmp_path / "all" / "BTC.parquet")
    bars.filter(pl.col("timestamp").dt.weekday() < 6).write_parquet(tmp_path / "stocks" / "X.parquet")
    assert guess_calendar(FilesConfig(path=str(tmp_path / "all")), "1d") == "24/7"
    assert guess_calendar(FilesConfig(path=str(tmp_path / "stocks")), "1d") == "XNYS"
    stocks = source(tmp_path / "stocks", "1d", "XNYS").fetch()
    assert stocks["event_timestamp"][0] == datetime(2024, 1, 2, 21, tzinfo=UTC)
    assert source(tmp_path / "all", "1d").fetch()["event_timestamp"][0] == days[0] + timedelta(days=1)


def test_hourly_stock_bars_end_with_the_session(tmp_path):
    opened = [
        datetime(2024, 7, day, 13, 30, tzinfo=UTC) + timedelta(hours=h) for day in (2, 5) for h in range(7)
    ]
    opened[7:7] = [
        datetime(2024, 7, 3, 13, 30, tzinfo=UTC) + timedelta(hours=h) for h in range(4)
    ]  # a half day
    closes = Calendar.of("XNYS").close_times(opened[0], datetime(2024, 7, 6, tzinfo=UTC), "1h")
    for name, times in (("open", opened), ("close", closes)):
        (tmp_path / name).mkdir()
        csv(tmp_path / name / "X.csv", [f"{t.isoformat()},1,2,0.5,1.5,10" for t in times])
        bars = source(tmp_path / name, "1h", "XNYS", timestamp=name).fetch()
        assert bars["event_timestamp"].to_list() == closes.to_list()
    half = [f"{(opened[0] + timedelta(minutes=30 * i)).isoformat()},1,2,0.5,1.5,10" for i in range(13)]
    csv(tmp_path / "open" / "X.csv", half)
    with pytest.raises(DataError, match="1800 s apart; the configured interval is 1h"):
        source(tmp_path / "open", "1h", "XNYS").fetch()
    four = Calendar.of("XNYS").close_times(opened[0], datetime(2024, 7, 6, tzinfo=UTC), "4h")
    csv(tmp_path / "close" / "X.csv", [f"{t.isoformat()},1,2,0.5,1.5,10" for t in four])
    bars = source(tmp_path / "close", "4h", "XNYS", timestamp="close").fetch()
    assert bars["event_timestamp"].to_list() == four.to_list()


def test_midnight_closes_of_a_market_that_never_closes_stay(tmp_path):
    days = [T0 + timedelta(days=i) for i in range(5)]
    csv(tmp_path / "BTC.csv", [f"{t.isoformat()},1,2,0.5,1.5,10" for t in days])
    bars = source(tmp_path, "1d", timestamp="close").fetch()
    assert bars["event_timestamp"].to_list() == days


def test_symbols_that_look_like_other_values_keep_their_letters(tmp_path):
    rows = [f"{name},2024-01-02,1,2,0.5,1.5,10" for name in ("000001", "TRUE", "600000")]
    csv(tmp_path / "all.csv", rows, "ticker,date,open,high,low,close,volume")
    assert source(tmp_path, "1d", "XSHG").fetch()["symbol"].to_list() == ["000001", "600000", "TRUE"]
    (tmp_path / "zeros").mkdir()
    csv(tmp_path / "zeros" / "a.csv", rows[:1], "ticker,date,open,high,low,close,volume")
    assert source(tmp_path / "zeros", "1d", "XSHG").fetch()["symbol"].to_list() == ["000001"]
    csv(tmp_path / "all.csv", [*rows, ",2024-01-03,1,2,0.5,1.5,10"], "ticker,date,open,high,low,close,volume")
    with pytest.raises(DataError, match="a row has no symbol"):
        source(tmp_path, "1d", "XSHG").symbols()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2024-01-02,1,2,0.5,1,1,10", "2024-01-03,null,null,null,null,null,null"], "holds 'null' in row 2"),
        (["2024-01-02,1,2,0.5,1,1,10", "2024-01-03,,2,0.5,1,0.5,10"], "missing_value"),
    ],
)
def test_bad_rows_beside_an_adjusted_close_are_refused_with_words(tmp_path, rows, message):
    csv(tmp_path / "X.csv", rows, "Date,Open,High,Low,Close,Adj Close,Volume")
    with pytest.raises(DataError, match=message):
        source(tmp_path, "1d", "XNYS").fetch()
    csv(tmp_path / "X.csv", ["2024-01-02,2,0.5,1,1,10"], "Date,High,Low,Close,Adj Close,Volume")
    with pytest.raises(DataError, match=r"lacks the column.*open"):
        source(tmp_path, "1d", "XNYS").fetch()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("202401021000", "%Y%m%d%H%M"),
        ("2024-01-02 10:00:00", "%F %T"),
        ("2024-01-02 10:00 AM", "%Y-%m-%d %I:%M %p"),
    ],
)
def test_the_users_time_format_holds_whatever_the_text_looks_like(tmp_path, text, form):
    csv(tmp_path / "X.csv", [f"{text},1,2,0.5,1.5,10"])
    bars = source(tmp_path, "1h", time_format=form).fetch()
    assert bars["event_timestamp"][0] == datetime(2024, 1, 2, 11, tzinfo=UTC)
    days = pl.Series([20240102, 20240103])
    assert parse_times(days, "UTC", "%Y%m%d", "x").to_list() == [date(2024, 1, 2), date(2024, 1, 3)]


def test_suffixes_in_capitals_missing_times_and_unknown_zones(tmp_path):
    pl.read_csv(csv(tmp_path / "y.txt", good())).write_parquet(tmp_path / "X.PARQUET")
    assert source(tmp_path).fetch().height == 5
    with pytest.raises(DataError, match=r"1 row.* have no time"):
        parse_times(pl.Series([1.7e9, float("nan")]), "UTC", "", "x")
    with pytest.raises(ValueError, match="no time zone 'Mars/X'"):
        FilesConfig(timezone="Mars/X")


@pytest.mark.parametrize(
    ("small", "large"), [(1, 1000), (1, 1_000_000), (1000, 1_000_000_000), (1_000_000, 1_000_000_000)]
)
def test_epoch_numbers_of_two_units_are_refused(small, large):
    seconds = int(T0.timestamp())
    with pytest.raises(DataError, match="mixes units"):
        parse_times(pl.Series([seconds * small, (seconds + 3600) * large]), "UTC", "", "x")


def test_milliseconds_since_before_1970_are_one_unit():
    days = pl.Series([-5, 0, 1, 30, 200, 1500, 20_000])
    times = parse_times(days * 86_400_000, "UTC", "", "x")
    assert times.to_list() == [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=d) for d in days]

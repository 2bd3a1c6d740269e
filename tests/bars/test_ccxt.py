"""The ccxt source, real ccxt included, against an exchange on a local port."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from barcast import clock
from barcast.adapters.ccxt import CcxtSource
from barcast.bars import Calendar
from barcast.bars.feed import Feed
from barcast.bars.ingest import ingest
from barcast.bars.sources.simulator import simulate
from barcast.config import Config
from barcast.config.bars import CcxtConfig, FeedConfig
from barcast.errors import ConfigError, DataError

from .exchange_double import Exchange, rows_of, running

BARS = simulate(2, 250, "1m", seed=9)
NAMES = {"SIM0000": "BTC/USDT", "SIM0001": "ETH/USDT"}
TRUTH = BARS.with_columns(symbol=pl.col("symbol").replace_strict(NAMES)).sort("symbol", "event_timestamp")
TIMES = BARS["event_timestamp"].unique().sort()


@pytest.fixture
def exchange():
    """An exchange whose clock stands in the middle of bar 200: that bar is running, later ones unknown."""
    rows = {NAMES[s].replace("/", ""): rows_of(g) for (s,), g in BARS.group_by("symbol")}
    moment = TIMES[199] + timedelta(seconds=30)
    with running(Exchange(rows, round(moment.timestamp() * 1000))) as double, clock.fixed(moment):
        yield double


def source(double: Exchange, **settings: object) -> CcxtSource:
    options = {
        "urls": {"api": {"public": double.url}},
        "enableRateLimit": False,
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
    }
    settings = {"symbols": ("BTC/USDT", "ETH/USDT"), "options": options, "timeout_seconds": 5.0, **settings}
    return CcxtSource(CcxtConfig(exchange="binance", **settings), "1m", sleep=lambda seconds: None)


def test_history_comes_page_by_page_closed_only_stamped_at_close(exchange):
    exchange.max_page = 60
    start = TIMES[9]
    bars = source(exchange, page_bars=60).fetch(start=start)
    wanted = TRUTH.filter(pl.col("event_timestamp") > start, pl.col("event_timestamp") <= TIMES[199])
    assert bars.equals(wanted)
    assert exchange.requests.count("klines") == 8  # four pages of each symbol


def test_without_a_start_the_newest_page_comes(exchange):
    bars = source(exchange, page_bars=20, symbols=("BTC/USDT",)).fetch()
    assert bars.height == 20
    assert bars["event_timestamp"].max() == TIMES[199]


def test_end_is_included_and_start_is_not(exchange):
    bars = source(exchange).fetch(["ETH/USDT"], TIMES[3], TIMES[6])
    assert bars["event_timestamp"].to_list() == TIMES[4:7].to_list()


def test_lost_connections_and_overload_are_tried_again(exchange):
    one = source(exchange)
    exchange.failures = [0, 503, 0]
    assert one.fetch(["BTC/USDT"], TIMES[190]).height == 9
    exchange.failures = [0, 200, 0, 0]
    assert one.fetch(["BTC/USDT"], TIMES[190]).height == 9


def test_exchange_that_stays_away_is_an_error_with_words(exchange):
    one = source(exchange, max_retries=2)
    exchange.failures = [0] * 10
    with pytest.raises(DataError, match="did not answer in 3 attempts"):
        one.fetch(["BTC/USDT"])


def test_unknown_market_exchange_interval_and_no_symbols_are_named(exchange):
    with pytest.raises(DataError, match=r"no market 'BTC/USD'.*BTC/USDT"):
        source(exchange, symbols=("BTC/USD",)).fetch()
    with pytest.raises(ConfigError, match="binance"):
        CcxtSource(CcxtConfig(exchange="binanse", symbols=("BTC/USDT",)), "1m")
    with pytest.raises(ConfigError, match="no bars of 7m"):
        CcxtSource(CcxtConfig(symbols=("BTC/USDT",)), "7m")
    with pytest.raises(ConfigError, match="symbols is empty"):
        CcxtSource(CcxtConfig(), "1m")


def test_exchange_with_damaged_bars_is_refused(exchange):
    exchange.bars["BTCUSDT"][150][2] = 0.0001
    with pytest.raises(DataError, match="high_below_low"):
        source(exchange).fetch(["BTC/USDT"], TIMES[100])


def test_clock_of_the_exchange_is_read(exchange):
    assert source(exchange).server_time() == TIMES[199] + timedelta(seconds=30)


def test_second_ingest_asks_only_for_what_is_new(exchange, tmp_path):
    config = Config.model_validate(
        {
            "workspace": "w",
            "interval": "1m",
            "storage": {"root": str(tmp_path)},
            "universe": {"calendar": "24/7"},
            "source": {
                "kind": "ccxt",
                "ccxt": {
                    **source(exchange)._config.model_dump(),
                    "start": TIMES[99].isoformat(),
                    "page_bars": 50,
                },
            },
        }
    )
    place = config.open_workspace()
    assert ingest(config, place).added == 200
    version = ingest(config, place).store.version
    exchange.requests.clear()
    exchange.clock += 600_000
    with clock.fixed(TIMES[209] + timedelta(seconds=30)):
        again = ingest(config, place)
    assert (version, again.added, again.replaced) == (0, 20, 0)
    assert again.gaps.height == 0
    assert exchange.requests.count("klines") == 2
    stored = again.store.read().drop("created_timestamp")
    assert stored.equals(
        TRUTH.filter(pl.col("event_timestamp").is_between(TIMES[100], TIMES[209])).drop("created_timestamp")
    )


def test_live_feed_over_the_exchange_survives_an_outage(exchange):
    """The feed's clock drives the exchange's; in the middle the exchange is gone for a while."""
    now = [TIMES[199] + timedelta(seconds=30)]

    def sleep(seconds: float) -> None:
        now[0] += timedelta(seconds=seconds)
        exchange.clock = round(now[0].timestamp() * 1000)

    one = source(exchange, max_retries=0)
    original = one.fetch

    def fetch(*args, **kwargs):
        with clock.fixed(now[0]):
            return original(*args, **kwargs)

    one.fetch = fetch  # the source reads the wall clock; here the feed's
    feed = Feed(
        one, one.symbols(), "1m", Calendar.of("24/7"), now=lambda: now[0], sleep=sleep, config=FeedConfig()
    )
    batches = []
    for batch in feed.run():
        batches.append(batch)
        if len(batches) == 5:
            exchange.failures = [0] * 12
        if len(batches) == 20:
            break
    assert [b.event_timestamp for b in batches] == TIMES[200:220].to_list()
    assert all(b.bars.height == 2 for b in batches)
    assert feed.health.reconnects >= 1
    given = pl.concat([b.bars for b in batches]).sort("symbol", "event_timestamp").drop("created_timestamp")
    assert given.equals(
        TRUTH.filter(pl.col("event_timestamp").is_between(TIMES[200], TIMES[219])).drop("created_timestamp")
    )

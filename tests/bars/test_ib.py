"""The Interactive Brokers source against a simulated gateway."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from barcast import clock
from barcast.adapters.ib import IbSource
from barcast.bars import Calendar
from barcast.bars.feed import Feed
from barcast.bars.sources.simulator import simulate
from barcast.config.bars import FeedConfig, IbConfig
from barcast.errors import ConfigError, DataError

from .ib_double import Gateway

NEW_YORK = "XNYS"
MINUTES = simulate(2, 1500, "5m", seed=4, calendar=NEW_YORK, start=datetime(2024, 6, 3, tzinfo=UTC))
TIMES = MINUTES["event_timestamp"].unique().sort()


def named(bars: pl.DataFrame, names: tuple[str, ...] = ("AAPL", "MSFT")) -> pl.DataFrame:
    pairs = dict(zip(bars["symbol"].unique().sort(), names, strict=False))
    return bars.with_columns(symbol=pl.col("symbol").replace_strict(pairs)).sort("symbol", "event_timestamp")


TRUTH = named(MINUTES)


def gateway(now: datetime, truth: pl.DataFrame = TRUTH, step: timedelta = timedelta(minutes=5)) -> Gateway:
    return Gateway({str(s): g for (s,), g in truth.group_by("symbol")}, step, now)


def source(peer: Gateway, interval: str = "5m", **settings: object) -> IbSource:
    settings = {"symbols": ("AAPL", "MSFT"), **settings}
    return IbSource(IbConfig(**settings), interval, NEW_YORK, ib=peer)


def test_history_comes_backwards_in_pages_closed_only():
    now = TIMES[1200] + timedelta(seconds=90)
    peer = gateway(now)
    with clock.fixed(now):
        bars = source(peer).fetch(start=TIMES[10])
    wanted = TRUTH.filter(pl.col("event_timestamp") > TIMES[10], pl.col("event_timestamp") <= TIMES[1200])
    assert bars.equals(wanted)
    assert len(peer.requests) >= 6  # three weeks and more, a week a page, two symbols
    assert {r[2:] for r in peer.requests} == {("1 W", "5 mins", "TRADES", True)}


def test_without_start_one_page_of_each_symbol():
    now = TIMES[1000]
    peer = gateway(now)
    with clock.fixed(now):
        bars = source(peer).fetch(["MSFT"])
    assert len(peer.requests) == 1
    assert bars["event_timestamp"].max() == now


def test_start_before_all_history_ends_after_empty_pages():
    now = TIMES[200]
    peer = gateway(now)
    with clock.fixed(now):
        bars = source(peer).fetch(["AAPL"], datetime(2020, 1, 1, tzinfo=UTC))
    assert bars.height == 201
    assert len(peer.requests) < 8


def test_daily_bars_close_with_their_session():
    truth = named(simulate(2, 400, "1d", seed=2, calendar=NEW_YORK, start=datetime(2023, 1, 1, tzinfo=UTC)))
    now = datetime(2024, 7, 4, tzinfo=UTC)
    peer = gateway(now, truth, timedelta(days=1))
    with clock.fixed(now):
        bars = source(peer, "1d").fetch(["AAPL"], datetime(2023, 2, 1, tzinfo=UTC))
    wanted = truth.filter(
        pl.col("symbol") == "AAPL",
        pl.col("event_timestamp").is_between(datetime(2023, 2, 1, tzinfo=UTC), now),
    )
    assert bars.equals(wanted)
    by_day = dict(zip(bars["event_timestamp"].dt.date(), bars["event_timestamp"].dt.hour(), strict=True))
    assert by_day[datetime(2024, 7, 3).date()] == 17  # a half day


def test_hourly_bar_at_the_end_of_a_session_closes_with_it():
    truth = named(
        simulate(1, 35, "1h", seed=2, calendar=NEW_YORK, start=datetime(2024, 1, 2, tzinfo=UTC)), ("AAPL",)
    )
    now = datetime(2024, 1, 5, tzinfo=UTC)
    peer = gateway(now, truth, timedelta(hours=1))
    opens = truth.with_columns(
        event_timestamp=pl.when(pl.col("event_timestamp").dt.minute() == 0)
        .then(pl.col("event_timestamp") + timedelta(minutes=30))
        .otherwise("event_timestamp")
    )
    peer.bars["AAPL"] = opens  # the broker's last bar opens at 20:30 like the others open on the half hour
    with clock.fixed(now):
        bars = source(peer, "1h", symbols=("AAPL",)).fetch()
    assert Calendar.of(NEW_YORK).off_grid(bars, "1h").height == 0
    assert bars["event_timestamp"].max() == datetime(2024, 1, 4, 21, tzinfo=UTC)


def test_lost_connection_is_made_again():
    now = TIMES[1000]
    peer = gateway(now)
    one = source(peer)
    with clock.fixed(now):
        one.fetch(["AAPL"])
        peer.disconnect()
        assert one.fetch(["AAPL"]).height > 0
    assert peer.connects == 2
    one.close()
    assert not peer.isConnected()


def test_unreachable_gateway_says_what_to_start():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers there
        port = taken.getsockname()[1]
        one = IbSource(IbConfig(symbols=("AAPL",), port=port, timeout_seconds=2), "5m")
        with pytest.raises(DataError, match=f"does not answer at 127.0.0.1:{port}") as caught:
            one.fetch()
    assert "allow API connections" in caught.value.hint


def test_unknown_and_ambiguous_contracts_are_named():
    peer = gateway(TIMES[100])
    with clock.fixed(TIMES[100]), pytest.raises(DataError, match=r"no contract.*'NOPE'"):
        source(peer, symbols=("NOPE",)).fetch()
    peer.ambiguous.add("AAPL")
    with clock.fixed(TIMES[100]), pytest.raises(DataError, match=r"contract.*'AAPL'"):
        source(peer).fetch(["AAPL"])
    with pytest.raises(ConfigError, match="is no contract"):
        source(peer, symbols=("STK:AAPL",)).fetch()
    with pytest.raises(ConfigError, match="no bars of 7m"):
        source(peer, "7m")


def test_full_contract_words_reach_the_broker():
    peer = gateway(TIMES[300])
    peer.bars["EUR"] = peer.bars["AAPL"].with_columns(volume=pl.lit(-1.0))  # quotes carry no volume
    with clock.fixed(TIMES[300]):
        bars = source(peer, symbols=("CASH:EUR:IDEALPRO:USD",), what_to_show="MIDPOINT").fetch()
    assert set(bars["volume"]) == {0.0}
    assert bars["symbol"].unique().to_list() == ["CASH:EUR:IDEALPRO:USD"]


def test_live_feed_over_the_gateway_spans_a_restart_and_a_night():
    now = [TIMES[70] + timedelta(seconds=5)]
    peer = gateway(now[0])
    one = source(peer)
    original = one.fetch

    def fetch(*args):
        peer.now = now[0]
        with clock.fixed(now[0]):
            return original(*args)

    def sleep(seconds: float) -> None:
        now[0] += timedelta(seconds=seconds)

    one.fetch = fetch
    calendar = Calendar.of(NEW_YORK)
    feed = Feed(one, one.symbols(), "5m", calendar, now=lambda: now[0], sleep=sleep, config=FeedConfig())
    batches = []
    for batch in feed.run():
        batches.append(batch)
        if len(batches) == 3:
            peer.disconnect()
            peer.up = False
        if len(batches) == 20:
            break
        if not peer.up and feed.health.failures == 0 and len(batches) == 3:
            inner = feed._sleep

            def wait(seconds: float, inner=inner) -> None:
                inner(seconds)
                peer.up = feed.health.failures >= 4 or peer.up

            feed._sleep = wait
    assert [b.event_timestamp for b in batches] == TIMES[71:91].to_list()
    assert all(b.bars.height == 2 for b in batches)
    assert feed.health.reconnects == 1


def test_real_client_in_a_thread_of_its_own_reports_like_in_the_main_one():
    said: list[str] = []

    def ask() -> None:
        one = IbSource(IbConfig(symbols=("AAPL",), port=1, timeout_seconds=2), "5m")
        for _ in range(2):  # asking again after a failure works too
            try:
                one.fetch()
            except DataError as error:
                said.append(error.message)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    assert [text[:37] for text in said] == ["TWS or IB Gateway does not answer at "] * 2

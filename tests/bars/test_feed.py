"""The live feed against sources that misbehave in every known way."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.bars import Calendar
from barcast.bars.feed import Feed
from barcast.bars.live import follow, open_log
from barcast.bars.replay import Replay
from barcast.bars.sources.simulator import simulate
from barcast.bars.store import BarStore
from barcast.cli.up import up
from barcast.config import Config, load
from barcast.config.bars import FeedConfig
from barcast.errors import ConfigError, DataError

CRYPTO = Calendar.of("24/7")
BARS = simulate(3, 40, "1m", seed=5)
TIMES = BARS["event_timestamp"].unique().sort()
CONFIG = FeedConfig(poll_seconds=1, deadline_seconds=10, delay_seconds=0.5)


def feed(source: Replay, **kwargs: object) -> Feed:
    kwargs.setdefault("config", CONFIG)
    return Feed(source, source.symbols(), "1m", CRYPTO, now=source.now, sleep=source.sleep, **kwargs)


def delayed(bars: pl.DataFrame, symbol: str, moment: datetime, seconds: float) -> pl.DataFrame:
    at = (pl.col("symbol") == symbol) & (pl.col("event_timestamp") == moment)
    created = pl.col("created_timestamp")
    return bars.with_columns(
        created_timestamp=pl.when(at).then(created + timedelta(seconds=seconds)).otherwise(created)
    )


def test_replay_gives_each_bar_once_in_order_with_all_symbols():
    batches = list(feed(Replay(BARS)).run())
    assert [b.event_timestamp for b in batches] == TIMES[1:].to_list()
    assert {b.kind for b in batches} == {"live"}
    given = pl.concat([b.bars for b in batches]).sort("symbol", "event_timestamp")
    wanted = BARS.filter(pl.col("event_timestamp") > TIMES[0])
    assert given.drop("created_timestamp").equals(wanted.drop("created_timestamp"))
    wait = given["created_timestamp"] - given["event_timestamp"]
    assert wait.max() <= timedelta(seconds=2)


def test_bars_missed_while_away_are_backfilled_first():
    source = Replay(BARS, start=TIMES[20] + timedelta(seconds=5))
    batches = list(feed(source, after=dict.fromkeys(source.symbols(), TIMES[4])).run())
    assert [b.event_timestamp for b in batches] == TIMES[5:].to_list()
    assert [b.kind for b in batches] == ["backfill"] * 16 + ["live"] * 19
    assert batches[0].bars["created_timestamp"][0] == TIMES[5]


def test_symbols_with_different_last_bars_each_get_what_they_lack():
    source = Replay(BARS, start=TIMES[10])
    after = {"SIM0000": TIMES[9], "SIM0001": TIMES[5], "SIM0002": TIMES[9]}
    batches = feed(source, after=after).poll()
    assert [(b.event_timestamp, b.bars["symbol"].to_list()) for b in batches[:4]] == [
        (t, ["SIM0001"]) for t in TIMES[6:10]
    ]
    assert batches[4].bars.height == 3
    assert {b.kind for b in batches} == {"backfill"}
    assert all(not b.missing for b in batches)


def test_symbols_of_two_markets_are_awaited_when_their_own_is_open():
    begin, days = (
        datetime(2024, 7, 1, tzinfo=UTC),
        timedelta(days=5),
    )  # half day on the 3rd, closed on the 4th
    of = {"BTC": CRYPTO, "IBM": Calendar.of("XNYS")}
    parts = []
    for symbol, calendar in of.items():
        closes = calendar.close_times(begin, begin + days, "1h")
        bars = simulate(1, len(closes), "1h", seed=3)
        parts.append(
            bars.with_columns(symbol=pl.lit(symbol), event_timestamp=closes, created_timestamp=closes)
        )
    source = Wrapped(Replay(pl.concat(parts), start=begin))
    running = Feed(
        source, source.symbols(), "1h", of.__getitem__, config=CONFIG, now=source.now, sleep=source.sleep
    )
    batches = list(running.run())
    assert [len(b.missing) for b in batches if b.missing] == []
    assert {b.kind for b in batches} == {"live"}
    given = pl.concat([b.bars for b in batches])
    assert given.group_by("symbol").len().sort("symbol")["len"].to_list() == [5 * 24, 3 * 7 + 4]
    assert (given["created_timestamp"] - given["event_timestamp"]).max() <= timedelta(seconds=2)
    assert source.calls <= 2 * len(batches)  # nobody is asked for bars of a market that is closed


def test_feed_without_symbols_is_refused():
    with pytest.raises(ConfigError, match="no symbol to follow"):
        Feed(Replay(BARS), [], "1m", CRYPTO)


def test_slow_symbol_is_waited_for_until_the_deadline():
    source = Replay(delayed(BARS, "SIM0001", TIMES[3], 6))
    batches = list(feed(source).run())
    assert [b.event_timestamp for b in batches] == TIMES[1:].to_list()
    assert all(not b.missing for b in batches)


def test_later_than_the_deadline_is_missing_and_then_late():
    source = Replay(delayed(BARS, "SIM0001", TIMES[3], 75))
    running = feed(source)
    batches = list(running.run())
    partial = next(b for b in batches if b.event_timestamp == TIMES[3])
    assert (partial.missing, partial.bars.height) == (("SIM0001",), 2)
    late = next(b for b in batches if b.kind == "late")
    assert (late.event_timestamp, late.bars["symbol"].to_list()) == (TIMES[3], ["SIM0001"])
    assert running.health.late == 1
    assert sum(b.bars.height for b in batches) == 3 * 39


class Wrapped:
    """A source over a replay, with faults."""

    def __init__(self, inner: Replay) -> None:
        self.inner, self.calls = inner, 0
        self.now, self.sleep, self.ended, self.symbols = inner.now, inner.sleep, inner.ended, inner.symbols

    def fetch(self, symbols=None, start=None, end=None):
        self.calls += 1
        return self.change(self.inner.fetch(symbols, start, end))

    def change(self, bars: pl.DataFrame) -> pl.DataFrame:
        return bars


def test_connection_lost_and_found_loses_no_bar():
    class Falls(Wrapped):
        def change(self, bars):
            if 10 <= self.calls < 16:
                raise ConnectionResetError("peer closed")
            if self.calls == 20:
                raise DataError("the exchange refused")
            return bars

    source = Falls(Replay(BARS))
    running = feed(source)
    batches = list(running.run())
    assert sum(b.bars.height for b in batches) == 3 * 39
    assert [b.event_timestamp for b in batches] == TIMES[1:].to_list()
    assert running.health.reconnects == 2
    assert running.health.last_error == "the exchange refused"
    assert any("answers again after 6" in n for n in running.health.notices)


def test_backoff_grows_to_its_limit_and_max_failures_ends():
    pauses = []

    class Dead(Wrapped):
        def change(self, bars):
            raise ConnectionRefusedError("nobody there")

    source = Dead(Replay(BARS))
    source.sleep = pauses.append
    config = FeedConfig(max_failures=8, max_backoff_seconds=20)
    with pytest.raises(DataError, match="8 times in a row"):
        list(feed(source, config=config).run())
    assert pauses == [1, 2, 4, 8, 16, 20, 20]


def test_running_bar_and_duplicates_are_dropped():
    class Eager(Wrapped):
        def change(self, bars):
            """The running bar too, and everything twice."""
            now = self.inner.now()
            coming = BARS.filter(pl.col("event_timestamp") > now).group_by("symbol").head(1)
            return pl.concat([bars, bars, coming])

    running = feed(Eager(Replay(BARS)))
    batches = list(running.run())
    assert sum(b.bars.height for b in batches) == 3 * 39
    assert all((b.bars["event_timestamp"] <= b.bars["created_timestamp"]).all() for b in batches)
    assert running.health.duplicates > 0
    assert running.health.future > 0


def test_corrected_bar_is_given_again_as_correction():
    class Corrects(Wrapped):
        def change(self, bars):
            wrong = (pl.col("event_timestamp") == TIMES[3]) & (pl.col("symbol") == "SIM0002")
            early = self.inner.now() < TIMES[4]
            return bars.with_columns(volume=pl.when(wrong & pl.lit(early)).then(1.0).otherwise("volume"))

    running = feed(Corrects(Replay(BARS)))
    batches = list(running.run())
    corrections = [b for b in batches if b.kind == "correction"]
    assert len(corrections) == running.health.corrections == 1
    right = BARS.filter(pl.col("event_timestamp") == TIMES[3], pl.col("symbol") == "SIM0002")
    assert corrections[0].bars["volume"].to_list() == right["volume"].to_list()
    assert corrections[0].bars["created_timestamp"][0] > TIMES[4]


@pytest.mark.parametrize(("seconds", "word"), [(9, "behind"), (-9, "ahead of")])
def test_clock_skew_is_noticed(seconds, word):
    source = Wrapped(Replay(BARS))
    source.server_time = lambda: source.now() + timedelta(seconds=seconds)
    running = feed(source)
    running.poll()
    assert running.health.clock_skew_seconds == seconds
    assert f"this clock is 9.0 s {word}" in running.health.notices[0]


def test_replay_at_a_speed_takes_its_time():
    import time

    few = BARS.filter(pl.col("event_timestamp") <= TIMES[4])
    begin = time.monotonic()
    batches = list(feed(Replay(few, speed=240)).run())
    assert len(batches) == 4
    assert 0.9 < time.monotonic() - begin < 5
    with pytest.raises(ConfigError, match="not above 0"):
        Replay(BARS, speed=0)
    with pytest.raises(DataError, match="no bars to replay"):
        Replay(BARS.head(0))


@pytest.mark.parametrize("speed", [1e5, 1e9, 1e15])
def test_replay_much_faster_than_its_reader_gives_every_bar_and_none_of_the_future(speed):
    running = feed(Replay(BARS, speed=speed))
    batches = list(running.run())
    assert [b.event_timestamp for b in batches] == TIMES[1:].to_list()
    assert all(b.bars.height == 3 for b in batches)
    assert (running.health.future, running.health.notices) == (0, [])


@pytest.mark.parametrize("speed", [1e9, math.inf])
def test_replay_whose_last_close_lacks_a_symbol_gives_it_too(speed):
    short = BARS.filter((pl.col("symbol") != "SIM0001") | (pl.col("event_timestamp") < TIMES[-1]))
    batches = list(feed(Replay(short, speed=speed)).run())
    assert (batches[-1].event_timestamp, batches[-1].missing) == (TIMES[-1], ("SIM0001",))


def test_follow_keeps_every_bar_and_resumes_after_a_crash(tmp_path):
    config = Config.model_validate(
        {
            "workspace": "w",
            "interval": "1m",
            "storage": {"root": str(tmp_path)},
            "universe": {"calendar": "24/7"},
            "source": {"kind": "simulator", "feed": {"flush_bars": 50}},
        }
    )
    place = config.open_workspace()
    store = BarStore(place.bars, "1m")
    store.append(BARS.filter(pl.col("event_timestamp") <= TIMES[5]))

    def dies(batch):
        if batch.event_timestamp == TIMES[20]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(config, place, on_batch=dies, replay=Replay(BARS, start=TIMES[6]))
    assert set(store.last_timestamps().values()) == {TIMES[20]}  # durable before on_batch saw it
    done = follow(config, place, replay=Replay(BARS, start=TIMES[25], speed=math.inf))
    assert done.bars == 3 * 19
    values = store.read().drop("created_timestamp")
    assert values.equals(BARS.drop("created_timestamp"))
    assert len(open_log(config, place)) == 0


@pytest.mark.parametrize("kind", ["sample", "simulator"])
def test_a_source_that_has_no_new_bars_is_not_followed(tmp_path, kind):
    file = tmp_path / "still.yaml"
    file.write_text(f"workspace: w\nstorage: {{root: {tmp_path}/state}}\nsource: {{kind: {kind}}}\n")
    still = load(file)
    with pytest.raises(ConfigError, match=f"source '{kind}' has no live bars"):
        follow(still, still.open_workspace())
    with pytest.raises(ConfigError, match="has no live bars"):
        up(feed=True, config=file)


def test_daily_feed_sleeps_over_the_weekend():
    bars = simulate(1, 10, "1d", calendar="XNYS", start=datetime(2024, 1, 3, tzinfo=UTC))
    source = Replay(bars)
    running = Feed(
        source, source.symbols(), "1d", Calendar.of("XNYS"), now=source.now, sleep=source.sleep, config=CONFIG
    )
    batches = list(running.run())
    assert len(batches) == 9
    assert all(b.kind == "live" for b in batches)


@settings(max_examples=10, deadline=None)
@given(
    delays=st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.5, 9.0, 30.0, 90.0, 200.0]), min_size=36, max_size=36),
    failing=st.sets(st.integers(1, 40), max_size=12),
    doubled=st.booleans(),
)
def test_any_delays_failures_and_duplicates_give_each_bar_once(delays, failing, doubled):
    few = BARS.filter(pl.col("event_timestamp") <= TIMES[12], pl.col("event_timestamp") > TIMES[0])
    slow = few.with_columns(pl.col("created_timestamp") + pl.Series(delays) * timedelta(seconds=1))
    first = BARS.filter(pl.col("event_timestamp") == TIMES[0])

    class Faulty(Wrapped):
        def change(self, bars):
            if self.calls in failing:
                raise TimeoutError("no answer")
            return pl.concat([bars, bars]) if doubled else bars

    running = feed(Faulty(Replay(pl.concat([first, slow]))))
    batches = list(running.run())
    given_bars = pl.concat([b.bars for b in batches]).sort("symbol", "event_timestamp")
    assert given_bars.drop("created_timestamp").equals(few.drop("created_timestamp"))
    live = [b.event_timestamp for b in batches if b.kind == "live"]
    assert live == sorted(set(live))
    seen: dict[datetime, int] = {}
    for batch in batches:
        assert batch.kind in ("live", "late")
        assert (batch.kind == "late") == (bool(seen) and batch.event_timestamp <= max(seen))
        seen[batch.event_timestamp] = seen.get(batch.event_timestamp, 0) + batch.bars.height

"""What other symbols say: against slow references, with symbols that begin late or stop, and neutral with a flag."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from feature_bars import START, make_bars

from barcast.bars.calendar import Calendar
from barcast.config.features import FeaturesConfig
from barcast.features import StreamEngine, catalogue, compute, correlations

ALWAYS = Calendar.of("24/7")
CONFIG = FeaturesConfig(correlation_lookback_hours=48, correlation_threshold=0.5)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return make_bars(5, 288 * 4, seed=9, missing=0.01)


@pytest.fixture(scope="module")
def computed(frame: pl.DataFrame) -> pl.DataFrame:
    return compute(frame, interval="5m", calendar=ALWAYS, config=CONFIG)


def reference_correlation(frame: pl.DataFrame, refresh: object) -> tuple[list[str], np.ndarray]:
    """Correlations of the log returns between hourly closes known before `refresh`, 48 hours back."""
    symbols = sorted(frame["symbol"].unique())
    known = frame.filter(pl.col("event_timestamp") <= refresh).sort("event_timestamp")
    hour = (pl.col("event_timestamp") - pl.duration(microseconds=1)).dt.truncate("1h")
    closes = (
        known.with_columns(hour=hour)
        .group_by("hour", "symbol")
        .agg(pl.col("close").last(), pl.col("event_timestamp").last())
    )
    ends = known.with_columns(hour=hour).group_by("hour").agg(end=pl.col("event_timestamp").max())
    table = closes.join(ends, on="hour").filter(
        pl.col("end") - pl.col("event_timestamp") <= timedelta(minutes=15)
    )
    wide = (
        table.pivot(on="symbol", index="hour", values="close").sort("hour").join(ends, on="hour").sort("hour")
    )
    returns = wide.select([pl.col(s).log().diff() for s in symbols] + [pl.col("end")])
    returns = (
        returns.filter(pl.col("end") > refresh - timedelta(hours=48) + timedelta(minutes=5))
        .drop("end")
        .slice(0)
    )
    return symbols, returns.to_pandas().corr().to_numpy()


def test_correlations_equal_a_slow_reference(frame: pl.DataFrame, computed: pl.DataFrame) -> None:
    last_midnight = START + timedelta(days=3)
    symbols, expected = reference_correlation(frame, last_midnight)
    rows = computed.filter(pl.col("event_timestamp") == last_midnight + timedelta(minutes=30))
    for k, symbol in enumerate(symbols):
        others = np.delete(expected[k], k)
        row = rows.filter(pl.col("symbol") == symbol)
        if row.height:
            assert row["correlation_mean"][0] == pytest.approx(others.mean(), abs=1e-5)
            assert row["correlation_highest"][0] == pytest.approx(others.max(), abs=1e-5)
            assert row["peer_count"][0] * 16 == pytest.approx((others >= 0.5).sum(), abs=1e-6)
    engine = StreamEngine("5m", ALWAYS, CONFIG)
    engine.warm(frame)
    names, matrix = engine.correlations()
    assert names == symbols
    again, same = correlations(frame, interval="5m", calendar=ALWAYS, config=CONFIG)
    assert again == names
    np.testing.assert_array_equal(same, matrix)
    np.testing.assert_allclose(matrix, expected, atol=1e-9)


def test_correlations_change_at_the_refresh_only(computed: pl.DataFrame) -> None:
    one = computed.filter(pl.col("symbol") == "S0").with_columns(
        day=(pl.col("event_timestamp") - timedelta(minutes=5)).dt.date()
    )
    assert (
        one.group_by("day").agg(pl.col("correlation_mean").n_unique())["correlation_mean"].to_list()
        == [1] * 4
    )
    assert one["correlation_mean"].n_unique() >= 3


def test_market_and_peer_features_equal_plain_arithmetic(frame: pl.DataFrame, computed: pl.DataFrame) -> None:
    when = frame["event_timestamp"].unique().sort()[1000]
    step = timedelta(minutes=5)
    at = frame.filter(pl.col("event_timestamp") <= when).sort("event_timestamp")
    last = {s: g for (s,), g in at.group_by("symbol")}
    fresh = {s: g for s, g in last.items() if g["event_timestamp"][-1] >= when - 3 * step}
    returns = {s: float(np.log(g["close"][-1] / g["close"][-2])) for s, g in fresh.items()}
    twenty = {s: float(np.log(g["close"][-1] / g["close"][-21])) for s, g in fresh.items()}
    rows = computed.filter(pl.col("event_timestamp") == when)
    for row in rows.iter_rows(named=True):
        others = [v for s, v in returns.items() if s != row["symbol"]]
        assert row["market_return_1"] == pytest.approx(np.mean(others), rel=1e-4)
        assert row["relative_return_1"] == pytest.approx(returns[row["symbol"]] - np.mean(others), rel=1e-4)
        assert row["market_breadth_1"] == pytest.approx(np.mean([v > 0 for v in others]))
        assert row["market_dispersion_1"] == pytest.approx(np.std(list(returns.values())), rel=1e-4)
        below = [v < twenty[row["symbol"]] for s, v in twenty.items() if s != row["symbol"]]
        assert row["rank_return_20"] == pytest.approx(np.mean(below))
    _, correlation = reference_correlation(frame, START + timedelta(days=3))
    weights = {
        f"S{k}": correlation[0, k] for k in range(1, 5) if correlation[0, k] >= 0.5 and f"S{k}" in fresh
    }
    expected = sum(w * returns[s] for s, w in weights.items()) / sum(weights.values())
    assert rows.filter(pl.col("symbol") == "S0")["peer_return_1"][0] == pytest.approx(expected, rel=1e-4)


def test_neutral_values_stand_wherever_a_flag_is_down() -> None:
    frame = make_bars(3, 500, seed=1, late_start=300)
    frame = frame.filter(
        (pl.col("symbol") != "S1") | (pl.col("event_timestamp") < START + timedelta(hours=10))
    )
    for table in (frame, frame.filter(pl.col("symbol") == "S0")):
        out = compute(table, interval="5m", calendar=ALWAYS)
        for spec in catalogue("5m"):
            if spec.flag is not None:
                down = out.filter(pl.col(spec.flag) == 0)[spec.name].drop_nulls()
                assert (down == spec.neutral).all(), spec.name
    assert (out["market_available"] == 0).all()
    assert out.tail(1).null_count().sum_horizontal().item() == 0


def test_stopped_symbol_leaves_after_the_maximum_age_and_late_one_enters() -> None:
    frame = make_bars(2, 200, seed=2)
    stop = START + timedelta(minutes=5 * 150)
    frame = frame.filter((pl.col("symbol") == "S0") | (pl.col("event_timestamp") <= stop))
    one = compute(frame, interval="5m", calendar=ALWAYS).filter(pl.col("symbol") == "S0")
    there = one["market_available"].to_list()
    assert there[1:153] == [1.0] * 152  # the very first bar has no return yet
    assert there[153:] == [0.0] * 47


def test_daily_bars_use_daily_returns() -> None:
    frame = make_bars(3, 120, "1d", seed=6)
    engine = StreamEngine("1d", ALWAYS)
    engine.warm(frame)
    symbols, matrix = engine.correlations()
    wide = frame.pivot(on="symbol", index="event_timestamp", values="close").sort("event_timestamp")
    returns = wide.select([pl.col(s).log().diff() for s in symbols])[-30:-1].to_pandas()
    np.testing.assert_allclose(matrix, returns.corr().to_numpy(), atol=1e-9)


def test_lead_is_found_where_one_symbol_follows_another() -> None:
    frame = make_bars(1, 900, seed=3)
    random = np.random.default_rng(5)
    close = frame["close"].to_numpy()
    follower = np.append(close[0], close[:-1]) * np.exp(random.normal(0, 1e-4, len(close)).cumsum())
    second = frame.with_columns(
        symbol=pl.lit("S1"),
        open=pl.Series(follower),
        high=pl.Series(follower * 1.001),
        low=pl.Series(follower * 0.999),
        close=pl.Series(follower),
    )
    out = compute(pl.concat([frame, second]), interval="5m", calendar=ALWAYS).drop_nulls().tail(1800)
    leader = out.filter((pl.col("symbol") == "S0") & (pl.col("relation_available") == 1))
    assert leader["leadership"].mean() > 0.8
    assert (
        out.filter((pl.col("symbol") == "S1") & (pl.col("relation_available") == 1))["leadership"].mean()
        < -0.8
    )

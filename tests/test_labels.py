"""Labels: hand-computed outcomes, gaps, thresholds from training rows only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast import labels
from barcast.config.models import LabelsConfig
from barcast.errors import ConfigError, DataError

START = datetime(2024, 1, 1, tzinfo=UTC)


def make_bars(
    open_: list[float],
    high: list[float] | None = None,
    low: list[float] | None = None,
    close: list[float] | None = None,
    *,
    minutes: list[int] | None = None,
) -> pl.DataFrame:
    n = len(open_)
    close = close or open_
    at = minutes or [5 * i for i in range(n)]
    return pl.DataFrame(
        {
            "symbol": ["A"] * n,
            "event_timestamp": [START + timedelta(minutes=m) for m in at],
            "open": open_,
            "high": high or [max(a, b) for a, b in zip(open_, close, strict=True)],
            "low": low or [min(a, b) for a, b in zip(open_, close, strict=True)],
            "close": close,
            "volume": [1.0] * n,
        }
    ).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))


def zigzag(n: int) -> list[float]:
    return [100.0 + (i * 7) % 5 for i in range(n)]


def test_fixed_horizon_with_known_opens_enters_next_open_and_exits_after_horizon() -> None:
    bars = make_bars(zigzag(60))
    found = labels.make(bars, horizon_bars=3)
    row = found.row(30, named=True)
    assert row["forward_log_return"] == pytest.approx(np.log(zigzag(60)[34] / zigzag(60)[31]))
    assert row["label_start_timestamp"] == bars["event_timestamp"][31]
    assert row["label_end_timestamp"] == bars["event_timestamp"][34]
    assert row["duration_bars"] == 3


def test_last_rows_without_an_exit_are_pending_and_have_no_outcome() -> None:
    found = labels.make(make_bars(zigzag(60)), horizon_bars=3)
    assert found["reason"].to_list()[-5:] == ["", "pending", "pending", "pending", "pending"]
    assert found["forward_log_return"].is_null().sum() == 4


def test_volatility_with_prefix_only_equals_full_run() -> None:
    rng = np.random.default_rng(0)
    prices = list(100 * np.exp(np.cumsum(rng.normal(size=200) * 0.01)))
    full = labels.make(make_bars(prices), horizon_bars=5)
    part = labels.make(make_bars(prices[:120]), horizon_bars=5)
    np.testing.assert_allclose(part["volatility"], full["volatility"][:120], rtol=0, atol=0)


def test_label_spanning_a_long_gap_is_dropped_and_counted() -> None:
    minutes = [5 * i for i in range(60)] + [5 * i + 600 for i in range(60, 120)]
    found = labels.make(
        make_bars(zigzag(120), minutes=minutes), horizon_bars=3, config=LabelsConfig(max_gap_bars=6)
    )
    # Bar 59 is the last before the gap: decisions at 56..59 enter before it and leave after it.
    assert found.filter(pl.col("reason") == "gap").height == 4
    assert found["reason"].to_list()[54:61] == ["", "", "gap", "gap", "gap", "gap", ""]
    assert labels.counts(found)["gap"] == 4


def test_gap_with_calendar_counts_expected_bars_only() -> None:
    minutes = [5 * i for i in range(60)] + [5 * i + 600 for i in range(60, 120)]
    bars = make_bars(zigzag(120), minutes=minutes)
    found = labels.make(bars, horizon_bars=3, expected_times={"A": bars["event_timestamp"]})
    assert labels.counts(found)["gap"] == 0


def test_gap_with_two_calendars_is_one_only_for_the_symbol_that_traded_through() -> None:
    minutes = [5 * i for i in range(60)] + [5 * i + 600 for i in range(60, 120)]
    bars = make_bars(zigzag(120), minutes=minutes)
    times = bars["event_timestamp"]
    around = pl.datetime_range(times[0], times[-1], "5m", time_unit="us", eager=True)
    both = pl.concat([bars, bars.with_columns(symbol=pl.lit("B"))])
    found = labels.make(both, horizon_bars=3, expected_times={"A": times, "B": around})
    gap = found.filter(pl.col("reason") == "gap")
    assert gap["symbol"].to_list() == ["B"] * 4


def test_real_gap_of_2021_04_25_is_dropped(shared_data: object) -> None:
    from pathlib import Path

    raw = pl.read_parquet(Path(str(shared_data)) / "crypto_1m" / "BTCUSDT.parquet")
    around = raw.filter(
        pl.col("timestamp").is_between(datetime(2021, 4, 25, tzinfo=UTC), datetime(2021, 4, 26, tzinfo=UTC))
    )
    bars = around.select(
        pl.lit("BTCUSDT").alias("symbol"),
        (pl.col("timestamp") + timedelta(minutes=1)).cast(pl.Datetime("us", "UTC")).alias("event_timestamp"),
        "open",
        "high",
        "low",
        "close",
        "volume",
    )
    found = labels.make(bars, horizon_bars=30)
    dropped = found.filter(pl.col("reason") == "gap")
    assert dropped.height == 31
    gap_starts = datetime(2021, 4, 25, 4, 1, tzinfo=UTC)
    assert dropped["event_timestamp"].max() <= gap_starts


@pytest.mark.parametrize(
    ("path", "touch", "duration"),
    [
        # Entry at 100; barriers near ±1%: the exit trades at the open after the touch.
        ([100, 100.2, 103, 103], 1, 3),
        ([100, 99.8, 97, 97], -1, 3),
        ([100, 100.1, 99.9, 100], 0, 3),
    ],
)
def test_triple_barrier_with_hand_made_paths(path: list[float], touch: int, duration: int) -> None:
    history = [100.0 * (1 + 0.005 * (-1) ** i) for i in range(60)]
    opens = [*history, *path, 100.0, 100.0]
    bars = make_bars(opens)
    config = LabelsConfig(scheme="triple_barrier", barrier_width=1.0)
    found = labels.make(bars, horizon_bars=3, config=config).row(59, named=True)
    assert found["volatility"] == pytest.approx(0.01 * np.sqrt(3), rel=0.02)
    assert (found["touch"], found["duration_bars"]) == (touch, duration)
    exit_row = 60 + duration
    assert found["forward_log_return"] == pytest.approx(np.log(opens[exit_row] / opens[60]))
    assert found["label_end_timestamp"] == bars["event_timestamp"][exit_row]


def test_thresholds_put_the_configured_share_into_hold_and_read_training_rows_only() -> None:
    rng = np.random.default_rng(1)
    prices = list(100 * np.exp(np.cumsum(rng.normal(size=900) * 0.01)))
    rows = labels.make(make_bars(prices), horizon_bars=5).filter("valid")
    train = rows[:500]
    fitted = labels.fit_thresholds(train)
    share = (labels.classify(train, fitted)["label"] == labels.HOLD).mean()
    assert share == pytest.approx(1 / 3, abs=0.01)
    assert fitted.lower == -fitted.upper
    tampered = pl.concat([train, rows[500:].with_columns(pl.col("forward_log_return") * 100)])
    assert labels.fit_thresholds(tampered[:500]) == fitted


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.1))
@settings(max_examples=50, deadline=None)
def test_classes_follow_the_sign_outside_the_thresholds(outcome: float, volatility: float) -> None:
    frame = pl.DataFrame({"forward_log_return": [outcome], "volatility": [volatility]})
    label = labels.classify(frame, labels.Thresholds(-0.5, 0.5))["label"][0]
    z = outcome / volatility
    assert label == (labels.BUY if z > 0.5 else labels.SELL if z < -0.5 else labels.HOLD)


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="horizon_bars is 0"):
        labels.make(make_bars(zigzag(60)), horizon_bars=0)
    holed = make_bars([*zigzag(30), float("nan"), *zigzag(30)])
    with pytest.raises(DataError, match=r"positive prices.* are missing"):
        labels.make(holed, horizon_bars=2)
    with pytest.raises(DataError, match="positive prices"):
        labels.make(make_bars([100.0, -1.0, 100.0]), horizon_bars=1)
    constant = labels.make(make_bars([100.0] * 80), horizon_bars=3)
    assert labels.counts(constant)["valid"] == 0
    one = pl.DataFrame({"forward_log_return": [0.0] * 9, "volatility": [0.1] * 9})
    with pytest.raises(DataError, match="one class"):
        labels.fit_thresholds(one)

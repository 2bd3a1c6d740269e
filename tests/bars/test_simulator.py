"""The simulated market has the properties it promises."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from barcast.bars import BARS, Calendar
from barcast.bars.schema import check
from barcast.bars.sources.simulator import simulate


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return simulate(6, 6000, "1h", seed=11)


def returns(bars: pl.DataFrame) -> np.ndarray:
    """(T, S) log returns."""
    wide = bars.pivot(on="symbol", index="event_timestamp", values="close").drop("event_timestamp")
    return np.diff(np.log(wide.to_numpy()), axis=0)


def test_bars_are_valid_and_seeded(market):
    assert market.schema == BARS
    check(market)
    assert simulate(6, 6000, "1h", seed=11).equals(market)
    assert not simulate(6, 6000, "1h", seed=12).equals(market)


def test_more_symbols_or_bars_keep_the_first_ones(market):
    assert simulate(2, 6000, "1h", seed=11).equals(market.filter(pl.col("symbol") < "SIM0002"))
    short = simulate(6, 500, "1h", seed=11)
    assert short.equals(market.group_by("symbol", maintain_order=True).head(500))


def test_returns_are_correlated_fat_tailed_and_clustered(market):
    r = returns(market)
    correlation = np.corrcoef(r.T)[np.triu_indices(6, 1)]
    assert 0.35 < correlation.mean() < 0.75
    z = (r - r.mean(0)) / r.std(0)
    assert ((z**4).mean(0) > 4).all()
    magnitude = np.abs(z[:, 0])
    assert np.corrcoef(magnitude[1:], magnitude[:-1])[0, 1] > 0.05


def test_regimes_switch_volatility(market):
    r = returns(market)[:, 0]
    rolling = np.array([r[i : i + 50].std() for i in range(0, r.size - 50, 50)])
    assert np.quantile(rolling, 0.9) / np.quantile(rolling, 0.1) > 1.5


@pytest.mark.parametrize(
    ("interval", "calendar"), [("1d", "XNYS"), ("5m", "XNYS"), ("1m", "24/7"), ("30s", "24/7")]
)
def test_any_interval_and_calendar_without_gaps(interval, calendar):
    bars = simulate(2, 300, interval, calendar=calendar, start=datetime(2021, 6, 1, tzinfo=UTC))
    assert bars.height == 600
    assert Calendar.of(calendar).gaps(bars, interval).height == 0

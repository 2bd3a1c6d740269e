"""Cross-symbol features against plain loops over the symbols, from the catalogue's words."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import talib
from feature_bars import make_bars

from barcast.bars.calendar import Calendar
from barcast.config.features import FeaturesConfig
from barcast.features import compute, correlations

ALWAYS = Calendar.of("24/7")
CONFIG = FeaturesConfig(correlation_lookback_hours=48, correlation_threshold=0.4)
FRAME = make_bars(5, 500, seed=9)
SYMBOLS = sorted(FRAME["symbol"].unique())
C, V = (
    FRAME.pivot(on="symbol", index="event_timestamp", values=name)
    .sort("event_timestamp")
    .select(SYMBOLS)
    .to_numpy()
    for name in ("close", "volume")
)
LOG = np.log(C)
ONE = np.vstack([np.full(5, np.nan), np.diff(LOG, axis=0)])
RSI = np.stack([talib.RSI(np.ascontiguousarray(C[:, k]), 14) for k in range(5)], axis=1)
AT = [330, 400, 455, 499]


def over(t: int, n: int) -> np.ndarray:
    return LOG[t] - LOG[t - n]


def deviation(t: int) -> np.ndarray:
    return ONE[t - 19 : t + 1].std(axis=0)


def volume(t: int) -> np.ndarray:
    return V[t] / V[t - 19 : t + 1].mean(axis=0)


def others(values: np.ndarray, k: int) -> np.ndarray:
    return np.delete(values, k)


def less(values: np.ndarray, k: int) -> float:
    """The symbol's value less the mean of the others'."""
    return float(values[k] - others(values, k).mean())


def rank(values: np.ndarray, k: int) -> float:
    return float((others(values, k) < values[k]).mean())


def expected(t: int, k: int) -> dict[str, float]:
    twenty, spread = over(t, 20), over(t, 20).std()
    found = {
        "market_return_5": others(over(t, 5), k).mean(),
        "market_return_20": others(twenty, k).mean(),
        "market_breadth_20": (others(twenty, k) > 0).mean(),
        "market_volume": others(volume(t), k).mean(),
        "market_rsi": others(RSI[t], k).mean(),
        "market_dispersion_20": spread,
        "relative_return_5": less(over(t, 5), k),
        "relative_return_20": less(twenty, k),
        "relative_return_60": less(over(t, 60), k),
        "relative_volatility": np.log(deviation(t)[k] / others(deviation(t), k).mean()),
        "relative_volume": less(volume(t), k),
        "relative_rsi": less(RSI[t], k),
        "rank_return_5": rank(over(t, 5), k),
        "rank_volume": rank(volume(t), k),
        "rank_volatility": rank(deviation(t), k),
        "rotation_20": rank(twenty, k) - rank(over(t - 20, 20), k),
        "rotation_leader": float(rank(twenty, k) > 0.8),
        "rotation_laggard": float(rank(twenty, k) < 0.2),
        "divergence_20": np.clip(less(twenty, k) / spread, -10, 10),
        "divergence_sign_20": float(twenty[k] * others(twenty, k).mean() < 0),
        "market_return_lag_1": others(ONE[t - 1], k).mean(),
    }
    return {name: float(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def computed() -> pl.DataFrame:
    return compute(FRAME, interval="5m", calendar=ALWAYS, config=CONFIG)


def rows_of(computed: pl.DataFrame, k: int) -> pl.DataFrame:
    return computed.filter(pl.col("symbol") == SYMBOLS[k]).sort("event_timestamp")


@pytest.mark.parametrize("t", AT)
def test_market_features_equal_plain_loops(computed: pl.DataFrame, t: int) -> None:
    for k in range(5):
        row = rows_of(computed, k).row(t, named=True)
        for name, value in expected(t, k).items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-7), name


def weighted(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponentially weighted mean that begins at the first value."""
    out = np.empty(len(values))
    mean = values[0]
    for t, value in enumerate(values):
        mean = mean + weight * (value - mean)
        out[t] = mean
    return out


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def mean(x: np.ndarray) -> np.ndarray:
        return weighted(x, 2 / 51)

    va, vb = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):  # the first value has no spread yet
        found: np.ndarray = (mean(a * b) - mean(a) * mean(b)) / np.sqrt(va * vb)
    return found


def test_weighted_relations_to_the_market_equal_plain_loops(computed: pl.DataFrame) -> None:
    for k in range(5):
        own, market = ONE[1:, k], np.array([others(row, k).mean() for row in ONE[1:]])
        before_own, before_market = np.append(own[0], own[:-1]), np.append(market[0], market[:-1])
        mean, square = weighted(market, 2 / 51), weighted(market * market, 2 / 51)
        product = weighted(own * market, 2 / 51)
        beta = np.clip(
            (product - weighted(own, 2 / 51) * mean) / np.maximum(square - mean**2, 1e-20), -10, 10
        )
        rest = own - np.where(square - mean**2 > 1e-20, beta, 1.0) * market
        drift, size = weighted(rest, 2 / 21), weighted(rest**2, 2 / 21)
        rows = rows_of(computed, k)
        for name, values in {
            "market_beta": beta,
            "market_correlation": correlation(own, market),
            "residual_return_1": rest,
            "residual_momentum": np.clip(drift / np.sqrt(np.maximum(size, 1e-20)), -10, 10),
            "market_leads": correlation(own, before_market),
            "leads_market": correlation(before_own, market),
        }.items():
            np.testing.assert_allclose(
                rows[name].to_numpy()[AT], values[[t - 1 for t in AT]], rtol=1e-3, atol=1e-6
            )


def test_dispersion_trend_equals_a_plain_loop(computed: pl.DataFrame) -> None:
    spread = ONE[1:].std(axis=1)
    trend = np.log(spread / weighted(spread, 2 / 51))
    np.testing.assert_allclose(
        rows_of(computed, 0)["market_dispersion_trend"].to_numpy()[AT],
        trend[[t - 1 for t in AT]],
        rtol=1e-3,
        atol=1e-6,
    )


def test_leader_is_the_other_symbol_that_leads_most(computed: pl.DataFrame) -> None:
    tables = [rows_of(computed, k) for k in range(5)]
    for t in AT:
        # who leads is known from the bars before: the present one has not been taken into the relation yet
        lead = np.array([table["leads_market"][t - 1] for table in tables])
        for k in range(5):
            best = max((j for j in range(5) if j != k), key=lambda j: lead[j])
            assert tables[k]["leader_return_1"][t] == pytest.approx(ONE[t, best], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("t", [330, 400, 455])
def test_peer_features_are_correlation_weighted(computed: pl.DataFrame, t: int) -> None:
    day = FRAME["event_timestamp"].unique().sort().to_list()
    names, matrix = correlations(
        FRAME.filter(pl.col("event_timestamp") <= day[t]), interval="5m", calendar=ALWAYS, config=CONFIG
    )
    assert names == SYMBOLS
    for k in range(5):
        weight = np.where(matrix[k] >= 0.4, matrix[k], 0.0)
        weight[k] = 0.0
        row = rows_of(computed, k).row(t, named=True)
        assert row["peers_available"] == float(weight.any())
        assert row["correlation_available"] == 1
        if not weight.any():
            continue
        shown = weight > 0
        for name, value in {
            "peer_correlation": weight[shown].mean(),
            "peer_return_5": np.average(over(t, 5), weights=weight),
            "peer_return_20": np.average(over(t, 20), weights=weight),
            "peer_relative_5": over(t, 5)[k] - np.average(over(t, 5), weights=weight),
            "peer_relative_20": over(t, 20)[k] - np.average(over(t, 20), weights=weight),
            "peer_volume": np.average(volume(t), weights=weight),
            "peer_rsi": np.average(RSI[t], weights=weight) - RSI[t, k],
        }.items():
            assert row[name] == pytest.approx(float(value), rel=1e-4, abs=1e-7), name

"""A seeded market for tests and load: correlated, regime-switching, fat-tailed, volume following volatility.

Hidden market regimes (calm bull, sideways, stormy bear) switch by a Markov chain and set drift and
volatility; each symbol has a loading on the market factor; shocks are Student-t with 4 degrees of freedom;
volatility clusters (Gaussian stochastic volatility). Known at close. Same arguments, same bars, on any
machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from barcast import clock, intervals
from barcast.bars.calendar import Calendar
from barcast.bars.schema import conform
from barcast.bars.sources.base import between, selected
from barcast.config.bars import SimulatorConfig

# Per regime: yearly drift, volatility multiple. Mean stay: 60 bars of a bull, 40 sideways, 20 of a bear.
_DRIFT = np.array([0.25, 0.0, -0.45])
_VOLATILITY = np.array([0.75, 0.85, 1.9])
_SWITCH = np.array(
    [[1 - 1 / 60, 0.7 / 60, 0.3 / 60], [0.5 / 40, 1 - 1 / 40, 0.5 / 40], [0.4 / 20, 0.6 / 20, 1 - 1 / 20]]
)
_T_DEGREES = 4


def simulate(
    num_symbols: int,
    num_bars: int,
    interval: str = "1d",
    seed: int = 7,
    *,
    calendar: str = "24/7",
    start: datetime = datetime(2020, 1, 1, tzinfo=UTC),
    volatility_annual: float = 0.35,
    correlation: float = 0.55,
    prefix: str = "SIM",
) -> pl.DataFrame:
    """Simulated bars (`BARS`) of symbols SIM0000 and on, `num_bars` each, closing after `start`.

    The first symbols do not depend on how many follow, nor the first bars on how many follow them.
    """
    market_calendar = Calendar.of(calendar)
    per_year = market_calendar.bars_per_year(interval)
    closes = _closes(market_calendar, start, num_bars, interval)
    regime, market = _market(num_bars, seed)
    frames = []
    for index in range(num_symbols):
        rng = np.random.default_rng([seed, 1, index])
        values = _series(rng, regime, market, per_year, volatility_annual, correlation)
        frames.append(
            pl.DataFrame(
                {"symbol": f"{prefix}{index:04d}", "event_timestamp": closes, **values}
            ).with_columns(pl.col("symbol").cast(pl.String))
        )
    return conform(pl.concat(frames), origin="the simulator")


def _closes(calendar: Calendar, start: datetime, num_bars: int, interval: str) -> pl.Series:
    years = num_bars / calendar.bars_per_year(interval)
    end = start + timedelta(days=365.25 * years * 1.1 + 30) + 2 * intervals.parse(interval)
    return calendar.close_times(start, end, interval).head(num_bars)


def _market(num_bars: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regime index and market shock (unit variance) of each bar."""
    rng = np.random.default_rng([seed, 0])
    draws = rng.random((num_bars, 2))
    ladder = np.cumsum(_SWITCH, axis=1)
    regime = np.empty(num_bars, dtype=np.int64)
    state = int(draws[0, 1] * 3)
    for t in range(num_bars):
        state = min(int(np.searchsorted(ladder[state], draws[t, 0])), 2)
        regime[t] = state
    return regime, _student(np.random.default_rng([seed, 2]), num_bars)


def _student(rng: np.random.Generator, count: int) -> np.ndarray:
    scaled: np.ndarray = rng.standard_t(_T_DEGREES, count) / np.sqrt(_T_DEGREES / (_T_DEGREES - 2))
    return scaled


def _series(
    rng: np.random.Generator,
    regime: np.ndarray,
    market: np.ndarray,
    per_year: float,
    volatility_annual: float,
    correlation: float,
) -> dict[str, np.ndarray]:
    count = regime.size
    price, scale, turnover = (
        20 * np.exp(rng.normal(1, 0.8)),
        np.exp(rng.normal(0, 0.25)),
        np.exp(rng.normal(12, 1)),
    )
    shocks = [np.random.default_rng(rng.integers(2**63)) for _ in range(4)]
    own = _student(shocks[0], count)
    log_vol = np.zeros(count)
    kicks = shocks[1].normal(0, 0.1, count)
    for t in range(1, count):
        log_vol[t] = 0.95 * log_vol[t - 1] + kicks[t]
    step_vol = volatility_annual * scale / np.sqrt(per_year) * _VOLATILITY[regime] * np.exp(log_vol)
    shock = np.sqrt(correlation) * market + np.sqrt(1 - correlation) * own
    log_return = np.clip(_DRIFT[regime] / per_year + step_vol * shock, -0.5, 0.5)
    close = price * np.exp(np.cumsum(log_return))
    ranges = shocks[2].random((count, 3))
    previous = np.concatenate([[price], close[:-1]])
    open_ = previous * np.exp(0.2 * step_vol * (ranges[:, 0] - 0.5))
    high = np.maximum(open_, close) * np.exp(step_vol * 0.8 * ranges[:, 1])
    low = np.minimum(open_, close) * np.exp(-step_vol * 0.8 * ranges[:, 2])
    volume = turnover * np.exp(shocks[3].normal(0, 0.4, count) + 0.6 * np.abs(shock))
    return {"open": open_, "high": high, "low": low, "close": close, "volume": volume}


class SimulatorSource:
    """The simulator behind the source interface."""

    def __init__(self, config: SimulatorConfig, interval: str, calendar: str) -> None:
        self._config, self._interval, self._calendar = config, interval, calendar
        self._bars: pl.DataFrame | None = None

    def symbols(self) -> list[str]:
        return [f"SIM{index:04d}" for index in range(self._config.num_symbols)]

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars as `Source.fetch` says."""
        wanted = selected(self.symbols(), symbols)
        if self._bars is None:
            config = self._config
            self._bars = simulate(
                config.num_symbols,
                config.num_bars,
                self._interval,
                config.seed,
                calendar=self._calendar,
                start=clock.instant(config.start, "source.simulator.start")
                or datetime(2020, 1, 1, tzinfo=UTC),
                volatility_annual=config.volatility_annual,
                correlation=config.correlation,
            )
        return between(self._bars.filter(pl.col("symbol").is_in(wanted)), start, end)

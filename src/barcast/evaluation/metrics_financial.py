"""Financial metrics (D2) of a return series and its round trips; empyrical and scipy do the arithmetic.

Undefined cases have these values: ratios over zero volatility, zero drawdown or zero downside are NaN (a flat
    account
has no Sharpe, not a Sharpe of 0); every statistic of trades without trades is NaN except their count, 0;
profit factor without a losing trade is infinite when something was won; an account that lost everything has
annual return -1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

NAN = math.nan
_FLAT = 1e-15


def metrics(
    net_returns: np.ndarray,
    *,
    bars_per_year: float,
    benchmark_returns: np.ndarray | None = None,
    trades: pl.DataFrame | None = None,
    turnover: np.ndarray | None = None,
    exposure: np.ndarray | None = None,
    gross_returns: np.ndarray | None = None,
    risk_free_rate: float = 0.0,
    tail: float = 0.05,
) -> dict[str, float]:
    """Every financial metric of one account.

    Args:
        net_returns: (T,) simple returns per bar after all costs.
        bars_per_year: bars in a year of the calendar, for annual figures.
        benchmark_returns: (T,) simple returns of the benchmark (buy-and-hold) on the same bars.
        trades: round trips with net_return and duration_bars.
        turnover: (T,) traded notional per bar in parts of equity.
        risk_free_rate: yearly, simple.
        tail: share of the worst bars behind value at risk and expected shortfall, both given as returns
            (negative).
    """
    import empyrical as ep

    r = np.asarray(net_returns, dtype=np.float64)
    result: dict[str, float] = {"bars": float(len(r))}
    if len(r) == 0:
        return result | dict.fromkeys(_SERIES_NAMES, NAN) | _trade_metrics(trades)
    free = (1.0 + risk_free_rate) ** (1.0 / bars_per_year) - 1.0
    years = len(r) / bars_per_year
    growth = float(np.prod(1.0 + r))
    flat = len(r) < 2 or float(np.std(r)) < _FLAT
    drawdown = float(ep.max_drawdown(r))
    annual = growth ** (1.0 / years) - 1.0 if growth > 0 else -1.0
    downside = np.minimum(r - free, 0.0)
    result |= {
        "total_return": growth - 1.0,
        "annual_return": annual,
        "annual_volatility": 0.0 if flat else float(ep.annual_volatility(r, annualization=bars_per_year)),
        "sharpe": NAN if flat else float(ep.sharpe_ratio(r, risk_free=free, annualization=bars_per_year)),
        "sortino": NAN
        if len(r) < 2 or not downside.any()
        else float(ep.sortino_ratio(r, required_return=free, annualization=bars_per_year)),
        "calmar": annual / -drawdown if drawdown < -_FLAT else NAN,
        "max_drawdown": drawdown,
        "value_at_risk": float(ep.value_at_risk(r, cutoff=tail)),
        "expected_shortfall": float(ep.conditional_value_at_risk(r, cutoff=tail)),
        "stability": _stability(r),
        "skewness": _moment(r, "skew"),
        "kurtosis": _moment(r, "kurtosis"),
        "positive_bars": float(np.mean(r[r != 0] > 0)) if (r != 0).any() else NAN,
    }
    result["risk_adjusted_return"] = (
        annual / result["annual_volatility"] if result["annual_volatility"] > 0 else NAN
    )
    if benchmark_returns is not None:
        result |= _against(r, np.asarray(benchmark_returns, dtype=np.float64), annual, years, bars_per_year)
    if turnover is not None:
        result["turnover_per_year"] = float(np.sum(turnover) / years)
    if exposure is not None:
        result["mean_exposure"] = float(np.mean(exposure))
    if gross_returns is not None:
        gross = float(np.prod(1.0 + gross_returns)) - 1.0
        result["gross_total_return"] = gross
        result["cost_share"] = (gross - result["total_return"]) / gross if gross > 0 else NAN
    return result | _trade_metrics(trades)


_SERIES_NAMES = (
    "total_return", "annual_return", "annual_volatility", "sharpe", "sortino", "calmar", "max_drawdown",
    "value_at_risk", "expected_shortfall", "stability", "skewness", "kurtosis", "positive_bars",
    "risk_adjusted_return",
)  # fmt: skip


def _against(
    r: np.ndarray, benchmark: np.ndarray, annual: float, years: float, bars_per_year: float
) -> dict[str, float]:
    """Excess annual return and information ratio (mean over standard deviation of the active return,
    annual).
    """
    active = r - benchmark
    growth = float(np.prod(1.0 + benchmark))
    spread = float(np.std(active, ddof=1)) if len(r) > 1 else 0.0
    return {
        "benchmark_annual_return": (growth ** (1.0 / years) - 1.0) if growth > 0 else -1.0,
        "excess_annual_return": annual - ((growth ** (1.0 / years) - 1.0) if growth > 0 else -1.0),
        "information_ratio": float(np.mean(active)) / spread * math.sqrt(bars_per_year)
        if spread > _FLAT
        else NAN,
    }


def _stability(r: np.ndarray) -> float:
    """R-squared of a line through the cumulative log return; NaN for a flat or ruined account."""
    import empyrical as ep

    if len(r) < 3 or np.min(r) <= -1.0 or float(np.std(np.cumsum(np.log1p(r)))) < _FLAT:
        return NAN
    return float(ep.stability_of_timeseries(r))


def _moment(r: np.ndarray, name: str) -> float:
    """Sample skewness or excess kurtosis (biased, as in scipy); NaN for a constant series."""
    from scipy import stats

    # scipy warns of lost precision on series that are constant but for rounding
    if len(r) < 3 or float(np.ptp(r)) <= 1e-9 * max(abs(float(np.mean(r))), _FLAT):
        return NAN
    return float(getattr(stats, name)(r))


def _trade_metrics(trades: pl.DataFrame | None) -> dict[str, float]:
    """Win rate, profit factor, payoff and duration of round trips, by net return on their notional."""
    names = ("win_rate", "profit_factor", "average_win", "average_loss", "payoff_ratio", "average_trade_bps",
             "trade_duration_bars", "best_trade", "worst_trade")  # fmt: skip
    if trades is None:
        return {}
    if trades.height == 0:
        return {"trades": 0.0} | dict.fromkeys(names, NAN)
    net = trades["net_return"].to_numpy()
    wins, losses = net[net > 0], net[net < 0]
    won = float(np.mean(wins)) if len(wins) else NAN
    lost = float(np.mean(losses)) if len(losses) else NAN
    without_loss = math.inf if len(wins) else NAN
    factor = float(wins.sum() / -losses.sum()) if len(losses) else without_loss
    return {
        "trades": float(len(net)),
        "win_rate": float(np.mean(net > 0)),
        "profit_factor": factor,
        "average_win": won,
        "average_loss": lost,
        "payoff_ratio": won / -lost if len(wins) and len(losses) else NAN,
        "average_trade_bps": float(np.mean(net)) * 1e4,
        "trade_duration_bars": float(trades["duration_bars"].cast(pl.Float64).mean()),  # type: ignore[arg-type]
        "best_trade": float(net.max()),
        "worst_trade": float(net.min()),
    }


def of_backtest(
    result: Any,
    *,
    bars_per_year: float,
    benchmark: Any | None = None,
    risk_free_rate: float = 0.0,
    tail: float = 0.05,
) -> dict[str, float]:
    """`metrics` of a BacktestResult, against another one on the same bars as benchmark."""
    return metrics(
        result.net_returns,
        bars_per_year=bars_per_year,
        benchmark_returns=None if benchmark is None else benchmark.net_returns,
        trades=result.trades,
        turnover=result.portfolio["turnover"].to_numpy(),
        exposure=result.portfolio["exposure"].to_numpy(),
        gross_returns=result.gross_returns,
        risk_free_rate=risk_free_rate,
        tail=tail,
    )

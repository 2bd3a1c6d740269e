"""How capital is shared between symbols: skfolio over predicted returns and covariances of the past only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barcast.config.decisions import DecisionsConfig
from barcast.errors import DataError

MIN_PERIODS = 40


@dataclass(frozen=True)
class Allocation:
    """Signed shares of equity by symbol.

    Attributes:
        method: what was used in the end.
        note: why, when it is not the configured one.
        expected_return, volatility: of the portfolio, over one horizon.
    """

    weights: Mapping[str, float]
    method: str
    expected_return: float
    volatility: float
    note: str = ""


def allocate(
    symbols: tuple[str, ...],
    returns: NDArray[np.float64],
    expected: Mapping[str, float],
    config: DecisionsConfig,
    *,
    horizon_bars: int = 1,
    risk_aversion: float = 3.0,
) -> Allocation:
    """Share capital between `symbols`.

    Args:
        returns: (N, S) simple returns per bar up to now, no later bar; rows with NaN are left out.
        expected: expected log return over the horizon by symbol; its sign is the side.
        risk_aversion: weight of the variance against the return (mean_risk).

    Each weight lies within the position limit on its signal's side (none without a signal, none short where
    shorts are not allowed), the sum of absolute weights within the capital limit.

    Raises:
        DataError: shapes that don't fit, or not a single complete row.
    """
    if returns.ndim != 2 or returns.shape[1] != len(symbols):
        raise DataError(f"Returns of shape {returns.shape} were given for {len(symbols)} symbols.")
    complete = returns[np.isfinite(returns).all(axis=1)]
    if not symbols or complete.shape[0] == 0:
        raise DataError(
            "There is no period in which all symbols have a return.", hint="Ask for fewer symbols."
        )
    mean = np.array([expected.get(s, 0.0) for s in symbols])
    side = np.sign(mean)
    if not config.allow_short:
        side = np.maximum(side, 0.0)
    active = np.flatnonzero(side)
    weights = np.zeros(len(symbols))
    method, note = config.portfolio_method, ""
    if active.size:
        history = complete[:, active] * side[active]  # every active symbol is now a long position
        found: NDArray[np.float64] | None = None
        if complete.shape[0] >= MIN_PERIODS and active.size > 1:
            found = _skfolio(method, history, np.abs(mean[active]), horizon_bars, risk_aversion, config)
        else:
            note = f"{complete.shape[0]} common periods and {active.size} symbols: inverse volatility used"
        if found is None:
            method = "inverse_volatility"
            note = note or "the optimiser found no solution: inverse volatility used"
            found = _inverse_volatility(history)
        share = np.clip(np.nan_to_num(found), 0.0, None)
        if method != "mean_risk" and share.sum() > 0:
            share = share / share.sum() * config.max_capital_share
        share = np.minimum(share, config.max_position_share)
        if share.sum() > config.max_capital_share:
            share *= config.max_capital_share / share.sum()
        weights[active] = np.where(share < config.min_size_share, 0.0, share) * side[active]
    volatility = 0.0
    if len(complete) > 1:
        covariance = np.atleast_2d(np.cov(complete, rowvar=False)) * horizon_bars
        volatility = float(np.sqrt(np.maximum(weights @ covariance @ weights, 0.0)))
    return Allocation(
        {s: float(w) for s, w in zip(symbols, weights, strict=True)},
        method,
        float(weights @ mean),
        volatility,
        note,
    )


def _inverse_volatility(history: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = history.std(axis=0)
    spread = np.where(spread > 0, spread, np.max(spread) if np.max(spread) > 0 else 1.0)
    return np.asarray((1 / spread) / np.sum(1 / spread))


def _skfolio(
    method: str,
    history: NDArray[np.float64],
    mean: NDArray[np.float64],
    horizon_bars: int,
    risk_aversion: float,
    config: DecisionsConfig,
) -> NDArray[np.float64] | None:
    """Weights of the configured estimator; None when it finds none."""
    import warnings

    from skfolio import RiskMeasure
    from skfolio.exceptions import OptimizationError
    from skfolio.moments import LedoitWolf
    from skfolio.optimization import InverseVolatility, MeanRisk, ObjectiveFunction, RiskBudgeting
    from skfolio.prior import EmpiricalPrior

    prior = EmpiricalPrior(mu_estimator=_given_mu(mean / horizon_bars), covariance_estimator=LedoitWolf())
    estimator: Any
    if method == "mean_risk":
        estimator = MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
            risk_measure=RiskMeasure.VARIANCE,
            risk_aversion=risk_aversion,
            prior_estimator=prior,
            min_weights=0.0,
            max_weights=config.max_position_share,
            budget=None,
            min_budget=0.0,
            max_budget=config.max_capital_share,
        )
    elif method == "risk_parity":
        estimator = RiskBudgeting(prior_estimator=prior)
    else:
        estimator = InverseVolatility(prior_estimator=prior)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the solver's remarks on accuracy; the result is clipped and checked
            weights = np.asarray(estimator.fit(history).weights_, dtype=np.float64)
    except (OptimizationError, ValueError, ArithmeticError):
        return None
    return weights if np.isfinite(weights).all() else None


def _given_mu(values: NDArray[np.float64]) -> Any:
    """skfolio's interface for expected returns, answering with the model's predictions instead of past
    means."""
    from skfolio.moments import BaseMu

    class GivenMu(BaseMu):  # type: ignore[misc]
        def __init__(self, values: NDArray[np.float64] | None = None) -> None:
            self.values = values

        def fit(self, X: Any, y: Any = None) -> GivenMu:
            self.mu_ = np.asarray(self.values)
            return self

    return GivenMu(values)

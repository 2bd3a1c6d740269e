"""Sharpe ratios that know how often one has looked: probabilistic and deflated (Bailey and Lopez de Prado
2012, 2014).

A return series and the number of trials in, a probability out; the gate and the report read it.
"""

from __future__ import annotations

import math

import numpy as np

EULER = 0.5772156649015329


def sharpe(returns: np.ndarray) -> float:
    """Mean over sample standard deviation, per period; NaN without variation."""
    if len(returns) < 2:
        return math.nan
    spread = float(np.std(returns, ddof=1))
    return float(np.mean(returns)) / spread if spread > 1e-15 else math.nan


def probabilistic_sharpe(returns: np.ndarray, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio (per period) exceeds `benchmark`, given length, skewness and
    kurtosis.

    Source: Bailey, Lopez de Prado, "The Sharpe ratio efficient frontier" (2012), equation 11. NaN when
        undefined.
    """
    from scipy import stats

    ratio = sharpe(returns)
    if math.isnan(ratio):
        return math.nan
    skew = float(stats.skew(returns))
    kurtosis = float(stats.kurtosis(returns, fisher=False))
    spread = 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2
    return float(
        stats.norm.cdf((ratio - benchmark) * math.sqrt(len(returns) - 1) / math.sqrt(max(spread, 1e-12)))
    )


def expected_max_sharpe(num_trials: int, variance: float) -> float:
    """Expected largest Sharpe ratio of `num_trials` skill-less trials whose ratios have `variance`; 0 for one
    trial.

    Source: Bailey, Lopez de Prado, "The deflated Sharpe ratio" (2014), equation 6.
    """
    from scipy import stats

    if num_trials <= 1:
        return 0.0
    high = stats.norm.ppf(1 - 1 / num_trials)
    higher = stats.norm.ppf(1 - 1 / (num_trials * math.e))
    return float(math.sqrt(variance) * ((1 - EULER) * high + EULER * higher))


def deflated_sharpe(
    returns: np.ndarray, *, num_trials: int, trial_sharpes: np.ndarray | None = None
) -> float:
    """Probability that the true Sharpe exceeds what the best of `num_trials` tries without skill would show.

    Args:
        returns: (K,) returns per period, periods as independent as possible (blocks).
        num_trials: every configuration ever tried for this model, search trials and gate attempts together.
        trial_sharpes: Sharpe ratios (per period) of the trials; without at least two, their variance is taken
            as that of a skill-less estimate, 1 / (K - 1).
    """
    if len(returns) < 2:
        return math.nan
    known = trial_sharpes is not None and len(trial_sharpes) >= 2
    variance = float(np.var(np.asarray(trial_sharpes), ddof=1)) if known else 1.0 / (len(returns) - 1)
    return probabilistic_sharpe(returns, expected_max_sharpe(num_trials, variance))

"""Regimes by a hidden Markov model, filtered: what was known at t, never smoothed with what came after.

`fit` learns three states of one symbol's returns and their volatility from training bars (hmmlearn); `filtered`
walks forward through any bars and gives each state's chance given the bars so far. The codes are those of
`models.regime`, so either may feed the heads, slices and features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from barcast.errors import DataError
from barcast.models.regime import rules

BULL, BEAR, SIDEWAYS = 0, 1, 2


@dataclass(frozen=True)
class MarketStates:
    """A fitted model, states in the order of regime.REGIMES.

    Attributes:
        start: (3,) chances before the first bar.
        transition: (3, 3) chances from row to column.
        mean, variance: (3, 2) of the observations: trend score and log volatility, standardised.
        centre, scale: (2,) that standardise them.
        trend_bars: bars over which the trend is measured.
    """

    start: np.ndarray
    transition: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    trend_bars: int


def _observations(close: np.ndarray, trend_bars: int) -> np.ndarray:
    """(n, 2): exponentially weighted mean over deviation of log returns, and log deviation; causal."""
    frame = pl.DataFrame({"r": np.diff(np.log(close), prepend=np.log(close[0]))})
    found = frame.select(
        pl.col("r").ewm_mean(span=trend_bars).alias("mean"),
        pl.col("r").pow(2).ewm_mean(span=trend_bars).sqrt().alias("deviation"),
    ).to_numpy()
    deviation = np.maximum(found[:, 1], 1e-8)
    return np.stack([found[:, 0] / deviation, np.log(deviation)], axis=1)


def fit(train_close: np.ndarray, *, trend_bars: int = 30, seed: int = 7) -> MarketStates:
    """Fit three states on training closes (n,) of one symbol, adjusted.

    Raises:
        DataError: fewer than 200 bars, or prices that never move.
    """
    import logging

    from hmmlearn.hmm import GaussianHMM

    if len(train_close) < 200 or np.ptp(train_close) <= 0:
        raise DataError(
            f"{len(train_close)} closes cannot show three regimes.", hint="Use 200 or more bars that move."
        )
    x = _observations(np.asarray(train_close, dtype=np.float64), trend_bars)[trend_bars:]
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-8)
    model = GaussianHMM(n_components=3, covariance_type="diag", n_iter=50, tol=1e-3, random_state=seed)
    # Its note about a last tiny step backwards is no fault.
    logging.getLogger("hmmlearn.base").setLevel(logging.ERROR)
    model.fit((x - centre) / scale)
    trend = model.means_[:, 0]
    order = np.array([int(trend.argmax()), int(trend.argmin()), 0])
    order[2] = ({0, 1, 2} - set(order[:2].tolist())).pop()
    variance = np.array([np.diag(c) if c.ndim == 2 else c for c in model.covars_])
    return MarketStates(
        start=model.startprob_[order],
        transition=model.transmat_[np.ix_(order, order)],
        mean=model.means_[order],
        variance=np.maximum(variance[order], 1e-6),
        centre=centre,
        scale=scale,
        trend_bars=trend_bars,
    )


def filtered(states: MarketStates, close: np.ndarray) -> np.ndarray:
    """(n, 3) chance of bull, bear, sideways at each bar given bars up to it (the forward recursion)."""
    x = (_observations(np.asarray(close, dtype=np.float64), states.trend_bars) - states.centre) / states.scale
    z = -0.5 * (
        np.square(x[:, None] - states.mean) / states.variance + np.log(2 * np.pi * states.variance)
    ).sum(axis=2)
    likelihood = np.exp(z - z.max(axis=1, keepdims=True))
    belief, found = states.start, np.empty((len(x), 3))
    for t, given in enumerate(likelihood):
        belief = (belief if t == 0 else belief @ states.transition) * given
        belief = belief / max(belief.sum(), 1e-300)
        found[t] = belief
    return found


def label(bars: pl.DataFrame, fitted: dict[str, MarketStates]) -> pl.DataFrame:
    """As `regime.rules`, with `regime` from each symbol's filtered states where it has a fitted model."""
    by_rules = rules(bars)
    parts = []
    for part in bars.sort("symbol", "event_timestamp").partition_by("symbol", maintain_order=True):
        symbol = part["symbol"][0]
        if symbol in fitted:
            chance = filtered(fitted[symbol], part["close"].to_numpy())
            codes = pl.Series("_hmm", chance.argmax(axis=1).astype(np.int8))
            parts.append(part.select("symbol", "event_timestamp").with_columns(codes))
    if not parts:
        return by_rules
    joined = by_rules.join(
        pl.concat(parts), on=["symbol", "event_timestamp"], how="left", maintain_order="left"
    )
    return joined.with_columns(
        pl.when(pl.col("regime").is_null())
        .then(None)
        .otherwise(pl.coalesce("_hmm", "regime"))
        .alias("regime")
    ).drop("_hmm")

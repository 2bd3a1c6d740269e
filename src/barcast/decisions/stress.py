"""What the present positions would lose on the worst days of the past, and under simulated shocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.types import Account


@dataclass(frozen=True)
class Scenario:
    """One scenario: change of equity as a share (negative is a loss), and each symbol's part of it."""

    name: str
    change: float
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class StressReport:
    """All scenarios, worst first.

    Attributes:
        limit: largest share of equity that may be lost.
        passed: no scenario loses more.
    """

    scenarios: tuple[Scenario, ...]
    limit: float
    passed: bool

    @property
    def worst(self) -> Scenario | None:
        return self.scenarios[0] if self.scenarios else None


def run(
    account: Account,
    symbols: tuple[str, ...],
    returns: NDArray[np.float64],
    times: tuple[datetime, ...],
    config: DecisionsConfig,
    *,
    worst_days: int = 5,
    shocks: tuple[float, ...] = (-0.05, -0.10, -0.20, 0.10),
    samples: int = 2000,
    seed: int = 7,
) -> StressReport:
    """Test the account's positions.

    Args:
        symbols: (S,) columns of `returns`; positions in other symbols take part in the flat shocks only.
        returns: (N, S) simple returns per period of the past, NaN where a symbol had none.
        times: (N,) ends of the periods.
        shocks: all prices move by this much at once.
        samples: draws of correlated Student-t (4 degrees) returns with three times the past's standard
        deviations
            (all but `1 %` of them are left out: the scenario is their 1 % quantile).
        seed: of the draws.
    """
    held = {p.symbol: account.share(p.symbol) for p in account.positions}
    shares = np.array([held.get(s, 0.0) for s in symbols])
    found: list[Scenario] = []
    if returns.size:
        losses = np.nansum(np.where(np.isnan(returns), 0.0, returns) * shares, axis=1)
        for i in np.argsort(losses, kind="stable")[:worst_days]:
            name = f"worst past period {times[int(i)]:%Y-%m-%d %H:%M}"
            found.append(_scenario(name, symbols, np.nan_to_num(returns[int(i)]), shares))
    for shock in shocks:
        parts = tuple((s, share * shock) for s, share in held.items())
        found.append(Scenario(f"all prices {shock:+.0%}", sum(v for _, v in parts), parts))
    if returns.shape[0] > 20 and shares.any():
        found.append(_simulated(symbols, returns, shares, samples, seed))
    found.sort(key=lambda s: s.change)
    return StressReport(tuple(found), config.stress_loss, all(s.change >= -config.stress_loss for s in found))


def _scenario(
    name: str, symbols: tuple[str, ...], moves: NDArray[np.float64], shares: NDArray[np.float64]
) -> Scenario:
    parts = tuple((s, float(v)) for s, v in zip(symbols, moves * shares, strict=True) if v != 0)
    return Scenario(name, float(np.sum(moves * shares)), parts)


def _simulated(
    symbols: tuple[str, ...],
    returns: NDArray[np.float64],
    shares: NDArray[np.float64],
    samples: int,
    seed: int,
) -> Scenario:
    filled = np.nan_to_num(returns)
    covariance = np.atleast_2d(np.cov(filled, rowvar=False)) * 9.0
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((samples, len(symbols))) @ root.T
    # scaled so that the draws keep the covariance: a t variable with 4 degrees has variance 2
    moves = normal / np.sqrt(rng.chisquare(4, size=(samples, 1)) / 4) / np.sqrt(2.0)
    moves = np.maximum(moves, -1.0)
    losses = moves @ shares
    pick = int(np.argsort(losses)[max(0, int(samples * 0.01) - 1)])
    return _scenario(
        "simulated crash, 1% quantile at three times the volatility", symbols, moves[pick], shares
    )

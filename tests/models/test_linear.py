"""How the linear baseline chooses its penalties, and how it reads returns that are mostly noise."""

from __future__ import annotations

import numpy as np
import pytest

from barcast.models import linear
from barcast.models.regression import Design


def noisy_returns(
    seed: int, rows: int, signal: float
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Features, targets and true coefficients: volatility changes twentyfold, noise has the tails of a t with 3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 20)).astype(np.float32)
    volatility = np.exp(rng.normal(-5.0, 1.0, size=rows))
    truth = signal * volatility.mean() * np.where(np.arange(20) < 5, 1.0, 0.0)
    returns = x @ truth + volatility * rng.standard_t(3, size=rows)
    targets = {
        "forward_log_return": returns,
        "label": np.digitize(returns / volatility, [-0.5, 0.5]),
        "volatility": volatility.astype(np.float32),
        "weight": np.ones(rows, np.float32),
        "trend_strength": np.zeros(rows, np.float32),
        "regime": np.arange(rows) % 3,
        "volatility_regime": np.arange(rows) % 3,
    }
    return x, targets, truth


def expected(seed: int, signal: float) -> tuple[np.ndarray, np.ndarray, linear.LinearFit, np.ndarray]:
    """Expected returns of new rows, those rows, the fit and the true coefficients."""
    x, targets, truth = noisy_returns(seed, 6000, signal)
    held_x, held, _ = noisy_returns(seed + 100, 3000, signal)
    fit = linear.fit(x, targets, (held_x, held))
    new, _, _ = noisy_returns(seed + 200, 3000, signal)
    return new @ fit.mean_return[0] + fit.mean_return[1], new, fit, truth


@pytest.mark.parametrize("seed", range(4))
def test_returns_are_read_through_wild_bars_and_tails(seed: int) -> None:
    found, new, fit, truth = expected(seed, signal=0.1)
    assert np.corrcoef(found, new @ truth)[0, 1] > 0.9
    x, targets, _ = noisy_returns(seed, 6000, signal=0.1)
    plain = [
        Design(x, targets["weight"]).ridge(targets["forward_log_return"], p)[0] for p in (1, 1e3, 1e4, 1e5)
    ]
    # The peer is the best of ridge regressions on the returns as they are, chosen with the answer at hand.
    missed = min(float(np.linalg.norm(new @ (other - truth))) for other in plain)
    assert float(np.linalg.norm(found - new @ truth)) < missed
    likelier = new @ (fit.classes[0][2] - fit.classes[0][0]) + fit.classes[1][2] - fit.classes[1][0]
    assert (np.sign(found) == np.sign(likelier)).all()


def test_of_returns_without_a_signal_next_to_nothing_is_expected() -> None:
    found, _, _, _ = expected(3, signal=0.0)
    _, targets, _ = noisy_returns(3, 6000, signal=0.0)
    assert np.abs(found).mean() < 0.01 * np.abs(targets["forward_log_return"]).mean()


def test_penalties_are_tried_until_one_does_worse() -> None:
    tried: list[tuple[float, float | None]] = []

    def fitted(penalty: float, before: float | None) -> float:
        tried.append((penalty, before))
        return penalty

    best = linear._until_worse((9.0, 5.0, 3.0, 2.0, 1.0), fitted, lambda found: abs(found - 3.2))
    assert best == (3.0, 3.0)
    assert tried == [(9.0, None), (5.0, 9.0), (3.0, 5.0), (2.0, 3.0)]


def test_a_side_that_rows_do_not_know_is_told_less_than_how_far() -> None:
    """One feature knows whether the price moves; none knows where to, and few rows pretend that some do."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, 30)).astype(np.float32)
    moves = rng.uniform(size=3000) < 1 / (1 + np.exp(-x[:, 0]))
    label = np.where(moves, rng.choice([0, 2], size=3000), 1)
    targets = {
        "label": label,
        "weight": np.ones(3000, np.float32),
        "forward_log_return": np.where(moves, label - 1.0, 0.0) * 0.01,
        "volatility": np.full(3000, 0.01, np.float32),
        "trend_strength": np.zeros(3000, np.float32),
        "regime": np.arange(3000) % 3,
        "volatility_regime": np.arange(3000) % 3,
    }
    train, held = (
        {name: values[part] for name, values in targets.items()} for part in (slice(2000), slice(2000, None))
    )
    fit = linear.fit(x[:2000], train, (x[2000:], held))
    kernel = fit.classes[0]
    side, move = (kernel[2] - kernel[0]) / np.sqrt(2), (kernel[0] + kernel[2] - 2 * kernel[1]) / np.sqrt(6)
    assert move[0] > 0.5
    same = Design(x[:2000], train["weight"]).logistic(train["label"], fit.penalty)[:-1]
    assert np.linalg.norm(side) < 0.7 * np.linalg.norm((same[:, 2] - same[:, 0]) / np.sqrt(2))
    assert fit.penalty < linear.PENALTIES[0]

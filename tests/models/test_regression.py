"""Our regressions against scikit-learn's on the same rows, weights and penalties."""

from __future__ import annotations

import numpy as np
import pytest

from barcast.models.regression import CHUNK, Design


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """More rows than one chunk, features that depend on one another, three classes, uneven weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(CHUNK + 900, 12)).astype(np.float32)
    x[:, 5] = x[:, 4] + 0.01 * x[:, 5]
    z = x[:, :3] * 1.5 + [0.2, 0.0, -0.4] + rng.gumbel(size=(len(x), 3))
    return x, z.argmax(axis=1), rng.uniform(0.2, 2.0, size=len(x))


@pytest.mark.parametrize("penalty", [1.0, 300.0])
def test_logistic_gives_scikit_learns_answers(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray], penalty: float
) -> None:
    from sklearn.linear_model import LogisticRegression

    x, label, weight = rows
    theirs = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=2000).fit(x, label, sample_weight=weight)
    found = Design(x, weight).logistic(label, penalty, tolerance=1e-9)
    z = x @ found[:-1] + found[-1]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, theirs.predict_proba(x), atol=2e-3)


def test_logistic_leaves_out_unknown_rows_and_unseen_classes(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    x, label, weight = rows
    two = np.where(label == 1, -1, label)
    found = Design(x, weight).logistic(two, 10.0)
    kept = Design(x[two >= 0], weight[two >= 0]).logistic(two[two >= 0], 10.0)
    np.testing.assert_allclose(found, kept, atol=5e-3)
    assert (found[:-1, 1] == 0).all()
    assert found[-1, 1] == -20
    only = Design(x, weight).logistic(np.full(len(x), 2), 10.0)
    assert only[-1].tolist() == [-20, -20, 0]
    assert Design(x, weight).logistic(np.full(len(x), -1), 10.0)[-1].tolist() == [0, 0, 0]


def test_ridge_gives_scikit_learns_coefficients(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    from sklearn.linear_model import Ridge

    x, label, weight = rows
    y = x @ np.linspace(-1, 1, 12) + 3 + 0.1 * label
    theirs = Ridge(alpha=20.0).fit(x, y, sample_weight=weight)
    coefficients, intercept = Design(x, weight).ridge(y, 20.0)
    np.testing.assert_allclose(coefficients, theirs.coef_, atol=1e-3)
    assert intercept == pytest.approx(theirs.intercept_, abs=1e-3)
    nothing, zero = Design(x, np.zeros(len(x))).ridge(y, 20.0)
    assert not nothing.any()
    assert zero == 0


def test_what_tells_the_sides_apart_has_a_penalty_of_its_own(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    from scipy.optimize import minimize

    x, label, weight = rows
    side, move = np.array([-1, 0, 1]) / np.sqrt(2), np.array([1, -2, 1]) / np.sqrt(6)

    def objective(flat: np.ndarray) -> float:
        w = flat.reshape(13, 3)
        z = x @ w[:-1] + w[-1]
        z = z - z.max(axis=1, keepdims=True)
        fit = weight @ (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), label])
        return float(fit + 0.5 * (2000 * (w[:-1] @ side) ** 2 + 20 * (w[:-1] @ move) ** 2).sum())

    found = Design(x, weight).logistic(label, 20.0, side_penalty=2000.0, tolerance=1e-10)
    least = minimize(objective, np.zeros(39), method="L-BFGS-B", options={"maxfun": 10**6, "ftol": 1e-12})
    assert objective(found.ravel()) == pytest.approx(least.fun, rel=1e-6)
    np.testing.assert_allclose(found[:-1] @ side, least.x.reshape(13, 3)[:-1] @ side, atol=2e-3)
    same, plain = (Design(x, weight).logistic(label, 20.0, side_penalty=p) for p in (20.0, None))
    np.testing.assert_array_equal(same, plain)

"""Logistic and ridge regression over many rows, each step one pass of float32 products over them.

`Design` holds standardised rows, their weights and their weighted Gram matrix, which every fit over the same rows
shares. Near chance a multinomial fit's curvature is a third of that matrix, so steps measured by it need tens of passes
where plain ones need hundreds. Axes: n rows, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

# What tells class 2 (BUY) from class 0 (SELL), as a direction of length 1 among coefficients.
SIDE = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2)
# Rows multiplied at once: small enough that the second product of a pass finds them in the cache.
CHUNK = 4096


@dataclass(frozen=True)
class Design:
    """Rows to fit.

    Attributes:
        x: (n, F) float32, standardised and clipped.
        weight: (n,) of each row, 0 to leave it out.
    """

    x: np.ndarray
    weight: np.ndarray

    @cached_property
    def gram(self) -> np.ndarray:
        """(F + 1, F + 1) float64: weighted products of the features and of the constant, which comes last."""
        size = self.x.shape[1]
        found = np.zeros((size + 1, size + 1))
        for rows in chunks(len(self.x)):
            x, weight = self.x[rows], self.weight[rows].astype(np.float32)
            weighted = x * weight[:, None]
            found[:size, :size] += weighted.T @ x
            found[:size, size] += weighted.sum(axis=0, dtype=np.float64)
            found[size, size] += weight.sum(dtype=np.float64)
        found[size, :size] = found[:size, size]
        return found

    def ridge(self, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
        """Coefficients (F,) and intercept of least weighted squares; the intercept is not penalised."""
        size = self.x.shape[1]
        weighted = (self.weight * y).astype(np.float64)
        right = np.append(np.zeros(size), weighted.sum())
        for rows in chunks(len(self.x)):
            right[:size] += self.x[rows].T @ weighted[rows].astype(np.float32)
        if self.gram[-1, -1] <= 0:
            return np.zeros(size), 0.0
        found = np.linalg.lstsq(self.gram + _penalty(size, penalty), right, rcond=None)[0]
        return found[:size], float(found[size])

    def logistic(
        self,
        label: np.ndarray,
        penalty: float,
        *,
        side_penalty: float | None = None,
        start: np.ndarray | None = None,
        tolerance: float = 1e-5,
    ) -> np.ndarray:
        """Multinomial logistic regression, (F + 1, 3) float64 with the intercepts in the last row.

        Least weighted cross-entropy plus half `penalty` times the squared coefficients. A class never seen gets a
        very low intercept.

        Args:
            label: (n,) classes 0, 1, 2; rows below 0 are left out.
            side_penalty: for what tells class 2 from class 0, in place of `penalty`; where all three are seen.
            start: coefficients to begin from, as returned.
            tolerance: stops when a pass lowers the mean loss by a smaller share than this.
        """
        from scipy.linalg import cholesky, solve_triangular
        from scipy.optimize import minimize

        size = self.x.shape[1]
        weight = np.where(label >= 0, self.weight, 0.0).astype(np.float32)
        seen = np.unique(label[(label >= 0) & (self.weight > 0)])
        found = np.zeros((size + 1, 3))
        found[size] = -20.0
        if len(seen) < 2:
            found[size, seen if len(seen) else slice(None)] = 0.0
            return found
        at = np.searchsorted(seen, np.maximum(label, seen[0]))
        total = max(float(weight.sum(dtype=np.float64)), 1e-12)
        ridge = _penalty(size, penalty)
        shape = self.gram / 3 + ridge
        # A hair on the diagonal keeps features that repeat one another solvable.
        shape[np.diag_indices(size + 1)] += 1e-6 * np.trace(shape) / (size + 1)
        root = cholesky(shape / total, lower=True)
        apart = 0.0 if side_penalty is None or len(seen) < 3 else side_penalty - penalty
        more = _penalty(size, apart).diagonal()

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w = solve_triangular(root, flat.reshape(size + 1, -1), lower=True, trans="T")
            value, slope = _cross_entropy(self.x, w, at, weight)
            value += 0.5 * float((ridge.diagonal()[:, None] * w * w).sum())
            slope += ridge.diagonal()[:, None] * w
            if apart:
                side = w @ SIDE
                value += 0.5 * float((more * side * side).sum())
                slope += np.outer(more * side, SIDE)
            back: np.ndarray = solve_triangular(root, slope / total, lower=True)
            return value / total, back.ravel()

        begin = np.zeros((size + 1, len(seen))) if start is None else start[:, seen]
        result: Any = minimize(
            loss,
            (root.T @ begin).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "ftol": tolerance, "gtol": 1e-7},
        )
        found[:, seen] = solve_triangular(root, result.x.reshape(size + 1, -1), lower=True, trans="T")
        return found


def chunks(rows: int) -> list[slice]:
    """Slices of at most CHUNK rows."""
    return [slice(start, start + CHUNK) for start in range(0, rows, CHUNK)]


def _penalty(size: int, penalty: float) -> np.ndarray:
    """Diagonal matrix of the penalty; the intercept, last, has none."""
    return np.diag(np.append(np.full(size, penalty), 0.0))


def _cross_entropy(
    x: np.ndarray, w: np.ndarray, at: np.ndarray, weight: np.ndarray
) -> tuple[float, np.ndarray]:
    """Weighted cross-entropy of all rows and its gradient (F + 1, K), in one pass over the rows."""
    size = x.shape[1]
    kernel, bias = w[:size].astype(np.float32), w[size].astype(np.float32)
    value, slope = 0.0, np.zeros(w.shape)
    for rows in chunks(len(x)):
        part, truth, scale = x[rows], at[rows], weight[rows]
        z = part @ kernel + bias
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        total = p.sum(axis=1, keepdims=True)
        row = np.arange(len(part))
        value += float(((np.log(total[:, 0]) - z[row, truth]) * scale).sum(dtype=np.float64))
        p /= total
        p[row, truth] -= 1
        p *= scale[:, None]
        slope[:size] += part.T @ p
        slope[size] += p.sum(axis=0, dtype=np.float64)
    return value, slope

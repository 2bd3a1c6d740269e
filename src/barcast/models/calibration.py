"""Calibration on a slice of its own: temperature of the probabilities, and the confidence's own curve.

Arrays go in (logits of each dropout sample, classes), a few numbers come out that the model carries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """Fitted numbers. Confidence = sigmoid(slope x logit(top probability) + head x confidence logit + bias)."""

    temperature: float = 1.0
    confidence_slope: float = 1.0
    confidence_head: float = 0.0
    confidence_bias: float = 0.0


def mean_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """(N, n, K) logits to (n, K): softmax at this temperature, averaged over the N samples."""
    z = logits / temperature
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = (z / z.sum(axis=-1, keepdims=True)).mean(axis=0)
    return probabilities


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature in [0.05, 20] of least log loss (Guo et al., 2017); logits (N, n, K), classes (n,)."""
    from scipy.optimize import minimize_scalar

    def log_loss(log_temperature: float) -> float:
        p = mean_softmax(logits, float(np.exp(log_temperature)))[np.arange(len(label)), label]
        return float(-np.log(np.clip(p, 1e-12, None)).mean())

    found = minimize_scalar(log_loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    best = float(np.exp(found.x))
    return best if log_loss(float(found.x)) <= log_loss(0.0) else 1.0


def fit(
    logits: np.ndarray, confidence_logit: np.ndarray, label: np.ndarray, *, strength: float = 20.0
) -> Calibration:
    """Temperature first, then the confidence's logistic curve, drawn towards slope 1, head 0, bias 0.

    Args:
        logits: (N, n, 3) of the calibration slice.
        confidence_logit: (n,) of the confidence head.
        label: (n,) classes.
        strength: rows that the prior is worth; a short slice stays near it.
    """
    from scipy.optimize import minimize

    temperature = fit_temperature(logits, label)
    p = mean_softmax(logits, temperature)
    top = np.clip(p.max(axis=1), 1e-6, 1 - 1e-6)
    x = np.stack([np.log(top / (1 - top)), confidence_logit, np.ones(len(top))], axis=1)
    correct = (p.argmax(axis=1) == label).astype(np.float64)
    prior = np.array([1.0, 0.0, 0.0])

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w
        value = np.logaddexp(0, z).sum() - (z * correct).sum() + 0.5 * strength * ((w - prior) ** 2).sum()
        gradient = x.T @ (1 / (1 + np.exp(-z)) - correct) + strength * (w - prior)
        return float(value), gradient

    w = minimize(objective, prior, jac=True, method="L-BFGS-B").x
    return Calibration(temperature, *(float(v) for v in w))

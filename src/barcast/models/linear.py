"""The linear baseline: fitted in closed form or by few passes, answering as a model of the same outputs and signatures.

The last bar's standardised features of each window are what it reads. Its coefficients live in a Keras
model, so that it is exported and served like the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from barcast.models.columns import COLUMNS, by_name
from barcast.models.layers import Normalise
from barcast.models.network import Statistics, entropy
from barcast.models.presets import Architecture
from barcast.models.regression import Design


@dataclass(frozen=True)
class LinearFit:
    """Coefficients over standardised, clipped features; rows are classes.

    `classes` (3, F'), `regime` (3, F'), `volatility_regime` (3, F'), `mean_return`, `log_volatility`,
    `trend` (F'), each with its intercept.
    """

    classes: tuple[np.ndarray, np.ndarray]
    regime: tuple[np.ndarray, np.ndarray]
    volatility_regime: tuple[np.ndarray, np.ndarray]
    mean_return: tuple[np.ndarray, float]
    log_volatility: tuple[np.ndarray, float]
    trend: tuple[np.ndarray, float]
    penalty: float

    def weights(self) -> list[np.ndarray]:
        """Kernel (F', COLUMNS) and bias (COLUMNS,) of the layer that says all of them (`models.columns`)."""
        groups = [self.classes, self.regime, self.volatility_regime]
        single = [self.mean_return, self.log_volatility, self.trend]
        kernel = np.concatenate([g[0] for g in groups] + [s[0][None] for s in single]).T
        return [kernel, np.concatenate([g[1] for g in groups] + [[s[1]] for s in single])]


def logistic(
    x: np.ndarray, label: np.ndarray, weight: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression as (3, F') and (3,); a class never seen gets a very low intercept."""
    return _split(Design(np.asarray(x, dtype=np.float32), weight).logistic(label, penalty))


def _split(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return coefficients[:-1].T, coefficients[-1]


def fit(
    x: np.ndarray,
    arrays: dict[str, np.ndarray],
    validation: tuple[np.ndarray, dict[str, np.ndarray]],
    *,
    penalties: tuple[float, ...] = (10000.0, 300.0, 10.0),
) -> LinearFit:
    """Fit all coefficients; the penalty is chosen by the validation rows' log loss.

    Args:
        x: (n, F') float32 standardised, clipped last bars of the training rows.
        arrays: the training rows' targets (`label`, `weight`, `forward_log_return`, ...).
        validation: the same two of the validation rows.
        penalties: tried in this order, each from where the one before ended.
    """
    weight = arrays["weight"].astype(np.float64)
    x_validation, validation_arrays = validation
    design = Design(x, weight)

    def log_loss(fitted: np.ndarray) -> float:
        z = x_validation @ fitted[:-1].astype(np.float32) + fitted[-1]
        z = z - z.max(axis=1, keepdims=True)
        p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return float(-p[np.arange(len(z)), validation_arrays["label"]].mean())

    tried: list[tuple[float, np.ndarray]] = []
    for penalty in penalties:
        start = tried[-1][1] if tried else None
        tried.append((penalty, design.logistic(arrays["label"], penalty, start=start)))
    penalty, classes = min(tried, key=lambda found: log_loss(found[1]))
    scale = np.maximum(arrays["volatility"].astype(np.float64), 1e-8)
    returns = arrays["forward_log_return"].astype(np.float64)
    log_volatility = design.ridge(np.log(scale), 1.0)
    # Known volatility is turned into the deviation that outcomes really had.
    predicted = np.exp(x @ log_volatility[0].astype(np.float32) + log_volatility[1])
    ratio = float(np.sqrt(np.average((returns / predicted) ** 2, weights=weight)))
    trend = arrays["trend_strength"].astype(np.float64)
    known = trend >= 0
    of_trend = design if known.all() else Design(x, np.where(known, weight, 0.0))
    return LinearFit(
        _split(classes),
        _split(design.logistic(arrays["regime"], 100.0)),
        _split(design.logistic(arrays["volatility_regime"], 100.0)),
        design.ridge(returns, 10 * penalty),
        (log_volatility[0], log_volatility[1] + float(np.log(ratio))),
        of_trend.ridge(trend, 1.0),
        penalty,
    )


class LinearNetwork(keras.Model):
    """Holds a LinearFit; `answer` gives the SavedModel contract's outputs."""

    def __init__(self, architecture: Architecture, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.architecture, self.seed = architecture, seed
        self.normalise = Normalise(architecture.selected, name="normalise")
        self.outputs_of = keras.layers.Dense(COLUMNS, name="coefficients", kernel_initializer="zeros")
        self.statistics = Statistics(name="statistics")

    def build_once(self) -> LinearNetwork:
        """Create every variable, by one call on zeros."""
        a = self.architecture
        self(ops.zeros((1, a.lookback_bars, a.num_features)), ops.zeros((1,), dtype="int32"))
        return self

    def load_fit(self, fit: LinearFit) -> None:
        """Take over fitted coefficients."""
        self.outputs_of.set_weights(fit.weights())

    def call(self, window: Any, symbol_id: Any, training: bool = False) -> dict[str, Any]:
        """Raw heads, as Network.call gives them."""
        x = self.normalise(window[:, -1:])[:, 0]
        z = self.outputs_of(x)
        self.statistics(z)
        base = by_name(z)
        return {
            **base,
            "expected_return": ops.tanh(base["expected_return"]),
            "expected_volatility": ops.exp(base["log_volatility"]),
            "trend_strength": ops.clip(base["trend"], 0.0, 1.0),
            "embedding": x,
        }

    def answer(self, window: Any, symbol_id: Any) -> dict[str, Any]:
        """Contract outputs. One set of coefficients has no spread, hence `uncertainty` is 0."""
        raw = self(window, symbol_id)
        p = ops.softmax(raw["logits"] / self.statistics.temperature)
        top = ops.max(p, axis=-1)
        bars = self.architecture.lookback_bars
        last = ops.one_hot(ops.zeros_like(symbol_id) + (bars - 1), bars)
        return {
            "probabilities": p,
            "confidence": self.statistics.calibrated(top, ops.zeros_like(top)),
            "uncertainty": ops.zeros_like(top),
            "entropy": entropy(p),
            "expected_return": raw["expected_return"],
            "expected_volatility": raw["expected_volatility"],
            "position_size": ops.abs(p[:, 2] - p[:, 0]),
            "regime": ops.softmax(raw["regime_logits"]),
            "volatility_regime": ops.softmax(raw["volatility_regime_logits"]),
            "trend_strength": raw["trend_strength"],
            "attention": last,
            "embedding": raw["embedding"],
            "confidence_logit": ops.zeros_like(top),
        }

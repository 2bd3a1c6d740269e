"""The linear baseline: fitted in closed form or by few passes, answering as a model of the same outputs and signatures.

The last bar's standardised features of each window are what it reads. Its coefficients live in a Keras
model, so that it is exported and served like the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from barcast.models.columns import COLUMNS, by_name
from barcast.models.layers import Normalise
from barcast.models.network import Statistics, entropy
from barcast.models.presets import Architecture
from barcast.models.regression import Design

_Fit = TypeVar("_Fit")
# Penalties in half decades, from strong to weak: they suit standardised features, and rows by the thousand as by the
# million.
PENALTIES = (30_000.0, 10_000.0, 3_000.0, 1_000.0, 300.0, 100.0, 30.0, 10.0)
# Shares of the expected return that training rows promise, from cautious to all of it.
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
# Where the price goes is harder to know than how far: what tells BUY from SELL is drawn to zero so many times harder.
SIDE_PENALTY = 10.0
# Of the outcomes, in units of the volatility known before, the share that is taken as it is; the rest is clipped.
TYPICAL = 0.98


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
    """Multinomial logistic regression as (3, F') and (3,); a class never seen gets a very low intercept.

    What tells class 2 from class 0 is penalised `SIDE_PENALTY` times as much.
    """
    design = Design(np.asarray(x, dtype=np.float32), weight)
    return _split(design.logistic(label, penalty, side_penalty=SIDE_PENALTY * penalty))


def _split(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return coefficients[:-1].T, coefficients[-1]


def fit(
    x: np.ndarray,
    arrays: dict[str, np.ndarray],
    validation: tuple[np.ndarray, dict[str, np.ndarray]],
    *,
    penalties: tuple[float, ...] = PENALTIES,
) -> LinearFit:
    """Fit all coefficients; the validation rows choose how strongly they are drawn to zero (docs/adr/0019).

    Args:
        x: (n, F') float32 standardised, clipped last bars of the training rows.
        arrays: the training rows' targets (`label`, `weight`, `forward_log_return`, ...).
        validation: the same two of the validation rows.
        penalties: of the classes, each tried from where the one before ended.
    """
    weight = arrays["weight"].astype(np.float64)
    x_validation, validation_arrays = validation
    design = Design(x, weight)

    def log_loss(fitted: np.ndarray) -> float:
        z = x_validation @ fitted[:-1].astype(np.float32) + fitted[-1]
        z = z - z.max(axis=1, keepdims=True)
        p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return float(-p[np.arange(len(z)), validation_arrays["label"]].mean())

    def of_classes(penalty: float, start: np.ndarray | None) -> np.ndarray:
        side = SIDE_PENALTY * penalty
        return design.logistic(arrays["label"], penalty, side_penalty=side, start=start)

    penalty, classes = _until_worse(penalties, of_classes, log_loss)
    scale = np.maximum(arrays["volatility"].astype(np.float64), 1e-8)
    log_volatility = design.ridge(np.log(scale), 1.0)
    # Known volatility is turned into the deviation that outcomes really had.
    predicted = np.exp(x @ log_volatility[0].astype(np.float32) + log_volatility[1])
    returns = arrays["forward_log_return"].astype(np.float64)
    ratio = float(np.sqrt(np.average((returns / predicted) ** 2, weights=weight)))
    trend = arrays["trend_strength"].astype(np.float64)
    known = trend >= 0
    of_trend = design if known.all() else Design(x, np.where(known, weight, 0.0))
    return LinearFit(
        _split(classes),
        _split(design.logistic(arrays["regime"], 100.0)),
        _split(design.logistic(arrays["volatility_regime"], 100.0)),
        mean_return(classes, x, arrays, x_validation, validation_arrays),
        (log_volatility[0], log_volatility[1] + float(np.log(ratio))),
        of_trend.ridge(trend, 1.0),
        penalty,
    )


def mean_return(
    classes: np.ndarray,
    x: np.ndarray,
    arrays: dict[str, np.ndarray],
    x_validation: np.ndarray,
    validation_arrays: dict[str, np.ndarray],
) -> tuple[np.ndarray, float]:
    """Coefficients (F',) and intercept of the expected log return: how BUY lies above SELL, times a scale.

    So it has the sign of the likelier side. The scale is that of least squares on training rows, cut to the share that
    suits validation rows. Squares are weighted by the inverse variance known before, and outcomes are clipped where
    only 2% lie beyond: else the few wildest bars decide.

    Args:
        classes: (F' + 1, 3) coefficients of the classes, as `Design.logistic` gives them.
    """
    volatility = arrays["volatility"].astype(np.float64)
    calm = max(float(np.median(volatility)) / 3, 1e-8)
    reach = float(np.quantile(np.abs(arrays["forward_log_return"]) / np.maximum(volatility, calm), TYPICAL))
    side = classes[:, 2] - classes[:, 0]

    def read(rows: np.ndarray, of: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far BUY lies above SELL, the clipped outcome, and how sure it is."""
        scale = np.maximum(of["volatility"].astype(np.float64), calm)
        lead = rows @ side[:-1].astype(np.float32) + side[-1]
        return lead, np.clip(of["forward_log_return"], -reach * scale, reach * scale), (calm / scale) ** 2

    lead, outcome, sure = read(x, arrays)
    sure *= arrays["weight"]
    slope = max(0.0, float((sure * lead * outcome).sum() / max((sure * lead * lead).sum(), 1e-12)))
    held_lead, held_outcome, held_sure = read(x_validation, validation_arrays)

    def loss(share: float) -> float:
        return float((held_sure * (held_outcome - share * slope * held_lead) ** 2).sum())

    share, _ = _until_worse(SHARES, lambda share, _: share, loss)
    return share * slope * side[:-1], share * slope * float(side[-1])


def _until_worse(
    choices: tuple[float, ...],
    fit_with: Callable[[float, _Fit | None], _Fit],
    loss: Callable[[_Fit], float],
) -> tuple[float, _Fit]:
    """The choice before the first one that did no better, and its fit; each fit gets the one before."""
    best: tuple[float, _Fit] | None = None
    lowest = np.inf
    for choice in choices:
        found = fit_with(choice, best[1] if best else None)
        reached = loss(found)
        if best is not None and not reached < lowest:
            break
        best, lowest = (choice, found), reached
    assert best is not None
    return best


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

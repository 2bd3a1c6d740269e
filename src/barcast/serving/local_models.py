"""The last links of the fallback chain, computed in this process: a linear model's numbers, and two rules.

Both give the same outputs as a served model, so that everything after them is the same code.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from barcast.models.calibration import Calibration
from barcast.serving.market import Context, History

_CLIP = 5.0
_LINEAR = ("mean", "scale", "linear_coef", "linear_intercept")
# A rule may lean, never insist: its side confidence stays under every sensible threshold, so it cannot
# cause a trade.
_LEAN, _HOLD = 0.27, 0.5


def has_linear(reference: Mapping[str, NDArray[np.float64]]) -> bool:
    """Whether `reference.npz` carries linear parameters."""
    return all(name in reference for name in _LINEAR)


def linear(
    windows: NDArray[np.float32],
    reference: Mapping[str, NDArray[np.float64]],
    expected_volatility: float,
    calibration: Calibration,
) -> dict[str, NDArray[np.float64]]:
    """Softmax regression on the newest row of each window (B, T, F), calibrated as the served baseline is.

    Args:
        reference: arrays `mean, scale, linear_coef (3, F), linear_intercept (3,)`, and optionally `return_coef (F,)`,
            `return_intercept`, `volatility_coef (F,)`, `volatility_intercept`.
        expected_volatility: taken over into the answer where the parameters hold no forecast of it.
        calibration: of the baseline's probabilities and confidence.
    """
    scale = np.where(reference["scale"] > 0, reference["scale"], 1.0)
    z = np.clip((windows[:, -1].astype(np.float64) - reference["mean"]) / scale, -_CLIP, _CLIP)
    logits = (z @ reference["linear_coef"].T + reference["linear_intercept"]) / calibration.temperature
    logits -= logits.max(axis=1, keepdims=True)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    expected = np.zeros(len(z))
    if "return_coef" in reference:
        expected = np.tanh(z @ reference["return_coef"] + reference.get("return_intercept", 0.0))
    volatility = np.full(len(z), expected_volatility)
    if "volatility_coef" in reference:
        volatility = np.exp(z @ reference["volatility_coef"] + reference["volatility_intercept"])
    top = np.clip(p.max(axis=1), 1e-6, 1 - 1e-6)
    curve = calibration.confidence_slope * np.log(top / (1 - top)) + calibration.confidence_bias
    return {**_outputs(p, expected, volatility), "confidence": 1 / (1 + np.exp(-curve))}


def rules(
    history: History, context: Context | None, horizon_bars: int
) -> dict[str, NDArray[np.float64]] | None:
    """A lean with the trend: the newest close against its means of 20 and 60 bars; None with fewer than 61
    bars.

    BUY leans when close > mean(20) > mean(60), SELL when both are the other way round, else neither. The
    lean is fixed (0.27 against 0.23 beside HOLD 0.50) and below every acting threshold; the expected return
    is 0: a rule knows none.
    """
    if history.closes.size < 61:
        return None
    close = history.closes[-1]
    fast, slow = history.closes[-20:].mean(), history.closes[-60:].mean()
    lean = 1 if close > fast > slow else -1 if close < fast < slow else 0
    against = 1.0 - _HOLD - _LEAN
    p = {
        1: (against, _HOLD, _LEAN),
        -1: (_LEAN, _HOLD, against),
        0: ((1 - _HOLD) / 2, _HOLD, (1 - _HOLD) / 2),
    }[lean]
    bar = context.bar_volatility if context else float(np.std(history.log_returns()[-60:]))
    return _outputs(np.array([p]), np.zeros(1), bar * float(np.sqrt(horizon_bars)))


def _outputs(
    p: NDArray[np.float64], expected: NDArray[np.float64], volatility: NDArray[np.float64] | float
) -> dict[str, NDArray[np.float64]]:
    entropy = -np.sum(p * np.log(np.maximum(p, 1e-12)), axis=1) / np.log(3)
    return {
        "probabilities": p,
        "confidence": p.max(axis=1),
        "uncertainty": np.zeros(len(p)),
        "entropy": entropy,
        "expected_return": expected,
        "expected_volatility": np.broadcast_to(volatility, len(p)),
        "position_size": np.zeros(len(p)),
    }

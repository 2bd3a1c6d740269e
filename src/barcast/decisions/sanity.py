"""Is the input like the training data, and is the output like an answer? If not, abstain.

The distance of a window is the root mean square of its standardised values, each clipped so that one wild
feature cannot hide in 9,600 numbers nor one broken one decide alone; the newest row counts as much as the
rest of the window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.types import RuleRefusal, Signal

_CLIP = 20.0
_MOST = 100.0  # of a log return and its volatility: no price grows by e^100, and exp and squares stay finite


def window_distance(
    windows: NDArray[np.floating], mean: NDArray[np.floating], scale: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(B,) distance of each window (B, T, F) from the training rows' mean (F,) in units of their scale (F,).

    A feature without spread in training (scale 0) counts only if it now differs from its constant.
    """
    w = np.asarray(windows, dtype=np.float64)
    spread = np.where(np.asarray(scale) > 0, scale, 1e-6)
    z = np.clip((w - mean) / spread, -_CLIP, _CLIP)
    whole = np.sqrt(np.mean(z**2, axis=(1, 2)))
    newest = np.sqrt(np.mean(z[:, -1] ** 2, axis=1))
    return np.asarray((whole + newest) / 2)


def relative_distance(
    distance: float, training_distances: NDArray[np.floating], config: DecisionsConfig
) -> float | None:
    """`distance` over the abstention limit (quantile of the training distances x factor); None without
    any."""
    if training_distances.size == 0:
        return None
    limit = float(np.quantile(training_distances, config.outlier_quantile)) * config.outlier_factor
    return distance / limit if limit > 0 else None


def output_fault(
    probabilities: NDArray[np.floating], expected_return: float, expected_volatility: float
) -> str:
    """What makes a model's raw answer unusable; empty when nothing does."""
    if probabilities.shape != (3,) or not np.isfinite(probabilities).all():
        return "probabilities are not three finite numbers"
    if (probabilities < -1e-4).any() or abs(float(probabilities.sum()) - 1.0) > 1e-2:
        return f"probabilities sum to {float(probabilities.sum()):.4g}"
    if not abs(expected_return) <= _MOST:  # not-a-number too
        return f"expected_return {expected_return:g} is no log return"
    if not 0 <= expected_volatility <= _MOST:
        return f"expected_volatility {expected_volatility:g} is no number from 0 to {_MOST:g}"
    return ""


def check(signal: Signal, side: int, config: DecisionsConfig) -> list[RuleRefusal]:
    """Refusals because the answer or its input is beyond belief."""
    found = []
    size = abs(signal.expected_return)
    if size > config.max_expected_return:
        found.append(
            RuleRefusal(
                "sanity_return",
                f"Expected return {signal.expected_return:+.2%} is larger than the believable "
                f"{config.max_expected_return:.0%}.",
                size,
                config.max_expected_return,
            )
        )
    if signal.expected_volatility > 0 and size > config.max_return_sigmas * signal.expected_volatility:
        found.append(
            RuleRefusal(
                "sanity_sigmas",
                f"Expected return is {size / signal.expected_volatility:.1f} times its own volatility; "
                f"at most {config.max_return_sigmas:g} is believed.",
                size / signal.expected_volatility,
                config.max_return_sigmas,
            )
        )
    if side * signal.expected_return < 0:
        found.append(
            RuleRefusal(
                "sanity_sign",
                f"Probabilities point {'up' if side > 0 else 'down'} but the expected return is "
                f"{signal.expected_return:+.4%}.",
                signal.expected_return,
                0.0,
            )
        )
    if signal.outlier_distance is not None and signal.outlier_distance > 1.0:
        found.append(
            RuleRefusal(
                "outlier",
                f"The window lies {signal.outlier_distance:.2f} times the abstention distance from the "
                f"training data.",
                signal.outlier_distance,
                1.0,
            )
        )
    return found

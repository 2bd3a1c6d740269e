"""The training loss and its parts: classes, net profit, return, volatility, regimes, confidence.

Raw heads (Network.call) and one batch of targets go in, a scalar comes out. Everything is keras.ops; every
part is finite with a finite gradient for any finite input.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from barcast.config.models import LossConfig

# Keeps the smooth absolute value differentiable at 0.
SMOOTH = 1e-6
# Parts that a decision rests on.
DECIDING = ("class", "profit", "return", "volatility")


def weighted_mean(values: Any, weight: Any) -> Any:
    """Mean of (B,) values under (B,) weights; 0 when all weights are 0."""
    return ops.sum(values * weight) / (ops.sum(weight) + 1e-12)


def cross_entropy(logits: Any, label: Any, smoothing: float = 0.0) -> Any:
    """Cross-entropy of (B, K) logits against (B,) classes; a class below 0 costs 0."""
    classes = int(logits.shape[-1])
    target = ops.one_hot(ops.maximum(label, 0), classes) * (1 - smoothing) + smoothing / classes
    each = -ops.sum(target * ops.log_softmax(logits), axis=-1)
    return ops.where(label >= 0, each, ops.zeros_like(each))


def position(outputs: dict[str, Any]) -> Any:
    """The position implied by the outputs, (B,) in [-1, 1]: (p_buy - p_sell) x size."""
    p = ops.softmax(outputs["logits"])
    return (p[:, 2] - p[:, 0]) * outputs["position_size"]


def smooth_abs(x: Any) -> Any:
    """|x| with a finite gradient at 0: sqrt(x² + s²) - s."""
    return ops.sqrt(ops.square(x) + SMOOTH**2) - SMOOTH


def turnover(held: Any, run_start: Any) -> Any:
    """Sides traded by each decision, (B,).

    Rows of a run follow one another in time: |p_t - p_{t-1}|, from 0 at the run's start and back to 0 at its
    end. With every row its own run, each opens and closes its position: 2 |p|.
    """
    start = ops.cast(run_start, held.dtype)
    before = ops.concatenate([ops.zeros_like(held[:1]), held[:-1]]) * (1 - start)
    ends = ops.concatenate([start[1:], ops.ones_like(start[:1])])
    return smooth_abs(held - before) + smooth_abs(held) * ends


def net_profit(held: Any, log_return: Any, run_start: Any, cost_bps: float) -> Any:
    """Simple return of each held position after costs, (B,): p (e^r - 1) - cost x turnover."""
    return held * ops.expm1(log_return) - turnover(held, run_start) * (cost_bps * 1e-4)


def huber(error: Any) -> Any:
    """Huber's loss with limit 1."""
    size = ops.abs(error)
    return ops.where(size <= 1, 0.5 * ops.square(error), size - 0.5)


def gaussian_nll(log_return: Any, mean: Any, deviation: Any) -> Any:
    """Negative log likelihood of a normal, without its constant; the standardised error is cut at 10."""
    deviation = ops.maximum(deviation, 1e-8)
    z = ops.clip((log_return - mean) / deviation, -10, 10)
    return ops.log(deviation) + 0.5 * ops.square(z)


def binary_cross_entropy(logit: Any, target: Any) -> Any:
    """Cross-entropy of (B,) logits against targets in [0, 1]."""
    return ops.softplus(logit) - logit * target


def parts(outputs: dict[str, Any], batch: dict[str, Any], config: LossConfig) -> dict[str, Any]:
    """Each part of the loss, a scalar, not yet multiplied by its configured weight.

    Args:
        outputs: raw heads of Network.call.
        batch: (B,) arrays `label` (0, 1, 2), `weight`, `forward_log_return`, `volatility`, `regime` and
            `volatility_regime` (-1 unknown), `trend_strength` (negative unknown), `run_start`.
    """
    weight, scale = batch["weight"], ops.maximum(batch["volatility"], 1e-8)
    log_return, logits = batch["forward_log_return"], outputs["logits"]
    profit = net_profit(position(outputs), log_return, batch["run_start"], config.cost_bps)
    answered = ops.cast(ops.argmax(ops.stop_gradient(logits), axis=-1), "int32")
    correct = ops.cast(ops.equal(answered, ops.cast(batch["label"], "int32")), "float32")
    trend_known = ops.cast(batch["trend_strength"] >= 0, "float32")
    centre = ops.stop_gradient(outputs["expected_return"])
    return {
        "class": weighted_mean(cross_entropy(logits, batch["label"], config.label_smoothing), weight),
        # In units of the horizon's volatility, so that quiet and wild symbols count alike.
        "profit": -weighted_mean(profit / scale, weight),
        "return": weighted_mean(huber((outputs["expected_return"] - log_return) / scale), weight),
        "volatility": weighted_mean(
            gaussian_nll(log_return / scale, centre / scale, outputs["expected_volatility"] / scale), weight
        ),
        "regime": weighted_mean(cross_entropy(outputs["regime_logits"], batch["regime"]), weight)
        + weighted_mean(
            cross_entropy(outputs["volatility_regime_logits"], batch["volatility_regime"]), weight
        )
        + weighted_mean(
            ops.square(outputs["trend_strength"] - ops.maximum(batch["trend_strength"], 0.0)) * trend_known,
            weight,
        ),
        "confidence": weighted_mean(binary_cross_entropy(outputs["confidence_logit"], correct), weight),
    }


def combine(found: dict[str, Any], config: LossConfig) -> Any:
    """The weighted sum of the parts."""
    return sum(getattr(config, f"{name}_weight") * value for name, value in found.items())


def judged(found: dict[str, float], config: LossConfig) -> float:
    """What decides which epoch's weights are kept: the loss without the heads that no decision rests on.

    Regimes are told by rules, and confidence is calibrated afterwards; the noise of their losses is larger than what
    there is to know of an outcome.
    """
    if not any(getattr(config, f"{name}_weight") for name in DECIDING):
        return found["loss"]  # someone trains the other heads alone
    return float(combine({name: found[name] for name in DECIDING}, config))


def l2(kernels: list[Any]) -> Any:
    """Sum of squares of the given variables."""
    return sum((ops.sum(ops.square(kernel)) for kernel in kernels), start=ops.zeros(()))

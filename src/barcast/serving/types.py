"""What an answer holds: every field with its unit and the time it speaks of.

Times are aware UTC. `feature_timestamp` is the close of the newest bar the answer knows; forecasts speak of
the `horizon_bars` bars after it, entered at the next bar's open. Prices are as traded (not adjusted).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Action = Literal["SELL", "HOLD", "BUY"]
ACTIONS: tuple[Action, Action, Action] = ("SELL", "HOLD", "BUY")
REGIMES = ("bull", "bear", "sideways")
VOLATILITY_REGIMES = ("low", "medium", "high")


LinkName = Literal[
    "own",
    "previous",
    "ensemble",
    "ensemble_previous",
    "universal",
    "universal_previous",
    "linear",
    "linear_local",
    "rules",
]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Probabilities(_Answer):
    """Calibrated probabilities of the three classes; they sum to 1."""

    SELL: float = Field(ge=0, le=1)
    HOLD: float = Field(ge=0, le=1)
    BUY: float = Field(ge=0, le=1)


class Confidence(_Answer):
    """How sure the model is."""

    overall: float = Field(description="The model's calibrated confidence in its action, 0..1.")
    calibrated: float = Field(description="Largest calibrated class probability, 0..1.")
    side: float = Field(
        description="Calibrated p(side) / (p(side) + p(opposite)), 0.5..1; what the thresholds judge."
    )
    uncertainty: float = Field(
        description="Spread of the answer over dropout masks (standard deviation), 0 or more."
    )
    entropy: float = Field(description="Entropy of the class probabilities as a share of its maximum, 0..1.")


class Sizes(_Answer):
    """Suggested position as a share of equity (0..1), step by step; the sign is in `action`."""

    model: float = Field(description="The model's own sizing head.")
    kelly: float = Field(
        description="Fractional, capped Kelly size from probabilities and expected volatility."
    )
    volatility_adjusted: float = Field(description="After scaling to the volatility target.")
    confidence_adjusted: float = Field(description="After the factor of the confidence band.")
    portfolio_adjusted: float = Field(
        description="After the room that positions and correlated symbols leave."
    )
    suggested: float = Field(description="What is advised; 0 when any rule refuses.")


class Refusal(_Answer):
    """One rule that stood against acting."""

    rule: str = Field(description="The rule's name.")
    message: str = Field(description="What came, what the limit is.")
    value: float | None = None
    limit: float | None = None


class Decision(_Answer):
    """Advice after the risk controls. barcast sends no orders."""

    action: Action
    size: float = Field(description="Share of equity, 0..1.")
    confidence_band: Literal["below", "low", "normal", "high"]
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="Limits that reduced the size, in order.")


class FeatureEffect(_Answer):
    """One feature's share in the answered action's probability (integrated gradients, summed over the
    window)."""

    feature: str
    effect: float = Field(
        description="Change of the probability against the training-mean window; sign as it pushed."
    )
    latest: float = Field(description="The feature's value in the newest bar.")


class SimilarWindow(_Answer):
    """A historical window near this one, and what followed it."""

    symbol: str
    event_timestamp: datetime
    distance: float = Field(description="Cosine distance of the embeddings, 0..2.")
    forward_log_return: float = Field(description="Log return over the horizon that followed.")
    label: Action


class Explanation(_Answer):
    """Why, from the model's own numbers."""

    features: tuple[FeatureEffect, ...] = ()
    attention: tuple[float, ...] = Field(
        default=(), description="Weight of each bar of the window, oldest first; sums to 1."
    )
    similar: tuple[SimilarWindow, ...] = ()
    rationale: str
    missing: tuple[str, ...] = Field(default=(), description="Parts that could not be given, and why.")


class Fallback(_Answer):
    """That another than the intended model answered, and why."""

    link: Literal[LinkName, "refused"]
    reasons: tuple[str, ...] = Field(description="Each earlier link and what was wrong with it.")


class Prediction(_Answer):
    """The full answer for one symbol."""

    status: Literal["success", "refused"] = "success"
    reason: str = Field(default="", description="Why the answer is a refusal; empty on success.")
    symbol: str
    action: Action | None = Field(
        default=None, description="The class with the largest probability; None in a refusal."
    )
    predicted_direction: Literal["up", "down", "flat"] | None = Field(
        default=None, description="Sign of expected_return."
    )
    probabilities: Probabilities | None = None
    confidence: float | None = Field(
        default=None, description="Calibrated probability that `action` is right, 0..1."
    )
    confidence_detail: Confidence | None = None
    expected_return: float | None = Field(default=None, description="Expected log return over the horizon.")
    expected_volatility: float | None = Field(
        default=None, description="Expected volatility of that log return."
    )
    horizon_bars: int | None = Field(default=None, description="Bars from entry to exit, at most.")
    horizon_hours: float | None = Field(
        default=None, description="Time expected from entry to exit, in hours of bars."
    )
    risk_level: int | None = Field(
        default=None, ge=1, le=5, description="1 calm .. 5 wild: expected volatility's fifth in its past."
    )
    price: float | None = Field(default=None, description="Close of the newest bar, as traded.")
    predicted_price: float | None = Field(
        default=None, description="price * exp(expected_return), as traded."
    )
    sizes: Sizes | None = None
    regime: Literal["bull", "bear", "sideways"] | None = None
    regime_probabilities: dict[str, float] | None = None
    volatility_regime: Literal["low", "medium", "high"] | None = None
    trend_strength: float | None = Field(default=None, description="0 none .. 1 strong.")
    stress: float | None = Field(
        default=None, description="0 calm .. 1 the worst in the symbol's stored past."
    )
    opportunity: float | None = Field(
        default=None,
        description="What symbols are ranked by, 0 or more: expected gain after costs by volatility, times how sure "
        "the side is.",
    )
    decision: Decision | None = None
    model: str | None = Field(default=None, description="Served name of the model that answered.")
    model_version: int | None = Field(
        default=None, description="Its version (the registry's number); None for rules."
    )
    model_kind: Literal["specific", "universal", "linear", "rules"] | None = None
    variant: Literal["champion", "canary"] | None = Field(
        default=None, description="Which arm of a comparison answered."
    )
    fallback: Fallback | None = Field(default=None, description="None when the intended model answered.")
    feature_timestamp: datetime | None = Field(
        default=None, description="Close of the newest bar the answer knows."
    )
    answered_at: datetime = Field(description="When the answer was made.")
    input_hash: str | None = Field(
        default=None, description="SHA-256 of the window's bytes and shape, its first 16 bytes in hex."
    )
    prediction_id: str | None = Field(default=None, description="Name of this answer in the prediction log.")
    explanation: Explanation | None = None


def probabilities_of(values: Any) -> Probabilities:
    """(3,) SELL, HOLD, BUY as fields, rescaled to sum exactly 1 after float32 rounding."""
    clipped = [min(1.0, max(0.0, float(v))) for v in values]
    total = sum(clipped)
    return Probabilities(SELL=clipped[0] / total, HOLD=clipped[1] / total, BUY=clipped[2] / total)

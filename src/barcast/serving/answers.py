"""From a model's raw outputs to the typed answer: prices, horizon, risk, regime, sizes, advice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from barcast import clock, logs
from barcast.config import Config
from barcast.decisions import sanity
from barcast.decisions.confidence import side_confidence
from barcast.decisions.ranking import opportunity
from barcast.decisions.types import Advice, Market, Signal
from barcast.serving.caches import Window
from barcast.serving.chain import VOTES, RawAnswer
from barcast.serving.live import VersionFiles
from barcast.serving.market import Context, History
from barcast.serving.types import (
    ACTIONS,
    REGIMES,
    VOLATILITY_REGIMES,
    Confidence,
    Decision,
    Fallback,
    Prediction,
    Refusal,
    Sizes,
    probabilities_of,
)

_log = logs.get("serving.answers")


@dataclass(frozen=True)
class Situation:
    """Everything about one symbol that an answer is made from."""

    symbol: str
    raw: RawAnswer
    window: Window | None
    history: History | None
    context: Context | None
    files: VersionFiles | None

    @property
    def feature_timestamp(self) -> datetime:
        """The newest bar the answer knows."""
        if self.window is not None and self.raw.link.name != "rules":
            return self.window.event_timestamp
        assert self.history is not None
        return self.history.event_timestamp


def refused(symbol: str, reason: str) -> Prediction:
    """An answer that gives no numbers, only why."""
    return Prediction(
        status="refused",
        reason=reason,
        symbol=symbol,
        fallback=Fallback(link="refused", reasons=tuple(reason.split("; "))),
        answered_at=clock.now(),
    )


def signal_of(situation: Situation, config: Config) -> Signal:
    """What the decision layer needs to know of an answer."""
    out, link = situation.raw.outputs, situation.raw.link
    p = probabilities_of(out["probabilities"])
    return Signal(
        symbol=situation.symbol,
        event_timestamp=situation.feature_timestamp,
        p_sell=p.SELL,
        p_hold=p.HOLD,
        p_buy=p.BUY,
        expected_return=float(out["expected_return"]),
        expected_volatility=float(out["expected_volatility"]),
        price=situation.history.price if situation.history else 1.0,
        model_size=_scalar(out, "position_size", 0.0),
        uncertainty=_scalar(out, "uncertainty", 0.0),
        outlier_distance=_outlier(situation, config),
        members=_members(situation),
        horizon_bars=config.horizon_bars,
        regime=_label(out, "regime", REGIMES) or "unknown",
        volatility_regime=_label(out, "volatility_regime", VOLATILITY_REGIMES) or "unknown",
        model_version=f"{link.model or link.kind}/{link.version or 0}",
    )


def build(situation: Situation, signal: Signal, advice: Advice, market: Market, config: Config) -> Prediction:
    """The full answer for one symbol."""
    raw, out, history = situation.raw, situation.raw.outputs, situation.history
    p = probabilities_of(out["probabilities"])
    values = (p.SELL, p.HOLD, p.BUY)
    expected = signal.expected_return
    # Under triple barriers the horizon only bounds the time to the exit; the version says how long it took.
    served = situation.files.serving if situation.files else {}
    hours = float(served.get("expected_duration_bars", config.horizon_bars)) * market.interval_seconds / 3600
    overall = _scalar(out, "confidence", max(values))
    return Prediction(
        symbol=situation.symbol,
        action=ACTIONS[int(np.argmax(values))],
        predicted_direction="up" if expected > 0 else "down" if expected < 0 else "flat",
        probabilities=p,
        confidence=overall,
        confidence_detail=Confidence(
            overall=overall,
            calibrated=max(values),
            side=side_confidence(p.SELL, p.BUY),
            uncertainty=signal.uncertainty,
            entropy=_scalar(out, "entropy", -sum(v * math.log(v, 3) for v in values if v > 0)),
        ),
        expected_return=expected,
        expected_volatility=signal.expected_volatility,
        horizon_bars=config.horizon_bars,
        horizon_hours=hours,
        risk_level=situation.context.risk_level(signal.expected_volatility) if situation.context else None,
        price=history.price if history else None,
        predicted_price=history.price * math.exp(expected) if history else None,
        sizes=_sizes(advice),
        regime=_label(out, "regime", REGIMES),  # type: ignore[arg-type]
        regime_probabilities=_named(out, "regime", REGIMES),
        volatility_regime=_label(out, "volatility_regime", VOLATILITY_REGIMES),  # type: ignore[arg-type]
        trend_strength=_scalar(out, "trend_strength", None),
        stress=situation.context.stress if situation.context else None,
        opportunity=opportunity(signal, config.decisions),
        decision=decision_of(advice),
        model=raw.link.model,
        model_version=raw.link.version,
        model_kind=raw.link.kind,
        variant=raw.link.variant if raw.link.model else None,
        fallback=None if raw.intended else Fallback(link=raw.link.name, reasons=raw.reasons),
        feature_timestamp=situation.feature_timestamp,
        answered_at=clock.now(),
        input_hash=situation.window.digest if situation.window else None,
    )


def tell(answer: Prediction) -> None:
    """One line an answer, at level info."""
    decision = answer.decision
    _log.info(
        "answered",
        symbol=answer.symbol,
        model=answer.model,
        version=answer.model_version,
        status=answer.status,
        bar=str(answer.feature_timestamp),
        action=decision.action if decision else None,
        reason=answer.reason,
    )


def decision_of(advice: Advice) -> Decision:
    """The advice as part of an answer."""
    return Decision(
        action=advice.action,
        size=advice.size,
        confidence_band=advice.band,
        refusals=tuple(
            Refusal(rule=r.rule, message=r.message, value=r.value, limit=r.limit) for r in advice.refusals
        ),
        notes=advice.notes,
    )


def _sizes(advice: Advice) -> Sizes:
    s = advice.sizes
    return Sizes(
        model=s.model,
        kelly=s.kelly,
        volatility_adjusted=s.volatility_adjusted,
        confidence_adjusted=s.confidence_adjusted,
        portfolio_adjusted=s.portfolio_adjusted,
        suggested=s.suggested,
    )


def _outlier(situation: Situation, config: Config) -> float | None:
    if situation.window is None or situation.files is None:
        return None
    reference = situation.files.reference
    values = situation.window.values
    if "distance" not in reference or reference.get("mean", np.empty(0)).shape != values.shape[1:]:
        return None
    distance = float(sanity.window_distance(values[None], reference["mean"], reference["scale"])[0])
    return sanity.relative_distance(distance, reference["distance"], config.decisions)


def _members(situation: Situation) -> tuple[tuple[int, float], ...] | None:
    """Votes of an ensemble's members: () when another model answered, None when they were not heard."""
    if situation.files is None or not situation.files.members:
        return ()
    if not all(name in situation.raw.outputs for name in VOTES):
        return None
    p, weights = (np.asarray(situation.raw.outputs[name], dtype=np.float64) for name in VOTES)
    sides = np.sign(p[:, 2] - p[:, 0]).astype(int)
    return tuple((int(s), float(w)) for s, w in zip(sides, weights, strict=True))


def _scalar(out: Any, name: str, default: Any) -> Any:
    return float(out[name]) if name in out else default


def _label(out: Any, name: str, words: tuple[str, ...]) -> str | None:
    return words[int(np.argmax(out[name]))] if name in out else None


def _named(out: Any, name: str, words: tuple[str, ...]) -> dict[str, float] | None:
    return {w: float(v) for w, v in zip(words, out[name], strict=True)} if name in out else None

"""Why a model answered as it did: features, attention, similar windows, and one paragraph made of those
numbers.

window → the model's `explain` signature (integrated gradients) → top features; the outputs' attention and
embedding → bars looked at and nearest stored windows → a rationale that says nothing the numbers don't. A
part that cannot be given is named with the reason, never replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from barcast import intervals
from barcast.config import Config
from barcast.errors import BarcastError, ServingError
from barcast.serving import neighbours
from barcast.serving.answers import Situation
from barcast.serving.client import ModelClient
from barcast.serving.market import micros, moment
from barcast.serving.types import ACTIONS, Explanation, FeatureEffect, Prediction, SimilarWindow

P = TypeVar("P")


def explain(answer: Prediction, situation: Situation, client: ModelClient, config: Config) -> Explanation:
    """The explanation of one answer."""
    missing: list[str] = []
    features = _part(missing, "features", lambda: _features(situation, client, config))
    attention = _part(missing, "attention", lambda: _attention(situation))
    similar = _part(missing, "similar windows", lambda: _similar(situation, config))
    return Explanation(
        features=features,
        attention=attention,
        similar=similar,
        rationale=rationale(answer, features, attention, similar),
        missing=tuple(missing),
    )


def _part(missing: list[str], name: str, make: Callable[[], tuple[P, ...]]) -> tuple[P, ...]:
    """What `make` gives, or nothing and a line in `missing`."""
    try:
        return make()
    except BarcastError as error:
        missing.append(f"{name}: {error.message}")
        return ()


def _features(situation: Situation, client: ModelClient, config: Config) -> tuple[FeatureEffect, ...]:
    link, window, files = situation.raw.link, situation.window, situation.files
    if link.model is None or window is None or files is None:
        raise ServingError(f"{link.name} has no gradients.")
    answer = client.predict(
        link.model,
        {
            "window": window.values[None],
            "symbol_id": np.array([files.symbol_id(situation.symbol)], dtype=np.int32),
        },
        version=link.version,
        signature="explain",
        deadline_seconds=config.serving.explain_deadline_seconds,
    )
    shape = (1, *window.values.shape)
    gradients = next((a for a in answer.outputs.values() if a.shape == shape), None)
    if gradients is None:
        got = {name: array.shape for name, array in answer.outputs.items()}
        raise ServingError(f"The explain signature answered {got}, expected one array of {shape}.")
    if not np.isfinite(gradients).all():
        raise ServingError("The gradients are not finite.")
    effects = np.asarray(gradients[0], dtype=np.float64).sum(axis=0)
    names = files.feature_names or tuple(f"feature {i}" for i in range(effects.size))
    order = np.argsort(-np.abs(effects), kind="stable")[: config.serving.top_features]
    newest = window.values[-1]
    return tuple(
        FeatureEffect(feature=names[i], effect=float(effects[i]), latest=float(newest[i])) for i in order
    )


def _attention(situation: Situation) -> tuple[float, ...]:
    if situation.raw.link.kind == "linear":  # every servable answers the name; its coefficients weigh no bars
        raise ServingError("a linear model has none.")
    weights = situation.raw.outputs.get("attention")
    if weights is None:
        raise ServingError("the model gives none.")
    total = float(np.sum(weights))
    if total <= 0:
        raise ServingError("the weights sum to nothing.")
    return tuple(float(w) / total for w in weights)


def _similar(situation: Situation, config: Config) -> tuple[SimilarWindow, ...]:
    embedding: NDArray[np.floating] | None = situation.raw.outputs.get("embedding")
    if embedding is None or situation.files is None or situation.window is None:
        raise ServingError("the model gives no embedding.")
    index = neighbours.load(situation.files.extra / neighbours.NAME)
    if index is None or len(index) == 0:
        raise ServingError("no embeddings are stored beside this version.")
    horizon_us = config.horizon_bars * intervals.seconds(config.interval) * 1_000_000
    found = index.search(
        embedding,
        config.serving.similar_windows,
        before_us=micros(situation.window.event_timestamp) - horizon_us,
        apart_us=horizon_us,
    )
    return tuple(
        SimilarWindow(
            symbol=n.symbol,
            event_timestamp=moment(n.event_us),
            distance=n.distance,
            forward_log_return=n.forward_log_return,
            label=ACTIONS[n.label],
        )
        for n in found
    )


def rationale(
    answer: Prediction,
    features: tuple[FeatureEffect, ...],
    attention: tuple[float, ...],
    similar: tuple[SimilarWindow, ...],
) -> str:
    """One readable paragraph from the answer's own numbers."""
    p, sure = answer.probabilities, answer.confidence_detail
    if p is None or sure is None or answer.expected_return is None or answer.expected_volatility is None:
        return f"{answer.symbol}: no answer ({answer.reason})."
    who = f"{answer.model_kind} model" + ("" if answer.model_version is None else f" v{answer.model_version}")
    parts = [
        f"{answer.action}: the {who} gives SELL {p.SELL:.0%}, HOLD {p.HOLD:.0%}, BUY {p.BUY:.0%}, and "
        f"expects "
        f"{math.expm1(answer.expected_return):+.2%} with a volatility of "
        f"{answer.expected_volatility:.2%} over "
        f"{answer.horizon_bars} bars."
    ]
    if features:
        pushes = [f for f in features if f.effect > 0][:3]
        holds = [f for f in features if f.effect < 0][:2]
        if pushes:
            parts.append(f"Towards it: {_named(pushes)}.")
        if holds:
            parts.append(f"Against it: {_named(holds)}.")
    if attention:
        newest = sum(attention[-10:])
        peak = len(attention) - 1 - int(np.argmax(attention))
        watched = f"the most watched one lies {peak} bars back" if peak else "the newest is watched most"
        parts.append(f"The newest 10 of {len(attention)} bars hold {newest:.0%} of the attention; {watched}.")
    if similar:
        rises = sum(s.forward_log_return > 0 for s in similar)
        mean = sum(s.forward_log_return for s in similar) / len(similar)
        parts.append(
            f"After the {len(similar)} most similar stored windows the price rose {rises} times; "
            f"the mean log return was {mean:+.2%}."
        )
    if answer.regime is not None:
        words = f"Regime {answer.regime}, volatility {answer.volatility_regime}"
        parts.append(words + (f", stress {answer.stress:.0%}." if answer.stress is not None else "."))
    if answer.decision is not None:
        parts.append(_advice(answer))
    if answer.fallback is not None:
        parts.append(f"Answered by {answer.fallback.link} because {'; '.join(answer.fallback.reasons)}.")
    return " ".join(parts)


def _advice(answer: Prediction) -> str:
    decision, sure = answer.decision, answer.confidence_detail
    assert decision is not None
    assert sure is not None
    if decision.refusals:
        return f"No trade: {' '.join(r.message for r in decision.refusals)}"
    text = f"Advice: {decision.action} with {decision.size:.1%} of equity (side confidence {sure.side:.0%})."
    return text + (f" {'; '.join(decision.notes)}." if decision.notes else "")


def _named(effects: list[FeatureEffect]) -> str:
    return ", ".join(f"{e.feature} ({e.effect:+.3f})" for e in effects)

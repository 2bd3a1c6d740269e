"""One report per live model: its answers and their outcomes, against its training, its evaluation and itself."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from barcast import labels, names
from barcast.operations.monitoring import drift, outcomes
from barcast.operations.monitoring.collect import Collected
from barcast.operations.monitoring.types import ModelReport, Reading
from barcast.registry.audit import spans
from barcast.serving.market import micros

if TYPE_CHECKING:
    from barcast.registry.state import Model

PROBABILITIES = ("p_sell", "p_hold", "p_buy")


def judge(collected: Collected) -> list[ModelReport]:
    """Reports of all live models."""
    return [_one(collected, model) for model in collected.models]


def _one(collected: Collected, model: Model) -> ModelReport:
    assert model.champion is not None
    version = model.versions[model.champion]
    since: datetime = spans(model)[-1]["since"]  # of this version, whatever else changed since
    answers = collected.answers
    if not answers.is_empty():
        answers = answers.filter(
            pl.col("model") == model.name,
            pl.col("version") == model.champion,
            pl.col("arm") == "champion",
            pl.col("answered_us") >= micros(since),
        )
    known, prior = _with_labels(collected, model, answers)
    readings = [
        *_by_outcomes(collected, model, known, prior),
        *_by_answers(collected, answers),
        *_by_features(collected, model),
    ]
    return ModelReport(
        model=model.name,
        version=model.champion,
        word=names.word_of(model.name),
        kind=version.kind,
        since=since,
        answers=answers.height,
        outcomes=known.height,
        readings=tuple(readings),
    )


def _with_labels(collected: Collected, model: Model, answers: pl.DataFrame) -> tuple[pl.DataFrame, Any]:
    """Answers with their class, and the class shares (3,) that the training saw."""
    limits, until = collected.thresholds(model), collected.trained_until(model)
    if answers.is_empty() or limits is None or collected.outcomes.is_empty():
        return pl.DataFrame(), None
    labelled = labels.classify(collected.outcomes, limits)
    past = labelled if until is None else labelled.filter(pl.col("label_end_timestamp") <= until)
    symbol = names.symbol_of(model.name)
    if symbol is not None:
        past = past.filter(pl.col("symbol") == symbol)
    counts = (
        np.bincount(past["label"].to_numpy(), minlength=3) + 1.0
    )  # one of each, so that none is impossible
    keyed = labelled.select("symbol", "label", feature_us=pl.col("event_timestamp").dt.epoch("us"))
    return answers.join(keyed, on=["symbol", "feature_us"]).sort("feature_us"), counts / counts.sum()


def _by_outcomes(collected: Collected, model: Model, known: pl.DataFrame, prior: Any) -> list[Reading]:
    settings = collected.settings
    parts = outcomes.blocks(known, collected.config.horizon_bars + 1) if known.height else []
    if len(parts) < settings.min_blocks:
        text = f"{known.height} known outcomes in {len(parts)} blocks; {settings.min_blocks} are needed"
        return [Reading(name="harm", value=None, text=text)]
    p = [part.select(PROBABILITIES).to_numpy() for part in parts]
    y = [part["label"].to_numpy().astype(np.int64) for part in parts]
    found = outcomes.judge(outcomes.Blocks.of(p, y, prior), settings)
    harm, tilt = found.harm, found.tilt
    word = "too sure" if found.too_sure else "not sure enough"
    whole, label = np.concatenate(p), np.concatenate(y)
    return [
        _shown(model, "accuracy", float(np.mean(whole.argmax(axis=1) == label))),
        _shown(model, "log_loss", float(found.losses.mean())),
        _shown(model, "ece", outcomes.calibration_error(whole, label)),
        Reading(
            name="harm",
            value=harm.level,
            bound=harm.bound,
            alert="ModelHarmful" if found.harmful else "",
            text=f"constant class shares gain {harm.gain:+.3f} nats an answer over {harm.blocks} blocks; "
            f"harmful from {settings.harmful_loss:g} on, once chance is ruled out",
        ),
        Reading(
            name="miscalibration",
            value=tilt.level,
            bound=tilt.bound,
            alert="CalibrationDrift" if found.tilted else "",
            text=f"{word}: another temperature gains {tilt.gain:+.3f} nats an answer over {tilt.blocks} blocks"
            if tilt.level > 0
            else "no other temperature would do better",
        ),
        Reading(
            name="loss_rise",
            value=found.rise,
            bound=0.0,
            alert="ConceptDrift" if found.rise > 0 else "",
            text=f"ADWIN: the loss rose by {found.rise:.3f} nats and stayed"
            if found.rise > 0
            else "ADWIN sees no lasting rise",
        ),
    ]


def _shown(model: Model, name: str, value: float) -> Reading:
    """A figure beside what the evaluation gave."""
    assert model.champion is not None
    metrics = model.versions[model.champion].registered.details.get("metrics") or {}
    known = metrics.get(f"ml_{name}")
    told = f"evaluated {known:.3f}" if isinstance(known, float) else "not in its evaluation"
    return Reading(name=name, value=value, text=told)


def _by_answers(collected: Collected, answers: pl.DataFrame) -> list[Reading]:
    settings = collected.settings
    need = settings.min_answers
    if answers.height < 2 * need:
        text = f"{answers.height} answers; {2 * need} are needed"
        return [Reading(name="prediction_psi", value=None, text=text)]
    ordered = answers.sort("feature_us")
    recent = ordered.tail(max(need, ordered.height // 4))
    earlier = ordered.head(ordered.height - recent.height)
    psi, ks = drift.answer_drift(earlier, recent)
    typical = drift.typical_drift(earlier)
    bound = typical + collected.config.quality.max_drift_psi
    return [
        Reading(
            name="prediction_psi",
            value=psi,
            bound=bound,
            alert="PredictionDrift" if psi > bound else "",
            text=f"newest {recent.height} answers against the {earlier.height} before, whose own stretches reached "
            f"{typical:.2f}; KS {ks:.2f}",
        )
    ]


def _by_features(collected: Collected, model: Model) -> list[Reading]:
    until, symbol = collected.trained_until(model), names.symbol_of(model.name)
    if until is None or collected.bars.is_empty():
        return []
    if collected.as_of <= until:
        return [Reading(name="drifted_features", value=None, text="no bars since its training")]
    settings, limit = collected.settings, collected.config.quality.max_drift_psi
    before, now = collected.reference(until), collected.recent
    if symbol is not None and before.height:
        before, now = (frame.filter(pl.col("symbol") == symbol) for frame in (before, now))
    found = drift.feature_drift(before, now, settings.window_bars, limit) if before.height else None
    if found is None:
        return [
            Reading(name="drifted_features", value=None, text="too few rows to compare with its training")
        ]
    bound = min(1.0, found.typical + settings.drift_margin)
    top = ", ".join(
        f"{s.name} (PSI {s.psi:.2f}, KS {s.ks:.2f}, W {s.wasserstein:.2f})" for s in found.top[:3]
    )
    return [
        Reading(
            name="drifted_features",
            value=found.share,
            bound=bound,
            alert="FeatureDrift" if found.share > bound else "",
            text=f"share above PSI {limit:g}; the training's own windows reached {found.typical:.2f}; most: {top}",
        ),
        Reading(name="feature_psi", value=found.psi, text="mean over all features"),
    ]

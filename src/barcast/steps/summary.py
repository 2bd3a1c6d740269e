"""What registration and the gate need beside the per-row results: each candidate's numbers, reliability and making.

Results, bars and exported models in; `summary.json` out, read by `register`, `analyze` and `gate`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import names
from barcast.registry import manifest
from barcast.steps import candidates
from barcast.steps.candidates import Candidate

if TYPE_CHECKING:
    import numpy as np

    from barcast.config import Config
    from barcast.datasets import Dataset
    from barcast.evaluation.evaluate import Evaluation
    from barcast.splits import Fold
    from barcast.training.answering import Answering

_SHOWN = {
    names.UNIVERSAL: names.UNIVERSAL,
    names.LINEAR: "linear",
    names.ENSEMBLE: "ensemble",
}  # words that `Evaluation` measures whole
_MIB = 1 << 20


def make(
    evaluation: Evaluation,
    folder: Path,
    found: Sequence[Candidate],
    operational: Mapping[str, Mapping[str, float]],
    dataset: Dataset,
    fold: Fold,
    bars: pl.DataFrame,
    config: Config,
) -> dict[str, Any]:
    """The summary, ready for JSON.

    Args:
        folder: the per-row results.
        operational: word -> what `operational` measured.
        bars: adjusted bars.
    """
    ends = dataset.rows["label_end_timestamp"]
    seen = max(ends[getattr(fold, name)].max() for name in ("train", "validation", "calibration"))  # type: ignore[type-var]
    models = {}
    for candidate in found:
        symbol = candidate.symbol
        numbers, reliability = _measured(evaluation, folder, candidate, bars, seen, config)  # type: ignore[arg-type]
        models[candidate.word] = {
            "new": candidate.new,
            "digest": manifest.digest(manifest.hash_files(candidate.folder)),
            "metrics": numbers
            | {f"operational_{k}": float(v) for k, v in operational[candidate.word].items() if v == v},
            "reliability": reliability,
            "baselines": {
                name: evaluation.flat_metrics(name)
                for name in evaluation.models
                if symbol is None and name not in (_SHOWN.get(candidate.word), "own models")
            },
            **described(candidate.folder),
        }
    return {
        "seen_until": seen.astimezone(UTC).isoformat(),  # type: ignore[union-attr]
        "first": evaluation.window[0].isoformat(),
        "last": evaluation.window[1].isoformat(),
        "models": models,
        "limits": list(evaluation.notes),
    }


def _measured(
    evaluation: Evaluation,
    folder: Path,
    candidate: Candidate,
    bars: pl.DataFrame,
    seen: datetime,
    config: Config,
) -> tuple[dict[str, float], dict[str, object]]:
    """Flat metrics and reliability of one candidate."""
    from barcast.bars.calendars import bars_per_year, calendars_of
    from barcast.evaluation import bootstrap, evaluate, frames, metrics_ml, reliability

    of = bars if candidate.symbol is None else bars.filter(pl.col("symbol") == candidate.symbol)
    quality = 1.0 - missing_share(of, config)  # a breach of a critical expectation has stopped the run before
    shown = _SHOWN.get(candidate.word)
    if shown is not None:
        index = reliability.index(evaluation, shown, data_quality=quality, trained_until=seen)
        return evaluation.flat_metrics(shown), index.to_dict()
    rows = frames.check(pl.read_parquet(candidates.results_file(folder, candidate.word)), name=candidate.word)
    numbers = evaluate.of_model(
        rows,
        of,
        config.evaluation,
        costs=config.costs,
        horizon_bars=config.horizon_bars,
        bars_per_year=bars_per_year(calendars_of(config), of["symbol"].unique(), config.interval),
    )
    times = rows["event_timestamp"]
    interval = bootstrap.interval(
        metrics_ml.log_loss_rows(rows["label"].to_numpy(), frames.probabilities(rows)),
        times.dt.epoch("us").to_numpy(),
        block_days=evaluation.block_days,
        seed=config.evaluation.seed,
    )
    index = reliability.measured(
        numbers["ml"],
        interval,
        accuracy_spread=numbers["learning"]["accuracy_spread"],
        window=(frames.oldest(times), frames.newest(times)),
        block_days=evaluation.block_days,
        data_quality=quality,
        trained_until=seen,
    )
    flat = {f"{kind}_{k}": float(v) for kind, part in numbers.items() for k, v in part.items()}
    return {k: v for k, v in flat.items() if abs(v) < float("inf")}, index.to_dict()


def missing_share(bars: pl.DataFrame, config: Config) -> float:
    """Share of the bars that the calendars promise between each symbol's first and last one and that are not there."""
    from barcast.bars import calendars_of
    from barcast.evaluation.frames import newest, oldest

    calendars = calendars_of(config)
    promised = there = 0
    for part in bars.partition_by("symbol"):
        first, last = oldest(part["event_timestamp"]), newest(part["event_timestamp"])
        promised += 1 + len(calendars(part["symbol"][0]).close_times(first, last, config.interval))
        there += part.height
    return max(0.0, 1.0 - there / promised) if promised else 0.0


def operational(model: Answering, folder: Path, dataset: Dataset, rows: np.ndarray) -> dict[str, float]:
    """What the model costs: time to train and to answer, size, memory, how quickly it converged."""
    from barcast.evaluation import metrics_operational as measure

    facts = model.info.facts
    epochs = facts.get("epochs", [])
    latency = measure.latency_ms(lambda: model.answers(dataset, rows[-1:]), repeats=10, warm_up=2)
    out = {
        "size_mib": measure.folder_bytes(folder) / _MIB,
        "latency_ms_p50": latency["p50"],
        "latency_ms_p95": latency["p95"],
        "scoring_peak_memory_mib": measure.peak_memory_bytes() / _MIB,
    }
    if epochs and "val_judged" in epochs[0]:
        curve = [float(e["val_judged"]) for e in epochs]
        out |= measure.convergence(curve, seconds=facts.get("training_seconds"))
    elif facts.get("training_seconds") is not None:
        out["training_seconds"] = float(facts["training_seconds"])
    if facts.get("parameters") is not None:
        out["parameters"] = float(facts["parameters"])
    return out


def learning_curves(model: Answering) -> dict[str, list[float]]:
    """Loss per epoch, as the report draws it; empty for a model that was not trained by epochs."""
    epochs = model.info.facts.get("epochs", [])
    kinds = {"train_loss": "judged", "validation_loss": "val_judged"}
    return {
        shown: [float(e[key]) for e in epochs] for shown, key in kinds.items() if epochs and key in epochs[0]
    }


def described(folder: Path) -> dict[str, Any]:
    """Architecture, training and the features that are read of an exported model, in plain values for its card."""
    model = json.loads((folder / "assets.extra" / "model.json").read_text())
    info, facts = model["info"], model["info"]["facts"]
    architecture = {
        k: (len(v) if k == "selected" else ", ".join(map(str, v)) if isinstance(v, list) else v)
        for k, v in model["architecture"].items()
        if v not in ([], None)
    }
    read_by_it: list[str] = []
    if "selected" in architecture:
        architecture["selected_features"] = architecture.pop("selected")
        read_by_it = [info["feature_names"][i] for i in model["architecture"]["selected"]]
    kept = {k: v for k, v in facts.items() if isinstance(v, (int, float, str))}
    bounds = facts.get("rows", {}).get("bounds", {}) if isinstance(facts.get("rows"), dict) else {}
    spans = {f"{name} span": f"{first[:10]} to {last[:10]}" for name, (first, last) in bounds.items()}
    thresholds = {f"threshold {k}": v for k, v in info["thresholds"].items()}
    calibration = {f"calibration {k}": v for k, v in facts.get("calibration", {}).items()}
    return {
        "seed_noise": facts.get("seed_noise", {}),
        "architecture": architecture,
        "selected_features": read_by_it,
        "training": {"seed": info["seed"], **kept, **spans, **thresholds, **calibration},
    }


def read(predictions: str | Path) -> dict[str, Any]:
    """What `evaluate` wrote."""
    found: dict[str, Any] = json.loads((Path(predictions) / "summary.json").read_text())
    return found


def seed_noise(content: Mapping[str, Any], word: str) -> dict[str, float]:
    """The measured spread between seeds of a candidate: its own, or for a symbol that of the network it comes from. The
    baseline has none: its fit has one solution."""
    if word == names.LINEAR:
        return {"net_return": 0.0, "log_loss": 0.0}
    models = content["models"]
    own = models[word]["seed_noise"] or models.get(names.UNIVERSAL, {}).get("seed_noise", {})
    return {k: float(v) for k, v in own.items()}


def write(predictions: Path, content: Mapping[str, Any]) -> None:
    """Write `summary.json`."""
    (predictions / "summary.json").write_text(json.dumps(content, indent=2, default=str))

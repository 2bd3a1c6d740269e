"""The step that measures: every candidate, every present champion and the baselines on the same held-out rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import names
from barcast.errors import ModelError
from barcast.steps import candidates
from barcast.steps._record import Run, step

if TYPE_CHECKING:
    from barcast.datasets import Dataset
    from barcast.evaluation.evaluate import Evaluation
    from barcast.splits import Fold
    from barcast.training import TrainedModel

_EXPLAINED_ROWS = 150
_CURVES = {"train_loss": "loss", "validation_loss": "val_loss"}


@step
def evaluate(
    run: Run,
    bars: str,
    dataset_path: str,
    linear: str,
    universal: str,
    symbols: Sequence[str],
    predictions: str,
    report: str,
    only_own: bool = False,
) -> dict[str, Any]:
    """Score the exported models; per-row results, figures and the report.

    Returns:
        `metrics` of the universal model (name → number) and its `confusion` counts.
    """
    from barcast import datasets, labels, splits
    from barcast.evaluation import report as page
    from barcast.registry import Registry
    from barcast.steps import measuring
    from barcast.training import TrainedModel

    config = run.config
    dataset = datasets.load(Path(dataset_path))
    fold = splits.holdout(dataset.rows, config.splits)
    thresholds = labels.fit_thresholds(dataset.rows[fold.train], config.labels)
    folder = Path(predictions)
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(run.workspace, config)
    found = candidates.found(linear, universal, symbols, only_own)
    for candidate in found:
        run.note(f"scoring {candidate.word}")
        rows = fold.test
        if candidate.symbol is not None:
            rows = rows[(dataset.rows["symbol"][rows] == candidate.symbol).to_numpy()]
        model = TrainedModel.load(candidate.folder)
        frame = model.predictions(dataset, rows, name=candidate.word, thresholds=thresholds)
        frame.write_parquet(candidates.results_file(folder, candidate.word))
        if candidate.word == names.UNIVERSAL:
            _explain(model, candidate.folder, dataset, fold, folder)
        if candidate.word == names.LINEAR:
            measuring.lightgbm(dataset, fold, frame, config).write_parquet(
                folder / "baseline-lightgbm.parquet"
            )
        live = candidates.champion_folder(run, registry, candidate.word) if candidate.new else None
        if live is not None:
            try:
                frame = TrainedModel.load(live[1]).predictions(
                    dataset, rows, name=f"champion {candidate.word}", thresholds=thresholds
                )
            except ModelError as error:  # another feature generation: it cannot be compared on these rows
                run.note(f"champion of {candidate.word} cannot be scored: {error}")
                continue
            frame.write_parquet(candidates.results_file(folder, candidate.word, champion=True))
    run.note("measuring")
    evaluation = measuring.measure(run, bars, dataset, fold, folder)
    html = page.render(evaluation, measuring.context(run, dataset, fold, folder))
    Path(report).write_text(html)
    (run.folder / "report.html").write_text(html)
    summary = _summary(evaluation, folder, [c.word for c in found], fold, dataset)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, default=str))
    best = evaluation.metrics[names.UNIVERSAL]
    run.note(
        f"{len(fold.test):,} rows: universal accuracy {best['ml']['accuracy']:.3f}, "
        f"linear {evaluation.metrics['linear']['ml']['accuracy']:.3f}"
    )
    return {
        "metrics": evaluation.flat_metrics(names.UNIVERSAL),
        "confusion": evaluation.confusion[names.UNIVERSAL].astype(int).tolist(),
    }


def _explain(model: TrainedModel, exported: Path, dataset: Dataset, fold: Fold, folder: Path) -> None:
    """What the report shows of how the network learned and of what it looks at."""
    import numpy as np

    from barcast.evaluation import explain
    from barcast.models import savedmodel

    in_time = fold.test[np.argsort(dataset.rows["event_timestamp"].to_numpy()[fold.test], kind="stable")]
    rows = in_time[np.linspace(0, len(in_time) - 1, min(_EXPLAINED_ROWS, len(in_time))).astype(int)]
    answers = savedmodel.predict(
        exported, dataset.windows(rows), model.symbol_ids(dataset)[rows], signature="explain"
    )
    table, stability = explain.gradients_over_spans(answers["attributions"], dataset.feature_names)
    table.write_parquet(folder / "importance.table")
    epochs = model.info.facts.get("epochs", [])
    curves = {
        k: [e[k] for e in epochs] for k in ("train_loss", "validation_loss") if epochs and k in epochs[0]
    }
    (folder / "explained.json").write_text(json.dumps({"curves": curves, "stability": stability}))


def _summary(
    evaluation: Evaluation, folder: Path, words: Sequence[str], fold: Fold, dataset: Dataset
) -> dict[str, Any]:
    """What registration and the gate need beside the per-row results."""
    from barcast.evaluation import frames, metrics_ml, reliability

    ends = dataset.rows["label_end_timestamp"]
    seen = max(ends[getattr(fold, name)].max() for name in ("train", "validation", "calibration"))  # type: ignore[type-var]
    shown = {names.UNIVERSAL: names.UNIVERSAL, names.LINEAR: "linear"}
    models: dict[str, Any] = {}
    for word in words:
        if word in shown:
            index = reliability.index(evaluation, shown[word], trained_until=seen)  # type: ignore[arg-type]
            models[word] = {"metrics": evaluation.flat_metrics(shown[word]), "reliability": index.index}
            continue
        frame = pl.read_parquet(candidates.results_file(folder, word))
        numbers = metrics_ml.metrics(
            frame["label"].to_numpy(),
            frames.probabilities(frame),
            confidence=frame["confidence"].to_numpy(),
            forward_return=frame["forward_log_return"].to_numpy(),
        )
        models[word] = {"metrics": {f"ml_{k}": float(v) for k, v in numbers.items() if v == v}}
    return {
        "seen_until": seen.astimezone(UTC).isoformat(),  # type: ignore[union-attr]
        "first": evaluation.window[0].isoformat(),
        "last": evaluation.window[1].isoformat(),
        "models": models,
        "limits": list(evaluation.notes),
    }

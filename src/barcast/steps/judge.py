"""The step that measures: every candidate, every present champion and the baselines on the same held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from barcast import names
from barcast.steps import candidates, explaining, incumbents, summary
from barcast.steps._record import Run, step

_MEMBER_ROWS = 10_000


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
    from barcast.bars import adjusted
    from barcast.evaluation import report as page
    from barcast.registry import Registry, fingerprint
    from barcast.steps import measuring
    from barcast.training import ExportedModel
    from barcast.training.common import spread
    from barcast.training.ensemble import member_scores

    config = run.config
    dataset = datasets.load(Path(dataset_path))
    fold = splits.holdout(dataset.rows, config.splits)
    thresholds = labels.fit_thresholds(dataset.rows[fold.train], config.labels)
    folder = Path(predictions)
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(run.workspace, config)
    found = candidates.found(linear, universal, symbols, only_own)
    operational = {}
    with ThreadPoolExecutor(1) as beside:  # a core for the trees, then for the explaining
        for candidate in found:
            run.note(f"scoring {candidate.word}")
            rows = fold.test
            if candidate.symbol is not None:
                rows = rows[(dataset.rows["symbol"][rows] == candidate.symbol).to_numpy()]
            model = ExportedModel.load(candidate.folder)
            frame = model.predictions(dataset, rows, name=candidate.word, thresholds=thresholds)
            frame.write_parquet(candidates.results_file(folder, candidate.word))
            operational[candidate.word] = summary.operational(model, candidate.folder, dataset, rows)
            if candidate.word == names.UNIVERSAL:
                universal_model = model
            if candidate.word == names.ENSEMBLE:
                member_scores(model, dataset, spread(rows, _MEMBER_ROWS)).write_csv(
                    run.folder / "members.csv"
                )
            if candidate.word == names.LINEAR:
                trees = beside.submit(measuring.lightgbm, dataset, fold, frame, config)
            if not candidate.new:
                if candidates.live_version(registry, candidate.word) is not None:  # it is what answers now
                    frame.write_parquet(candidates.results_file(folder, candidate.word, champion=True))
                continue
            candidates.recorded_file(folder, candidate.word).write_text(
                fingerprint.record(candidate.folder).to_json()
            )
            incumbents.score(run, registry, candidate.word, dataset, rows, thresholds, folder)
        made = {candidate.word for candidate in found}
        incumbents.score_the_rest(run, registry, made, dataset, fold.test, thresholds, folder)
        trees.result().write_parquet(folder / "baseline-lightgbm.parquet")
        explained = beside.submit(explaining.explain, universal_model, dataset, fold, thresholds, folder)
        rungs = measuring.ladder(folder)
        rungs.write_csv(run.folder / "ladder.csv")
        run.note(measuring.ladder_words(rungs))
        run.note("measuring")
        evaluation = measuring.measure(run, bars, dataset, fold, folder)
        explained.result()
    html = page.render(evaluation, measuring.context(run, dataset, fold, folder))
    Path(report).write_text(html)
    (run.folder / "report.html").write_text(html)
    summary.write(
        folder,
        summary.make(
            evaluation, folder, found, operational, dataset, fold, adjusted(pl.read_parquet(bars)), config
        ),
    )
    best = evaluation.metrics[names.UNIVERSAL]
    run.note(
        f"{len(fold.test):,} rows: universal accuracy {best['ml']['accuracy']:.3f}, "
        f"linear {evaluation.metrics['linear']['ml']['accuracy']:.3f}"
    )
    return {
        "metrics": evaluation.flat_metrics(names.UNIVERSAL),
        "confusion": evaluation.confusion[names.UNIVERSAL].astype(int).tolist(),
    }

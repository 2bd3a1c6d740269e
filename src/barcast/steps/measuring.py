"""Measuring scored models: the same call for the step that evaluates and the one that adds the verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import names
from barcast.steps import incumbents, summary
from barcast.steps._record import Run

if TYPE_CHECKING:
    from barcast.config import Config
    from barcast.datasets import Dataset
    from barcast.evaluation.evaluate import Evaluation
    from barcast.evaluation.gate import Verdict
    from barcast.evaluation.report import Context
    from barcast.splits import Fold

OWN = "own models"


def measure(run: Run, bars_path: str, dataset: Dataset, fold: Fold, predictions: Path) -> Evaluation:
    """Figures of all models whose results lie in `predictions`; the universal network is the candidate.

    Symbols' own models appear together as "own models": each symbol answered by its own where it has one, by the
    universal model where not, which is what serving would answer.
    """
    from barcast import labels
    from barcast.bars import adjusted
    from barcast.bars.calendars import bars_per_year, calendars_of
    from barcast.evaluation.evaluate import evaluate

    config = run.config
    frames = {f.stem: pl.read_parquet(f) for f in sorted(predictions.glob("*.parquet"))}
    whole = {names.UNIVERSAL: frames[f"candidate-{names.UNIVERSAL}"]}
    own = {
        stem.removeprefix("candidate-"): frame
        for stem, frame in frames.items()
        if stem.startswith("candidate-") and stem.removeprefix("candidate-") not in names.SHARED
    }
    if own:
        answered = pl.concat(own.values())
        rest = whole[names.UNIVERSAL].filter(~pl.col("symbol").is_in(answered["symbol"].unique().implode()))
        whole[OWN] = pl.concat([answered, rest]).with_columns(model=pl.lit(OWN))
    if (joined := frames.get(f"candidate-{names.ENSEMBLE}")) is not None:
        whole["ensemble"] = joined
    whole["linear"] = frames[f"candidate-{names.LINEAR}"]
    if (champion := incumbents.answering_now(predictions, whole[names.UNIVERSAL])) is not None:
        whole["champion"] = champion
    if (trees := frames.get("baseline-lightgbm")) is not None:
        whole["lightgbm"] = trees
    thresholds = labels.fit_thresholds(dataset.rows[fold.train], config.labels)
    history = labels.classify(dataset.rows[fold.train], thresholds)
    bars = adjusted(pl.read_parquet(bars_path))
    return evaluate(
        whole,
        bars,
        config.evaluation,
        costs=config.costs,
        horizon_bars=config.horizon_bars,
        bars_per_year=bars_per_year(calendars_of(config), bars["symbol"].unique(), config.interval),
        history_labels=history.select("symbol", "label_end_timestamp", "label"),
    )


def ladder(predictions: Path) -> pl.DataFrame:
    """What could answer for each symbol, from the simplest to its own model, scored on the same rows."""
    from barcast.training.symbols import ladder as compare

    def frame(stem: str) -> pl.DataFrame | None:
        file = predictions / f"{stem}.parquet"
        return pl.read_parquet(file) if file.exists() else None

    def own(side: str) -> pl.DataFrame | None:
        shared = {f"{side}-{word}" for word in names.SHARED}
        files = [f for f in sorted(predictions.glob(f"{side}-*.parquet")) if f.stem not in shared]
        return pl.concat([pl.read_parquet(f) for f in files]) if files else None

    rungs = {
        "linear": frame(f"candidate-{names.LINEAR}"),
        "universal": frame(f"candidate-{names.UNIVERSAL}"),
        "ensemble": frame(f"candidate-{names.ENSEMBLE}"),
        "own": own("candidate"),
        "champion": own("champion"),
    }
    return compare({name: rows for name, rows in rungs.items() if rows is not None})


def ladder_words(table: pl.DataFrame) -> str:
    """The ladder in one line: each symbol with the rung of least log loss."""
    return "least log loss: " + ", ".join(f"{s} {b}" for s, b in table.select("symbol", "best").iter_rows())


def lightgbm(dataset: Dataset, fold: Fold, rows: pl.DataFrame, config: Config) -> pl.DataFrame:
    """What a user would try first: gradient boosting on the last bar's features, scored on `rows`."""
    from barcast import labels
    from barcast.evaluation import baselines

    thresholds = labels.fit_thresholds(dataset.rows[fold.train], config.labels)
    features = list(dataset.feature_names)

    def last_bars(positions: Any) -> pl.DataFrame:
        keys = dataset.rows[positions].select("symbol", "event_timestamp")
        values = pl.DataFrame(dataset.features[dataset.window_end[positions]], schema=features, orient="row")
        joined: pl.DataFrame = pl.concat([keys, values], how="horizontal")
        return joined

    train = last_bars(fold.train).with_columns(label=pl.Series(dataset.classes(thresholds)[fold.train]))
    scored: pl.DataFrame = baselines.lightgbm(
        rows,
        last_bars(fold.test),
        train,
        features,
        num_rounds=config.evaluation.lightgbm_rounds,
        seed=config.evaluation.seed,
    )
    return scored


def context(
    run: Run,
    dataset: Dataset,
    fold: Fold,
    predictions: Path,
    *,
    verdicts: Sequence[Verdict] = (),
    slices: pl.DataFrame | None = None,
    blessing: str = "",
) -> Context:
    """What the report says beside the figures."""
    from barcast.evaluation import words
    from barcast.evaluation.report import Context

    explained = json.loads((predictions / "explained.json").read_text())
    bounds = {name: " to ".join(f"{t:%Y-%m-%d}" for t in span) for name, span in fold.bounds.items()}
    dropped = {
        f"windows dropped: {reason}": f"{count:,}" for reason, count in dataset.dropped.items() if count
    }
    return Context(
        title=f"{run.config.workspace}: {', '.join(dataset.symbols[:6])}"
        + (f" and {len(dataset.symbols) - 6} more" if len(dataset.symbols) > 6 else ""),
        verdicts=list(verdicts),
        learning_curves={"universal": explained["curves"]} if explained["curves"] else {},
        importance=pl.read_parquet(predictions / "importance.table"),
        importance_words="Mean absolute integrated gradient, spread over three spans of the test. "
        + words.stability(explained["stability"]),
        shuffled=pl.read_parquet(predictions / "permutation.table"),
        shuffled_words="The largest of these, each shuffled over the rows: its share of the rise of log loss, with its "
        "spread over three spans. " + words.stability(explained["permutation_stability"]),
        attention=explained["attention"],
        operational=_operational(predictions),
        slices=slices,
        blessing=blessing,
        ladder=ladder(predictions),
        facts={
            "run": run.key,
            "configuration hash": run.config.hash,
            "interval": run.config.interval,
            "seed": run.config.seed,
            **{f"{name} span": text for name, text in bounds.items()},
            **dropped,
        },
    )


def _operational(predictions: Path) -> pl.DataFrame | None:
    """What each model costs; None in the report of the step that is about to write it."""
    if not (predictions / "summary.json").exists():
        return None
    kept = (
        "parameters",
        "training_seconds",
        "epochs",
        "best_epoch",
        "latency_ms_p50",
        "latency_ms_p95",
        "size_mib",
    )
    return pl.DataFrame(
        [
            {"trained_model": word} | {k: model["metrics"].get(f"operational_{k}") for k in kept}
            for word, model in summary.read(predictions)["models"].items()
        ],
        infer_schema_length=None,
    )

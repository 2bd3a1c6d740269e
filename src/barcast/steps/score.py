"""The step that scores a span of history in bulk, each symbol by the model that answers for it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import clock, names
from barcast.steps import candidates
from barcast.steps._record import Run, step
from barcast.wording import count


@step
def score(
    run: Run,
    start: str,
    end: str,
    runner: str,
    options: list[str],
    dataset_path: str,
    linear: dict[str, Any],
    linear_path: str,
    universal: dict[str, Any],
    universal_path: str,
    own_path: str,
    scores_path: str,
) -> dict[str, Any]:
    """Predictions of every window of the span, joined with what came → `scores_path` (Parquet).

    A symbol is answered by its own live model, else by the live ensemble, the universal model or the baseline, as in
    serving.

    Returns:
        Rows, and the names of the models that scored.
    """
    from barcast import datasets, labels, splits
    from barcast.adapters import beam

    dataset = datasets.load(Path(dataset_path))
    thresholds = labels.fit_thresholds(
        dataset.rows[splits.holdout(dataset.rows, run.config.splits).train], run.config.labels
    )
    shared = _shared(bool(universal.get("live")), linear_path, universal_path, own_path)
    wanted = _inside(dataset.rows["event_timestamp"], start, end)
    frames = []
    by_model: dict[tuple[str, str], list[np.ndarray]] = {}
    for symbol in dataset.symbols:
        own = Path(own_path) / candidates.folder_name(symbol)
        rows = dataset.of_symbol(symbol)
        by_model.setdefault((symbol, str(own)) if own.is_dir() else shared, []).append(rows[wanted[rows]])
    for (word, model), parts in by_model.items():
        rows = np.concatenate(parts)
        if not len(rows):
            continue
        run.note(f"{word}: {count(len(rows), 'window')}")
        with tempfile.TemporaryDirectory(prefix="barcast-scores-") as folder:
            output = beam.score(
                Path(model),
                Path(dataset_path),
                Path(folder) / "out",
                rows=rows,
                runner=runner,
                options=options,
            )
            frames.append(beam.read(output, Path(dataset_path), name=word, thresholds=thresholds))
    scores = pl.concat(frames).sort("symbol", "event_timestamp")
    scores.write_parquet(scores_path)
    scores.write_parquet(run.folder / "scores.parquet")
    by = sorted(scores["model"].unique())
    run.note(f"{count(scores.height, 'window')} scored by {', '.join(by)}")
    return {"rows": scores.height, "models": ",".join(by)}


def _shared(universal_lives: bool, linear_path: str, universal_path: str, own_path: str) -> tuple[str, str]:
    """Name and folder of what answers for symbols without a model of their own."""
    joined = Path(own_path) / candidates.folder_name(names.ENSEMBLE)  # it is there where it is live
    if joined.is_dir():
        return names.ENSEMBLE, str(joined)
    return (names.UNIVERSAL, universal_path) if universal_lives else (names.LINEAR, linear_path)


def _inside(times: pl.Series, start: str, end: str) -> np.ndarray:
    """Which of the times lie in (start, end].

    Raises:
        DataError: none does.
    """
    from barcast.errors import DataError
    from barcast.evaluation.frames import newest, oldest

    first, last = clock.instant(start, "start"), clock.instant(end, "end")
    inside = np.ones(len(times), dtype=bool)
    if first is not None:
        inside &= (times > first).to_numpy()
    if last is not None:
        inside &= (times <= last).to_numpy()
    if not inside.any():
        raise DataError(
            f"No usable window closes between {start or 'the first bar'} and {end or 'the last bar'}.",
            hint=f"They reach from {oldest(times)} to {newest(times)}.",
        )
    return inside

"""What answers now, as per-row results: what a candidate is compared with in the report and by slices."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from barcast import names
from barcast.errors import ModelError
from barcast.steps import candidates

if TYPE_CHECKING:
    import numpy as np

    from barcast.datasets import Dataset
    from barcast.labels import Thresholds
    from barcast.registry import Registry
    from barcast.steps._record import Run

_UNSCORED = "unscored.json"
KEYS = ("symbol", "event_timestamp")


def same_bars(rows: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """The rows of the bars of `like`, in its order."""
    return like.select(KEYS).join(rows, on=KEYS, how="inner", maintain_order="left")


def answering_now(predictions: str | Path, like: pl.DataFrame) -> pl.DataFrame | None:
    """Results of the live models on the bars of `like`: each symbol by its own champion where it has one, else by the
    ensemble's, the universal champion, the baseline's. None where they do not answer for all of those bars."""
    shared = [
        pl.read_parquet(file)
        for word in (names.ENSEMBLE, names.UNIVERSAL, names.LINEAR)
        if (file := candidates.results_file(predictions, word, champion=True)).exists()
    ]
    parts = []
    for symbol in like["symbol"].unique(maintain_order=True):
        own = candidates.results_file(predictions, symbol, champion=True)
        found = [pl.read_parquet(own)] if own.exists() else shared
        parts += [frame.filter(pl.col("symbol") == symbol) for frame in found[:1]]
    answered = same_bars(pl.concat(parts), like) if parts else like.clear()
    return answered if answered.height == like.height else None


def score(
    run: Run,
    registry: Registry,
    word: str,
    dataset: Dataset,
    rows: np.ndarray,
    thresholds: Thresholds,
    predictions: Path,
) -> None:
    """Keep the per-row results of what is live under `word`'s own name; nothing where nothing is.

    Args:
        rows: positions in `dataset`.
    """
    from barcast.training import ExportedModel

    live = candidates.champion_folder(run, registry, word)
    if live is None:
        return
    try:
        model = ExportedModel.load(live[1])
        frame = model.predictions(dataset, rows, name=f"champion {word}", thresholds=thresholds)
    except ModelError as error:  # another feature generation: it cannot be compared on these rows
        run.note(f"champion of {word} cannot be scored: {error}")
        cannot_score(predictions, word, live[0], error.message)
        return
    frame.write_parquet(candidates.results_file(predictions, word, champion=True))


def score_the_rest(
    run: Run,
    registry: Registry,
    made: Collection[str],
    dataset: Dataset,
    rows: np.ndarray,
    thresholds: Thresholds,
    predictions: Path,
) -> None:
    """Keep the results of the live ensemble and symbols' own models that this run makes no version of: they answer
    for their symbols all the same.

    Args:
        made: words of the run's own models.
        rows: positions in `dataset`.
    """
    symbol = dataset.rows["symbol"][rows]
    for word in (names.ENSEMBLE, *symbol.unique(maintain_order=True)):
        if word not in made:
            of = rows if word == names.ENSEMBLE else rows[(symbol == word).to_numpy()]
            score(run, registry, word, dataset, of, thresholds, predictions)


def cannot_score(predictions: Path, word: str, version: int, why: str) -> None:
    """Remember that the live version of `word` does not fit these rows, so that the gate does not judge without it."""
    file = predictions / _UNSCORED
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {word: [version, why]}))


def unscored(predictions: str | Path, word: str) -> tuple[str, str] | None:
    """What answers for `word` now where that could not be scored: its name and the reason; else None."""
    file = Path(predictions) / _UNSCORED
    known = json.loads(file.read_text()) if file.exists() else {}
    joined = () if word in names.SHARED else (names.ENSEMBLE,)
    for answering in dict.fromkeys((word, *joined, names.UNIVERSAL, names.LINEAR)):
        if candidates.results_file(predictions, answering, champion=True).exists():
            return None
        if answering in known:
            version, why = known[answering]
            return f"champion v{version} of {answering}", why
        if word == names.LINEAR:
            return None
    return None

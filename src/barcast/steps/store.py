"""Steps around the feature store: materialize, build_dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import names
from barcast.errors import DataError, did_you_mean
from barcast.steps._record import Run, step
from barcast.wording import count

if TYPE_CHECKING:
    import numpy as np

    from barcast.datasets import Dataset


@step
def materialize(run: Run, features_path: str) -> str:
    """Feast definitions applied, offline rows written, online rows and windows filled.

    Returns:
        The name of the FeatureService.
    """
    from barcast.adapters.feast import FeatureStore

    store = FeatureStore(run.workspace, run.config)
    store.apply()
    features = pl.read_parquet(features_path)
    new = store.write_offline(features)
    done = store.materialize(features["event_timestamp"].max())  # type: ignore[arg-type]
    run.note(f"{count(new, 'new offline row')}, {count(done.windows, 'window')} online")
    return run.config.generation


@step
def build_dataset(
    run: Run, bars_path: str, service: str, models: str, dataset_path: str, metadata: dict[str, Any]
) -> list[str]:
    """Labels joined point in time with features → a folder; the batches of models to train.

    Args:
        models: which ones, separated by commas; empty: the ensemble, and every symbol with enough rows for a model of
            its own in the order of their priority.

    Returns:
        JSON lists of names.

    Raises:
        DataError: a named symbol has too few rows, or none that are held out.
    """
    from barcast import datasets, labels, splits
    from barcast.adapters.feast import FeatureStore
    from barcast.bars import adjusted
    from barcast.bars.calendars import calendars_of, expected_closes
    from barcast.models import regime
    from barcast.training.symbols import priorities

    config = run.config
    bars = adjusted(pl.read_parquet(bars_path))
    expected = expected_closes(bars, config.interval, calendars_of(config))
    outcomes = labels.make(
        bars, horizon_bars=config.horizon_bars, config=config.labels, expected_times=expected
    )
    features = FeatureStore(run.workspace, config).training_rows(bars.select("symbol", "event_timestamp"))
    dataset = datasets.build(
        features,
        outcomes,
        lookback_bars=config.lookback_bars,
        regimes=regime.known(bars, features),
        expected_times=expected,
        max_gap_bars=config.labels.max_gap_bars,
    )
    folder = Path(dataset_path)
    folder.mkdir(parents=True, exist_ok=True)
    datasets.save(dataset, folder)
    counts = labels.counts(outcomes)
    metadata.update(
        {"rows": len(dataset), "service": service, **{f"labels_{k}": v for k, v in counts.items()}}
    )
    metadata.update({f"dropped_{k}": v for k, v in dataset.dropped.items()})
    judged = splits.holdout(dataset.rows, config.splits).test
    chosen = _chosen(dataset, judged, models, config.training.min_symbol_rows, priorities(bars))
    if config.training.ensemble and not models.strip():
        chosen.insert(0, names.ENSEMBLE)
    dropped = ", ".join(f"{v:,} {k}" for k, v in dataset.dropped.items() if v)
    own = sum(word not in names.SHARED for word in chosen)
    made = f"models: {', '.join(chosen)}" if models else f"own models for {count(own, 'symbol')}"
    run.note(f"{count(len(dataset), 'window')}; dropped: {dropped or 'none'}; {made}")
    return batches(chosen, config.training.symbols_per_step)


def batches(chosen: list[str], size: int) -> list[str]:
    """JSON lists of at most `size` names; one empty list where there are none, since kfp cannot collect from a loop
    that never ran."""
    return [json.dumps(chosen[i : i + size]) for i in range(0, max(1, len(chosen)), size)]


def _chosen(dataset: Dataset, judged: np.ndarray, models: str, least: int, order: Sequence[str]) -> list[str]:
    """Names of the models to make.

    Args:
        judged: the held-out rows. A symbol without any, delisted before they begin, gets no model of its own: nothing
            could judge it, and nobody will ask it.
    """
    rows = dict(dataset.rows["symbol"].value_counts().iter_rows())
    present = set(dataset.rows["symbol"][judged])
    if not models.strip():
        return [symbol for symbol in order if rows.get(symbol, 0) >= least and symbol in present]
    wanted = [word.strip() for word in models.split(",") if word.strip()]
    for word in wanted:
        if word in names.SHARED:
            continue
        if rows.get(word, 0) < least:
            raise DataError(
                f"{word!r} has {rows.get(word, 0)} usable rows; a model of its own needs {least}.",
                hint=did_you_mean(word, rows)
                if word not in rows
                else "Bring more bars, or lower training.min_symbol_rows; the universal model answers meanwhile.",
            )
        if word not in present:
            raise DataError(
                f"{word!r} has no rows in the held-out span: a model of its own could not be judged.",
                hint="Bring its newest bars; the universal model answers meanwhile.",
            )
    return wanted

"""Steps around the feature store: materialize, build_dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from barcast.steps._record import Run, step


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
    run.note(f"{new:,} new offline rows, {done.windows} windows online")
    return run.config.generation


@step
def build_dataset(
    run: Run, bars_path: str, service: str, dataset_path: str, metadata: dict[str, Any]
) -> list[str]:
    """Labels joined point in time with features → a folder; the batches of symbols to train.

    Returns:
        JSON lists of symbols that have enough rows for a model of their own.
    """
    from barcast import datasets, labels
    from barcast.adapters.feast import FeatureStore
    from barcast.bars import Calendar, adjusted
    from barcast.models import regime

    config = run.config
    bars = adjusted(pl.read_parquet(bars_path))
    calendar = Calendar.of(config.universe.calendar)
    expected = calendar.close_times(
        bars["event_timestamp"].min(),  # type: ignore[arg-type]
        bars["event_timestamp"].max(),  # type: ignore[arg-type]
        config.interval,
    )
    outcomes = labels.make(
        bars, horizon_bars=config.horizon_bars, config=config.labels, expected_times=expected
    )
    features = FeatureStore(run.workspace, config).training_rows(bars.select("symbol", "event_timestamp"))
    dataset = datasets.build(
        features,
        outcomes,
        lookback_bars=config.lookback_bars,
        regimes=regime.rules(bars),
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
    enough = [s for s in dataset.symbols if len(dataset.of_symbol(s)) >= config.training.min_symbol_rows]
    size = config.training.symbols_per_step
    batches = [json.dumps(enough[i : i + size]) for i in range(0, len(enough), size)]
    dropped = ", ".join(f"{v:,} {k}" for k, v in dataset.dropped.items() if v)
    run.note(f"{len(dataset):,} windows; dropped: {dropped or 'none'}; own models for {len(enough)} symbols")
    return batches

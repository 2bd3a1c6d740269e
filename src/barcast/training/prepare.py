"""From a workspace's bars to a dataset, outside a pipeline run: for commands, searches and experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from barcast import datasets, labels
from barcast.datasets import Dataset
from barcast.errors import DataError
from barcast.models import regime


def dataset_of(
    bars: pl.DataFrame,
    features: pl.DataFrame,
    config: Any,
    *,
    expected: Mapping[str, pl.Series] | None,
    symbols: Sequence[str] | None = None,
) -> Dataset:
    """Labels, regimes and windows of adjusted bars and their features, under one configuration.

    Args:
        bars: adjusted bars.
        features: frame "Features" of the same bars.
        config: `barcast.config.Config`.
        expected: for each symbol the closes that its calendar expects; None for round the clock.
        symbols: symbols in the order of a model that the dataset is for; new ones are appended.

    Raises:
        DataError: nothing left to learn from.
    """
    outcomes = labels.make(
        bars, horizon_bars=config.horizon_bars, config=config.labels, expected_times=expected
    )
    return datasets.build(
        features,
        outcomes,
        lookback_bars=config.lookback_bars,
        symbols=symbols,
        regimes=regime.known(bars, features),
        expected_times=expected,
        max_gap_bars=config.labels.max_gap_bars,
    )


def from_bars(bars: pl.DataFrame, config: Any, *, symbols: Sequence[str] | None = None) -> Dataset:
    """As `dataset_of`, from bars as stored: adjusts prices and computes the configured features.

    Raises:
        DataError: no bars.
    """
    from barcast import features
    from barcast.bars import adjusted
    from barcast.bars.calendars import calendars_of, expected_closes

    if bars.is_empty():
        raise DataError("The workspace has no bars.", hint="Run `barcast ingest` first.")
    calendars = calendars_of(config)
    bars = adjusted(bars)
    expected = expected_closes(bars, config.interval, calendars)
    computed = features.compute(bars, interval=config.interval, calendar=calendars, config=config.features)
    return dataset_of(bars, computed, config, expected=expected, symbols=symbols)

"""The outcomes of bars that are known by now, by the calendars of the configuration, as training counts them."""

from __future__ import annotations

import polars as pl

from barcast import labels
from barcast.bars import calendars_of
from barcast.bars.calendars import expected_closes
from barcast.config import Config


def known_outcomes(bars: pl.DataFrame, config: Config) -> pl.DataFrame:
    """Usable labels of adjusted bars, without classes: each model has its own limits (`labels.classify`).

    A night or a weekend is no gap; a horizon over a long gap has no outcome.
    """
    expected = expected_closes(bars, config.interval, calendars_of(config))
    made = labels.make(bars, horizon_bars=config.horizon_bars, config=config.labels, expected_times=expected)
    return made.filter("valid")

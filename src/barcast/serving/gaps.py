"""Bars missing within a window. Training drops such windows, so no model is asked about one.

The same measure as in training: bars that the symbol's calendar expects; nights and weekends are no gaps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barcast import intervals
from barcast.bars import calendars_of
from barcast.bars.calendar import Calendar
from barcast.config import Config
from barcast.labels import missing_bars
from barcast.serving.market import moment


class Gaps:
    """Finds gaps that are longer than `labels.max_gap_bars`.

    Args:
        config: its interval, calendars and longest gap.
    """

    def __init__(self, config: Config) -> None:
        self._interval, self._most = config.interval, config.labels.max_gap_bars
        self._seconds = intervals.seconds(config.interval)
        self._calendars = calendars_of(config)

    def before(self, symbol: str, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bars missing just before each row where they are too many, else 0; the first row has 0.

        Args:
            times: (n,) ascending closes, microseconds since 1970 UTC.
        """
        # Nearly always no two bars are that far apart, and no calendar is asked.
        if not (np.diff(times) > self._most * self._seconds * 1e6).any():
            return np.zeros(len(times))
        closes = _closes(self._calendars(symbol).name, self._interval, int(times[0]), int(times[-1]))
        stamps = pl.Series(times).cast(pl.Datetime("us", "UTC"))
        missing = missing_bars(stamps, interval_seconds=self._seconds, expected=closes)
        return np.where(missing > self._most, missing, 0.0)

    def within(self, symbol: str, times: NDArray[np.int64]) -> str:
        """The first long gap between the rows of a window, in words; empty where there is none."""
        missing = self.before(symbol, times)
        if not missing.any():
            return ""
        at = int(np.argmax(missing > 0))
        return (
            f"bars are missing: {missing[at]:.0f} between {moment(times[at - 1]):%Y-%m-%d %H:%M} and "
            f"{moment(times[at]):%Y-%m-%d %H:%M} UTC, within the window; models learn over at most {self._most}"
        )


@lru_cache(maxsize=64)
def _closes(calendar: str, interval: str, first: int, last: int) -> pl.Series:
    """Closes that the calendar expects, first <= t <= last; symbols that close together share one look."""
    return Calendar.of(calendar).close_times(moment(first - 1), moment(last), interval)

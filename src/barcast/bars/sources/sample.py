"""The packaged sample: daily US stocks 2000-2013 from bokeh_sampledata, as traded, with splits and dividends.

The file inside the package is read by its path; a date becomes the close of that day's New York session. The
price factor is adjusted close / close; the volume factor follows splits only (see `barcast.bars.splits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from barcast.bars.calendar import Calendar
from barcast.bars.schema import check, conform
from barcast.bars.sources.base import between, selected
from barcast.bars.splits import with_factors
from barcast.errors import ConfigError, DataError

INTERVAL = "1d"
CALENDAR = "XNYS"


class SampleSource:
    """AAPL, GOOG, IBM, MSFT, and FB with its first 196 bars (a cold start)."""

    def __init__(self, interval: str = INTERVAL) -> None:
        if interval != INTERVAL:
            raise ConfigError(
                f"The sample has daily bars, the configuration says interval {interval!r}.",
                hint="Set interval: 1d, or source.kind: simulator for another interval.",
            )

    def symbols(self) -> list[str]:
        return sorted(_load()["symbol"].unique())

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars as `Source.fetch` says; a bar counts as known at its close."""
        wanted = selected(self.symbols(), symbols)
        return between(_load().filter(pl.col("symbol").is_in(wanted)), start, end)


def path() -> Path:
    """The sample's file inside the installed bokeh_sampledata.

    Raises:
        DataError: the package or its file is not there.
    """
    spec = find_spec("bokeh_sampledata")
    folder = (
        Path(next(iter(spec.submodule_search_locations)))
        if spec and spec.submodule_search_locations
        else None
    )
    file = folder / "_data" / "stocks.csv.gz" if folder else None
    if file is None or not file.is_file():
        raise DataError(
            "The packaged sample (bokeh_sampledata/_data/stocks.csv.gz) is not installed.",
            hint="Run `make run` again, or pip install bokeh_sampledata.",
        )
    return file


@lru_cache(maxsize=1)
def _load() -> pl.DataFrame:
    raw = pl.read_csv(path(), schema_overrides={"Volume": pl.Float64}, try_parse_dates=True)
    frame = raw.select(
        symbol="Ticker",
        event_timestamp=Calendar.of(CALENDAR).session_closes(raw["Date"]),
        open="Open",
        high="High",
        low="Low",
        close="Close",
        volume="Volume",
        adjusted_close="Adj Close",
    )
    return check(conform(with_factors(frame), origin="the sample"), origin="the sample")

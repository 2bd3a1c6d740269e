"""Bars that the tests of this room share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from barcast.bars.schema import conform
from barcast.bars.sources.sample import SampleSource
from barcast.bars.sources.simulator import simulate


@pytest.fixture(scope="session")
def sample() -> pl.DataFrame:
    return SampleSource().fetch()


@pytest.fixture(scope="session")
def hourly() -> pl.DataFrame:
    """Three simulated symbols, 200 hours."""
    return simulate(3, 200, "1h", seed=3)


def one_bar(
    symbol: str = "X", hour: float = 0, *, close: float = 10.0, known_after: float = 0.0
) -> pl.DataFrame:
    """A bar that closes `hour` hours after 2024-01-01, known `known_after` seconds after its close."""
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
    return conform(
        pl.DataFrame(
            {
                "symbol": [symbol],
                "event_timestamp": [moment],
                "created_timestamp": [moment + timedelta(seconds=known_after)],
                "open": [10.0],
                "high": [max(10.0, close)],
                "low": [min(10.0, close)],
                "close": [close],
                "volume": [5.0],
            }
        )
    )

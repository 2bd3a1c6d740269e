"""The paper account's stress test sees every symbol on its own market's days."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from barcast.bars.sources.simulator import simulate
from barcast.cli.paper import _daily


def test_days_of_stocks_and_coins_together_keep_every_move_of_both() -> None:
    start = datetime(2024, 7, 1, tzinfo=UTC)
    stock = simulate(1, 80, "1h", calendar="XNYS", start=start, prefix="STOCK")
    coin = simulate(1, 400, "1h", start=start, prefix="COIN")
    days = _daily(pl.concat([stock, coin]))
    for symbol, bars in (("STOCK0000", stock), ("COIN0000", coin)):
        closes = days[symbol]
        assert closes.null_count() == 0
        assert closes[0] == bars.filter(pl.col("event_timestamp").dt.date() == start.date())["close"][-1]
        assert closes[-1] == bars["close"][-1]  # the moves multiply to the whole: no Monday is lost
    weekend = days.filter(pl.col("event_timestamp").dt.weekday() >= 6)["STOCK0000"]
    friday = days.filter(pl.col("event_timestamp").dt.date() == datetime(2024, 7, 5).date())["STOCK0000"]
    assert weekend[0] == pytest.approx(friday[0])

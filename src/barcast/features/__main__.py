"""`python -m barcast.features`: compile all kernels into the package's cache, so that nothing waits for it later."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context

import polars as pl

from barcast.features.plan import compile_share


class _AlwaysOpen:
    """The little of a calendar that a trial run needs."""

    name = "24/7"
    span = (date(1990, 1, 1), date(2040, 12, 31))

    def __call__(self, symbol: str) -> _AlwaysOpen:
        return self

    def bars_per_year(self, interval: str) -> float:
        return 365.25

    def sessions(self, start: date, end: date) -> pl.DataFrame:
        days = pl.date_range(start, end, eager=True)
        opened = days.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return pl.DataFrame({"session": days, "open": opened, "close": opened + timedelta(days=1)})

    def breaks(self, start: date, end: date) -> pl.DataFrame:
        return pl.DataFrame(schema={"session": pl.Date, "break_start": pl.Datetime, "break_end": pl.Datetime})


def main() -> None:
    """Compile in as many processes as there are processors, then run both engines once."""
    shares = os.cpu_count() or 1
    with ProcessPoolExecutor(shares, mp_context=get_context("spawn")) as pool:
        done = sum(pool.map(compile_share, range(shares), [shares] * shares))
    from barcast.features import StreamEngine, compute

    first = datetime(2024, 1, 2, tzinfo=UTC)
    rows = [
        {
            "symbol": symbol,
            "event_timestamp": first + timedelta(days=k),
            "created_timestamp": first + timedelta(days=k),
        }
        | dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
        for symbol in "AB"
        for k in range(3)
    ]
    bars = pl.DataFrame(
        rows, schema_overrides={n: pl.Datetime("us", "UTC") for n in ("event_timestamp", "created_timestamp")}
    )
    compute(bars, interval="1d", calendar=_AlwaysOpen())
    engine = StreamEngine("1d", _AlwaysOpen())
    for part in bars.partition_by("event_timestamp"):
        engine.update(part)
    print(f"{done} feature kernels are compiled.")


if __name__ == "__main__":
    main()

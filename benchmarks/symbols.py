"""Cost per symbol from 1 to 256 symbols, all categories on, and where the quadratic part (correlations) matters.

Correlations take at most 2,000 hourly or coarser returns per pair, once per refresh; the work of an event beside them
is bounded per symbol (16 peers, sorted ranks).

    python benchmarks/symbols.py [--bars N] [--most N]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl
from _common import report, row
from features_stream import bars

from barcast.bars.calendar import Calendar


def batch_us(symbols: int, count: int) -> float:
    """Microseconds per symbol and bar in batch, better of two runs."""
    from barcast.features import compute

    frame = five_minutes(bars(symbols, 0, count))
    best = np.inf
    for _ in range(2):
        start = time.perf_counter()
        out = compute(frame, interval="5m", calendar=Calendar.of("24/7"))
        best = min(best, (time.perf_counter() - start) / out.height * 1e6)
    return float(best)


def stream_us(symbols: int) -> float:
    """Microseconds per symbol of an update in the stream, median."""
    from barcast.features import StreamEngine

    engine = StreamEngine("5m", Calendar.of("24/7"))
    frame = five_minutes(bars(symbols, 0, 360))
    moments = frame.sort("event_timestamp", "symbol").partition_by("event_timestamp", maintain_order=True)
    engine.warm(pl.concat(moments[:300]))
    spent = []
    for moment in moments[300:]:
        start = time.perf_counter()
        engine.update(moment)
        spent.append((time.perf_counter() - start) / symbols * 1e6)
    return float(np.median(spent))


def five_minutes(frame: pl.DataFrame) -> pl.DataFrame:
    """The one-minute bars stamped as five-minute ones."""
    first = frame["event_timestamp"].min()
    spread = [(first + (pl.col(n) - first) * 5).alias(n) for n in ("event_timestamp", "created_timestamp")]
    return frame.with_columns(spread).with_columns(
        [(pl.col(n) + pl.duration(minutes=4)).alias(n) for n in ("event_timestamp", "created_timestamp")]
    )


def refresh_ms(symbols: int) -> float:
    """Milliseconds of one refresh of all correlations with a full look-back of 720 hours."""
    from barcast.config.features import FeaturesConfig
    from barcast.features.correlation_kernels import refresh_correlations
    from barcast.features.cross_symbol import CrossState

    state = CrossState("5m", FeaturesConfig(), [f"S{k}" for k in range(symbols)])
    random = np.random.default_rng(0)
    a = state.arrays
    count = state.length
    a["ring"][:] = np.cumsum(random.normal(0, 0.01, (symbols, count)) + random.normal(0, 0.01, count), axis=1)
    now = 10**15
    a["ring_times"][:] = now - 3_600_000_000 * np.arange(count)[::-1]
    a["clock"][3] = count
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        refresh_correlations(
            now, state.rules, state.threshold, a["clock"], state.order, a["ring"], a["ring_times"], a["correlation"],
            a["peers"], a["weights"], a["links"],
        )  # fmt: skip
        best = min(best, (time.perf_counter() - start) * 1e3)
    return float(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=1_200, help="bars per symbol in batch")
    parser.add_argument("--most", type=int, default=256, help="most symbols")
    given = parser.parse_args()
    sizes = [s for s in (1, 4, 16, 64, 256, 500) if s <= given.most]
    results, first = [], {}
    batch_us(2, 300)
    for size in sizes:
        for kind, value in (("batch", batch_us(size, given.bars)), ("stream", stream_us(size))):
            first.setdefault(kind, value)
            results.append(
                row(
                    f"{kind}, {size} symbols",
                    value,
                    first[kind],
                    "us per symbol and bar",
                    higher_is_better=False,
                )
            )
    for size in (16, 64, 256, 500):
        ms = refresh_ms(size)
        results.append(row(f"correlations, {size} symbols", ms, None, "ms per refresh"))
        per_bar = ms * 1e3 / size / 288
        results.append(
            row(f"  spread over a day of 5m bars, {size} symbols", per_bar, None, "us per symbol and bar")
        )
    report("symbols", results)


if __name__ == "__main__":
    main()

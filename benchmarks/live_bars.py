"""Live bars on their way from the log to the table, and to whoever answers: a day's flushes of many symbols.

    python benchmarks/live_bars.py [--symbols 50] [--flushes 100] [--history 6000]

Every five-minute close is logged, then moved to the table, as the live feed does. Measured: the move itself, and how
long a reader that follows (`NewestBars.since`) takes to know the bars while they wait in the log and after the move.
The peer reads the newest bars of the Delta table again, as any reader without marks does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import report, row

KEPT = 1500  # bars that the gateway keeps of a symbol


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What the call gives, and its milliseconds."""
    began = time.perf_counter()
    found = call()
    return found, (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--flushes", type=int, default=100)
    parser.add_argument(
        "--history", type=int, default=6000, help="bars of each symbol before the first flush"
    )
    options = parser.parse_args()
    from barcast.bars import Calendar
    from barcast.bars.log import BarLog
    from barcast.bars.newest import NewestBars
    from barcast.bars.sources.simulator import simulate
    from barcast.bars.store import BarStore

    bars = simulate(options.symbols, options.history + options.flushes, "5m", 7).sort(
        "event_timestamp", "symbol"
    )
    closes = bars.partition_by("event_timestamp", maintain_order=True)
    taken: dict[str, list[float]] = {name: [] for name in ("move", "waiting", "moved", "peer")}
    with tempfile.TemporaryDirectory() as folder:
        log = BarLog(Path(folder) / "log.sqlite")
        store = BarStore(Path(folder) / "bars", "5m", calendar=Calendar.of("24/7"))
        store.append(bars.head(options.history * options.symbols))
        reader = NewestBars(store, log.path)
        mark, _ = reader.since(None, KEPT)
        for close in closes[options.history :]:
            log.append(close)
            (mark, found), took = timed(lambda: reader.since(mark, KEPT))  # noqa: B023
            taken["waiting"].append(took)
            assert found.height == options.symbols
            taken["move"].append(timed(lambda: log.flush(store))[1])
            (mark, _), took = timed(lambda: reader.since(mark, KEPT))  # noqa: B023
            taken["moved"].append(took)
            newest, took = timed(lambda: store.latest(None, KEPT))
            taken["peer"].append(took)
            assert newest["event_timestamp"].max() == close["event_timestamp"][0]
    results = []
    for q in (50, 99):
        whole = float(np.percentile(taken["peer"], q))
        for name in ("waiting", "moved"):
            ours = float(np.percentile(taken[name], q))
            title = f"to know {options.symbols} bars that are {'in the log' if name == 'waiting' else 'in the table'}"
            results.append(row(f"{title}, p{q}", ours, whole, "ms", higher_is_better=False))
        moved = float(np.percentile(taken["move"], q))
        results.append(row(f"to move them to the table, p{q}", moved, None, "ms", higher_is_better=False))
    report("live_bars", results)


if __name__ == "__main__":
    main()

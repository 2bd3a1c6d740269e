"""All features of 9 symbols x 52,416 five-minute bars, against the whole set of the `ta` library, in million cells/s.

`ta` has no notion of several symbols and runs on one processor: it computes one symbol; its speed does not
depend on how many follow. Ours is shown on the same one symbol and, as it is used, on all nine. Memory is
the highest resident
size of a fresh process less what it held before, by the size of the features.

    python benchmarks/features_batch.py [--bars N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

import polars as pl
from _common import report, row, shared_data

from barcast.bars.calendar import Calendar


def bars(num_bars: int) -> pl.DataFrame:
    """Real bars of nine symbols, or simulated ones where they are absent."""
    folder = shared_data()
    if folder is None:
        from barcast.bars.sources.simulator import simulate

        return simulate(9, num_bars, "5m", 7)
    frames = []
    for path in sorted((folder / "crypto_5m").glob("*.parquet")):
        close = (pl.col("timestamp") + timedelta(minutes=5)).cast(pl.Datetime("us", "UTC"))
        values = ["open", "high", "low", "close", "volume"]
        keys = {"symbol": pl.lit(path.stem), "event_timestamp": close, "created_timestamp": close}
        frames.append(pl.read_parquet(path).head(num_bars).select(**keys, **{n: n for n in values}))
    return pl.concat(frames)


def ours(frame: pl.DataFrame, repeats: int) -> float:
    """Million cells per second, median."""
    from barcast.features import compute

    calendar = Calendar.of("24/7")
    compute(frame.group_by("symbol").head(300), interval="5m", calendar=calendar)
    speeds = []
    for _ in range(repeats):
        start = time.perf_counter()
        out = compute(frame, interval="5m", calendar=calendar)
        speeds.append(out.height * (out.width - 3) / (time.perf_counter() - start) / 1e6)
    return statistics.median(speeds)


def peer(frame: pl.DataFrame) -> tuple[float, int]:
    """Million cells per second of `ta`, and its number of columns."""
    import ta

    table = frame.select("open", "high", "low", "close", "volume").to_pandas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        out = ta.add_all_ta_features(table, "open", "high", "low", "close", "volume")
    columns = out.shape[1] - 5
    return len(table) * columns / (time.perf_counter() - start) / 1e6, columns


def memory(num_bars: int) -> float:
    """Highest memory of a fresh process while it computes, by the size of its output."""
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import features_batch as f; f.measure({num_bars})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def highest_bytes() -> int:
    """The highest resident size of this process so far (Linux; getrusage would count the parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def measure(num_bars: int) -> None:
    """Print that ratio for this process."""
    from barcast.features import compute

    frame = bars(num_bars)
    calendar = Calendar.of("24/7")
    compute(frame.group_by("symbol").head(300), interval="5m", calendar=calendar)
    before = highest_bytes()
    out = compute(frame, interval="5m", calendar=calendar)
    print((highest_bytes() - before) / out.estimated_size())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=52_416, help="bars per symbol")
    num_bars = parser.parse_args().bars
    frame = bars(num_bars)
    one = frame.filter(pl.col("symbol") == frame["symbol"][0])
    theirs, columns = peer(one)
    from barcast.features import feature_names

    print(f"{frame.height:,} bars; ours {len(feature_names('5m'))} features, ta {columns} columns")
    report(
        "features_batch",
        [
            row("all features, 9 symbols", ours(frame, 3), theirs, "M cells/s"),
            row("all features, 1 symbol", ours(one, 3), theirs, "M cells/s"),
            row("highest memory by output", memory(num_bars), None, "times"),
        ],
    )


if __name__ == "__main__":
    main()

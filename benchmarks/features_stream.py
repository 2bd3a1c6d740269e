"""From one closed bar to a full row of features: one symbol, fifty together, after 1,000 and 1,000,000 bars of history.

TA-Lib has no step: in a stream its indicators are computed anew over the bars that their recursions need (500, so that
an RSI agrees with whole history to 1e-8). What that costs for its indicators alone stands beside ours for all features.

    python benchmarks/features_stream.py [--longest N]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import polars as pl
from _common import report, row

from barcast.bars.calendar import Calendar
from barcast.features import StreamEngine

TALIB_BARS = 500
# TA-Lib's indicators that are among our features: inputs (open, high, low, close, volume) and periods.
TALIB: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    *(("SMA", "c", (n,)) for n in (10, 20, 50, 100)), *(("EMA", "c", (n,)) for n in (10, 20, 50)),
    *(("RSI", "c", (n,)) for n in (7, 14, 21)), *(("CCI", "hlc", (n,)) for n in (14, 20)),
    *((name, "c", (20,)) for name in ("WMA", "TRIMA", "HMA", "DEMA", "TEMA", "DPO", "BBANDS", "STDDEV")),
    ("KAMA", "c", (10,)), ("VWMA", "cv", (20,)), ("MACD", "c", (12, 26, 9)), ("TRIX", "c", (15,)),
    *((name, "hlc", (14,)) for name in ("ADX", "PLUS_DI", "MINUS_DI", "DX", "VORTEX", "WILLR", "ATR", "NATR")),
    ("AROON", "hl", (25,)), ("SAR", "hl", ()), ("DONCHIAN", "hl", (20,)), ("MIDPRICE", "hl", (9,)),
    ("MIDPRICE", "hl", (26,)), ("VHF", "c", (28,)), ("STOCHRSI", "c", (14, 14, 1, 0)), ("ROC", "c", (14,)),
    ("MOM", "c", (10,)), ("TSI", "c", (25, 13)), ("COPPOCK", "c", (10, 11, 14)), ("STOCH", "hlc", (14, 3, 0, 3, 0)),
    ("ULTOSC", "hlc", (7, 14, 28)), ("AO", "hl", (5, 34)), ("AC", "hl", (5, 34, 5)), ("BOP", "ohlc", ()),
    ("IMI", "oc", (14,)), ("ERI", "hlc", (13,)), ("QSTICK", "oc", (10,)), ("SMI", "hlc", (14, 3, 3, 3)),
    ("TRANGE", "hlc", ()), ("KC", "hlc", (20, 14, 2)), ("CVI", "hl", (10, 10)), ("RVI", "c", (14, 10)),
    ("MASSI", "hl", (9, 25)), ("ACCBANDS", "hlc", (20,)), ("OBV", "cv", ()), ("VWAP", "hlcv", ()),
    ("CMF", "hlcv", (20,)), ("EFI", "cv", (13,)), ("MFI", "hlcv", (14,)), ("ADOSC", "hlcv", (3, 10)),
    ("AD", "hlcv", ()), ("PVO", "v", (12, 26)), ("PVT", "cv", ()), ("RVOL", "v", (20,)), ("NVI", "cv", ()),
    ("PVI", "cv", ()), ("MARKETFI", "hlv", ()), ("CORREL", "cv", (20,)), ("ER", "c", (10,)), ("ER", "c", (50,)),
    ("LINEARREG_SLOPE", "c", (20,)), ("LINEARREG_SLOPE", "c", (50,)),
)  # fmt: skip
START_US = 1_577_836_800_000_000  # 2020-01-01
STEP_US = 60_000_000


def bars(symbols: int, first: int, count: int, seed: int = 0) -> pl.DataFrame:
    """One-minute bars number `first` to `first + count` of each symbol."""
    random = np.random.default_rng(seed + first)
    times = START_US + STEP_US * np.arange(first + 1, first + 1 + count)
    frames = []
    for s in range(symbols):
        close = 100 * np.exp(np.cumsum(random.normal(0, 1e-3, count)))
        open_ = close * np.exp(random.normal(0, 5e-4, count))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": f"S{s:03d}",
                    "event_timestamp": times,
                    "created_timestamp": times,
                    "open": open_,
                    "high": np.maximum(open_, close) * 1.001,
                    "low": np.minimum(open_, close) * 0.999,
                    "close": close,
                    "volume": random.lognormal(5, 1, count),
                }
            )
        )
    stamps = [pl.col(n).cast(pl.Datetime("us", "UTC")) for n in ("event_timestamp", "created_timestamp")]
    return pl.concat(frames).with_columns(stamps)


def warmed(symbols: int, history: int) -> StreamEngine:
    """An engine that has seen `history` bars per symbol."""
    engine = StreamEngine("1m", Calendar.of("24/7"))
    done = 0
    while done < history:  # in pieces: the features of history are not kept
        count = min(20_000, history - done)
        engine.warm(bars(symbols, done, count))
        done += count
    return engine


def update_ms(engines: dict[str, tuple[StreamEngine, int, int]], updates: int) -> dict[str, list[float]]:
    """Milliseconds of each update. The engines (engine, symbols, history) take turns."""
    moments = {
        name: bars(symbols, history, updates + 50).partition_by("event_timestamp", maintain_order=True)
        for name, (_, symbols, history) in engines.items()
    }
    out: dict[str, list[float]] = {name: [] for name in engines}
    for k in range(updates + 50):
        for name, (engine, _, _) in engines.items():
            start = time.perf_counter()
            engine.update(moments[name][k])
            out[name].append((time.perf_counter() - start) * 1e3)
    return {name: values[50:] for name, values in out.items()}


def talib_ms(repeats: int) -> float:
    """Milliseconds, median, of TA-Lib's indicators over the last bars of one symbol."""
    import talib

    frame = bars(1, 0, TALIB_BARS)
    arrays = {name[0]: frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    calls = [(getattr(talib, name), [arrays[k] for k in keys], periods) for name, keys, periods in TALIB]
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        for function, inputs, periods in calls:
            function(*inputs, *periods)
        spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longest", type=int, default=1_000_000, help="bars of the longest history")
    longest = parser.parse_args().longest
    spent = update_ms(
        {"short": (warmed(1, 1_000), 1, 1_000), "long": (warmed(1, longest), 1, longest)}, 1_000
    )
    fifty = update_ms({"fifty": (warmed(50, 1_000), 50, 1_000)}, 200)["fifty"]
    short, long = statistics.median(spent["short"]), statistics.median(spent["long"])
    results = [
        row("1 symbol, median", short, None, "ms"),
        row("1 symbol, 99th percentile", float(np.percentile(spent["short"], 99)), None, "ms"),
        row(
            f"50 symbols together, per symbol (peer: {len(TALIB)} indicators by TA-Lib)",
            statistics.median(fifty) / 50,
            talib_ms(300),
            "ms",
            higher_is_better=False,
        ),
        row(
            f"1 symbol after {longest:,} bars (peer: after 1,000)", long, short, "ms", higher_is_better=False
        ),
    ]
    report("features_stream", results)


if __name__ == "__main__":
    main()

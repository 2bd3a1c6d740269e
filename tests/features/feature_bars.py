"""Made-up bars of every kind, and the two ways of computing their features."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from barcast import intervals
from barcast.features import StreamEngine

START = datetime(2024, 3, 1, tzinfo=UTC)


def make_bars(
    symbols: int = 3,
    count: int = 300,
    interval: str = "5m",
    seed: int = 0,
    *,
    missing: float = 0.0,
    volatility: float = 0.004,
    zero_volume: float = 0.0,
    late_start: int = 0,
    tick: float = 0.0,
    start: datetime = START,
) -> pl.DataFrame:
    """Correlated random walks with real-looking bars; `missing` of them dropped, the last symbol beginning late."""
    random = np.random.default_rng(seed)
    step = intervals.parse(interval)
    market = random.standard_t(4, count) * volatility * 0.7
    times = [start + step * (k + 1) for k in range(count)]
    frames = []
    for s in range(symbols):
        returns = market + random.standard_t(4, count) * volatility * (0.3 + 0.2 * s)
        close = 10.0 ** (s % 4) * 7.0 * np.exp(np.cumsum(np.clip(returns, -0.5, 0.5)))
        open_ = np.append(close[0], close[:-1]) * np.exp(random.normal(0, volatility / 5, count))
        high = np.maximum(open_, close) * np.exp(random.random(count) * volatility)
        low = np.minimum(open_, close) * np.exp(-random.random(count) * volatility)
        volume = random.lognormal(4, 1, count) * (random.random(count) >= zero_volume)
        if tick:
            open_, high, low, close = (
                np.maximum(np.round(v / tick), 1) * tick for v in (open_, high, low, close)
            )
        frame = pl.DataFrame(
            {
                "symbol": f"S{s}",
                "event_timestamp": times,
                "created_timestamp": times,
                "open": open_,
                "high": high,
                "low": low,
                "close": close,
                "volume": volume,
            }
        )
        keep = random.random(count) >= missing
        if s == symbols - 1 and late_start:
            keep[:late_start] = False
        frames.append(frame.filter(pl.Series(keep)))
    stamps = [pl.col(n).cast(pl.Datetime("us", "UTC")) for n in ("event_timestamp", "created_timestamp")]
    return pl.concat(frames).with_columns(stamps)


def differences(a: pl.DataFrame, b: pl.DataFrame) -> list[str]:
    """Features in which two frames differ by more than 1e-6 relative, or in what is null."""
    assert a.columns == b.columns
    assert a["symbol"].equals(b["symbol"])
    assert a["event_timestamp"].equals(b["event_timestamp"])
    assert a["created_timestamp"].equals(b["created_timestamp"])
    out = []
    for name in a.columns[3:]:
        p, q = a[name].to_numpy(), b[name].to_numpy()
        if not np.allclose(p, q, rtol=1e-6, atol=1e-9, equal_nan=True):
            worst = int(np.nanargmax(np.abs(np.nan_to_num(p, nan=1e9) - np.nan_to_num(q, nan=1e9))))
            out.append(f"{name}: {p[worst]} against {q[worst]} in row {worst}")
    return out


def streamed(engine: StreamEngine, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of an engine that gets the bars time by time."""
    parts = [
        engine.update(part)
        for part in frame.sort("event_timestamp").partition_by("event_timestamp", maintain_order=True)
    ]
    return pl.concat(parts).sort("symbol", "event_timestamp")

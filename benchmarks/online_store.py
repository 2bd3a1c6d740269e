"""Writing a row and its window online, and reading windows: the feature store against Feast's own calls.

    python benchmarks/online_store.py

Ours: `FeatureStore.push` and `.online` on the packed SQLite store. Peer: `feast.FeatureStore.push` (row and window)
and `get_online_features` on Feast's SQLite store. 160 features, windows of 60 bars, embedded stores on this disk.
"""

from __future__ import annotations

import contextlib
import gc
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _common import report, row

START, STEP, LOOKBACK = datetime(2024, 1, 1, tzinfo=UTC), timedelta(minutes=5), 60
NAMES = [f"feature_{i:03d}" for i in range(160)]


def milliseconds(call: Callable[[int], Any], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile of `call(i)`."""
    call(0)
    taken = []
    for i in range(1, repeats + 1):
        begun = time.perf_counter()
        call(i)
        taken.append((time.perf_counter() - begun) * 1e3)
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


def main() -> None:
    warnings.filterwarnings("ignore")
    from feast import FeatureStore as Feast
    from feast import RepoConfig

    from barcast.adapters.feast import FeatureStore
    from barcast.config import Config
    from barcast.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        config = Config.model_validate(
            {
                "workspace": "benchmark",
                "interval": "5m",
                "universe": {"calendar": "24/7"},
                "source": {"kind": "simulator"},
            }
        )
        ours = FeatureStore(Workspace("benchmark", base), config, NAMES)
        ours.apply()
        peer = Feast(
            config=RepoConfig(
                project="benchmark",
                provider="local",
                registry=str(base / "peer.db"),
                online_store={"type": "sqlite", "path": str(base / "peer_online.db")},
                offline_store={"type": "dask"},
                entity_key_serialization_version=3,
            )
        )
        with contextlib.redirect_stdout(io.StringIO()):
            peer.apply(ours.definitions.objects())
        gc.collect()
        gc.freeze()  # as a serving process does after its start; both sides gain
        results = []
        for count in (1, 50):
            symbols = [f"S{i:02d}" for i in range(count)]
            windows = np.random.default_rng(0).standard_normal(
                (count, LOOKBACK, len(NAMES)), dtype=np.float32
            )

            def rows(i: int, symbols: list[str] = symbols, windows: Any = windows) -> pl.DataFrame:
                moment = START + STEP * i
                keys = {"symbol": symbols, "event_timestamp": [moment] * len(symbols)}
                frame = pl.DataFrame(keys).with_columns(created_timestamp="event_timestamp")
                return frame.hstack(pl.DataFrame(windows[:, -1], schema=NAMES))

            def push_peer(i: int, windows: Any = windows, rows: Any = rows) -> None:
                frame = rows(i)
                peer.push("bar_features_push", frame.to_pandas())
                parts = frame.select("symbol", "event_timestamp", "created_timestamp").with_columns(
                    window=pl.Series([w.tobytes() for w in windows]),
                    window_end_us=pl.col("event_timestamp").dt.epoch("us"),
                    window_created_us=pl.col("created_timestamp").dt.epoch("us"),
                )
                peer.push("bar_windows_push", parts.to_pandas())

            def read_peer(_: int, symbols: list[str] = symbols) -> Any:
                return peer.get_online_features(
                    ["bar_windows:window", "bar_windows:window_end_us"], [{"symbol": s} for s in symbols]
                ).to_dict()

            def push_ours(i: int, windows: Any = windows, rows: Any = rows) -> None:
                ours.push(rows(i), windows)

            def read_ours(_: int, symbols: list[str] = symbols) -> Any:
                return ours.online(symbols, as_of=START + STEP)

            for name, fast, slow, repeats in (
                ("push", push_ours, push_peer, 30),
                ("read windows", read_ours, read_peer, 100),
            ):
                mine, theirs = milliseconds(fast, repeats * 5), milliseconds(slow, repeats)
                for i, share in enumerate(("p50", "p99")):
                    label = f"{name}, {count} symbol{'s' if count > 1 else ''}, {share}"
                    results.append(row(label, mine[i], theirs[i], "ms", higher_is_better=False))
            kept = ours.online(symbols, as_of=START + STEP)
            answer = read_peer(0)
            for i, symbol in enumerate(symbols):
                if answer["window"][i] != kept[symbol].window.tobytes():
                    raise SystemExit(f"The two stores keep different windows of {symbol}.")
    report("online_store", results)


if __name__ == "__main__":
    main()

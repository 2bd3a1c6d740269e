"""Point-in-time retrieval through Feast: the Polars offline store against Feast's DuckDB store, then at size.

    python benchmarks/offline_store.py                # both parts
    python benchmarks/offline_store.py --only peer    # against DuckDB, at most four times --peer-seconds
    python benchmarks/offline_store.py --only alone   # a million entity rows from ten million

Both sides read the same Parquet file of 80,000 rows x 160 features through Feast's
`get_historical_features(...).to_arrow()` and must give the same values: without a TTL (Feast's default) and with
one shorter than a bar, which spares DuckDB most of its join. DuckDB may use `--peer-gib` of memory (it spills to
disk beyond; unlimited it takes 20 GiB) and `--peer-seconds` for one retrieval: what takes longer is stopped, its row
says so, and its ratio is a lower bound. The large form runs in a process of its own, which reports its peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from _common import report, row

START = datetime(2023, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
FEATURES = [f"feature_{i:03d}" for i in range(160)]
TTL, FOREVER = timedelta(minutes=4), timedelta(0)
POLARS = "barcast.adapters.polars_offline_store.PolarsOfflineStore"


def rows_of(symbol: int, num_rows: int) -> pa.Table:
    """Random features of one symbol, a row each five minutes."""
    rng = np.random.default_rng(symbol)
    times = pl.datetime_range(START, START + STEP * (num_rows - 1), STEP, time_unit="us", eager=True)
    keys = pl.DataFrame(
        {"symbol": [f"S{symbol:03d}"] * num_rows, "event_timestamp": times, "created_timestamp": times}
    )
    values = rng.standard_normal((num_rows, len(FEATURES)), dtype=np.float32)
    return keys.hstack(pl.DataFrame(values, schema=FEATURES)).to_arrow(compat_level=pl.CompatLevel.oldest())


def entities_of(num: int, num_symbols: int, num_rows: int) -> Any:
    """Random symbols and bar closes, as pandas."""
    rng = np.random.default_rng(1)
    times = pl.Series(rng.integers(0, num_rows, num)) * int(STEP.total_seconds() * 1e6)
    return pl.DataFrame(
        {
            "position": np.arange(num),
            "symbol": [f"S{i:03d}" for i in rng.integers(0, num_symbols, num)],
            "event_timestamp": pl.select(pl.lit(START) + times.cast(pl.Duration("us"))).to_series(),
        }
    ).to_pandas()


def store_of(folder: Path, source: Path, offline: str, ttl: timedelta) -> Any:
    """A Feast project over one Parquet source."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.data_format import ParquetFormat
    from feast.types import Float32, String
    from feast.value_type import ValueType

    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(folder / f"{offline[-6:]}{ttl.seconds}.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": offline},
            entity_key_serialization_version=3,
        )
    )
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    view = FeatureView(
        name="rows",
        entities=[symbol],
        ttl=ttl,
        schema=[Field(name="symbol", dtype=String), *(Field(name=n, dtype=Float32) for n in FEATURES)],
        source=FileSource(
            path=str(source),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
    )
    store.apply([symbol, view])
    return store


def retrieve(store: Any, entities: Any) -> tuple[float, pl.DataFrame]:
    """Seconds of one retrieval, and its rows in the order of the entities."""
    begun = time.perf_counter()
    table = store.get_historical_features(
        entity_df=entities.copy(), features=[f"rows:{name}" for name in FEATURES]
    ).to_arrow()
    seconds = time.perf_counter() - begun
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return seconds, frame.sort("position")


def within(seconds: float, retrieval: Any) -> tuple[float, pl.DataFrame | None]:
    """Seconds and rows of DuckDB's retrieval, or the limit and None where it was stopped."""
    import ibis

    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        ibis.get_backend().con.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        return retrieval()
    except Exception:
        if not stopped.is_set():
            raise
        return seconds, None
    finally:
        timer.cancel()


def against_duckdb(folder: Path, *, peer_gib: float, peer_seconds: float) -> list[dict[str, Any]]:
    import ibis

    engine = ibis.get_backend()  # the connection that Feast's DuckDB store uses
    engine.raw_sql(f"SET memory_limit = '{peer_gib:g}GiB'")
    engine.raw_sql(f"SET temp_directory = '{folder / 'spill'}'")
    num_symbols, num_rows = 8, 10_000
    source = folder / "rows.parquet"
    pq.write_table(pa.concat_tables([rows_of(i, num_rows) for i in range(num_symbols)]), source)
    results = []
    for ttl, num in ((TTL, 2_000), (TTL, 10_000), (FOREVER, 2_000), (FOREVER, 10_000)):
        ours, duckdb = (store_of(folder, source, kind, ttl) for kind in (POLARS, "duckdb"))
        for store in (ours, duckdb):  # imports and first use are no part of either side
            retrieve(store, entities_of(10, num_symbols, num_rows))
        entities = entities_of(num, num_symbols, num_rows)
        seconds, answer = min((retrieve(ours, entities) for _ in range(3)), key=lambda r: r[0])
        peer, expected = within(peer_seconds, partial(retrieve, duckdb, entities))
        if expected is not None and not answer.select(FEATURES).equals(expected.select(FEATURES)):
            raise SystemExit(f"The two stores differ at {num} entity rows.")
        name = f"{num} of 80000 rows x 160, {'TTL' if ttl else 'no TTL'}"
        if expected is None:
            name += ", DuckDB stopped"
        results.append(row(name, seconds, peer, "s", higher_is_better=False))
        print(json.dumps(results[-1]), flush=True)
    return results


def write_large(folder: Path, num_symbols: int, num_rows: int) -> None:
    """A folder of Parquet files, one a symbol, as the store writes them."""
    from barcast.adapters.polars_offline_store import files

    for symbol in range(num_symbols):
        files.write(folder / f"part-{symbol:08d}-00000000.parquet", rows_of(symbol, num_rows))


def read_large(folder: Path, num: int, num_symbols: int, num_rows: int) -> None:
    """Retrieve, check some answers, print seconds and this process's peak memory."""
    store = store_of(folder, folder / "rows", POLARS, TTL)
    entities = entities_of(num, num_symbols, num_rows)
    begun = time.perf_counter()
    table = store.get_historical_features(
        entity_df=entities, features=[f"rows:{name}" for name in FEATURES]
    ).to_arrow()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    nulls = sum(table[name].null_count for name in FEATURES)
    if table.num_rows != num or nulls:
        raise SystemExit(f"{table.num_rows} rows and {nulls} nulls came back for {num} entity rows.")
    for i in range(0, num, num // 5):
        whole = rows_of(int(entities["symbol"][i][1:]), num_rows)
        place = int((entities["event_timestamp"][i] - START) / STEP)
        if any(table[n][i].as_py() != whole[n][place].as_py() for n in FEATURES):
            raise SystemExit(f"Entity row {i} got another row's values.")
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def alone(folder: Path, num: int) -> list[dict[str, Any]]:
    """`num` entity rows from ten times as many, a hundred symbols."""
    num_symbols, num_rows = 100, num // 10
    sizes = [str(num_symbols), str(num_rows)]
    for words in (["write", str(folder / "rows"), "0", *sizes], ["read", str(folder), str(num), *sizes]):
        done = subprocess.run(
            [sys.executable, __file__, "--part", *words], check=True, stdout=subprocess.PIPE, text=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"{num} of {num_symbols * num_rows} rows x 160"
    return [
        row(name, found["seconds"], None, "s", higher_is_better=False),
        row(f"{name}: peak memory", found["peak_gib"], None, "GiB", higher_is_better=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["peer", "alone"], help="one part of the two")
    parser.add_argument("--peer-gib", type=float, default=8.0, help="memory that DuckDB may use")
    parser.add_argument("--peer-seconds", type=float, default=240.0, help="DuckDB's limit for one retrieval")
    parser.add_argument("--rows", type=int, default=1_000_000, help="entity rows of the large form")
    parser.add_argument("--part", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if given.part:
        kind, folder, *numbers = given.part
        num, num_symbols, num_rows = map(int, numbers)
        if kind == "write":
            write_large(Path(folder), num_symbols, num_rows)
        else:
            read_large(Path(folder), num, num_symbols, num_rows)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = []
        if given.only != "alone":
            results += against_duckdb(folder, peer_gib=given.peer_gib, peer_seconds=given.peer_seconds)
        if given.only != "peer":
            results += alone(folder, given.rows)
    report("offline_store", results)


if __name__ == "__main__":
    main()

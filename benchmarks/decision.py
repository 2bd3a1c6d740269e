"""From a closed bar to a decision, embedded stores, the model server in its own process.

    python benchmarks/decision.py [--bars 200] [--symbols 1 50]

One step: bars close → streaming features → windows → prediction → decision. Ours hands the windows to the prediction
engine and pushes them to the online store after the answer; the peer pushes them with Feast first and reads them back,
as the usual way has it. Both answer every bar; targets: p99 at most 25 ms for one symbol, 100 ms for 50.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _common import report, row

from barcast.bars import Calendar, adjusted
from barcast.bars.sources.simulator import simulate
from barcast.config import Config
from barcast.serving import memory
from barcast.serving.caches import Window
from barcast.serving.market import MarketBook
from barcast.serving.predictor import Predictor
from barcast.workspace import Workspace

WARM = 400


def export(workspace: Workspace, names: tuple[str, ...], config: Config) -> None:
    """An untrained network of the laptop preset as the live universal model: the time does not depend on
    the weights."""
    from barcast.models.network import Network
    from barcast.models.presets import architecture
    from barcast.models.savedmodel import export as write

    shape = architecture(config.model, num_features=len(names), lookback_bars=config.lookback_bars)
    name = f"{config.workspace}.universal"
    folder = workspace.models / name / "1"
    folder.parent.mkdir(parents=True)
    serving = {"feature_names": names, "symbol_ids": {}, "model_kind": "network"}
    mean = np.zeros(len(names), np.float32)
    write(
        Network(shape, seed=1).build_once(),
        folder,
        mean=mean,
        extra={"serving.json": json.dumps(serving).encode()},
    )
    (workspace.models / "models.config").write_text(
        f'model_config_list {{ config {{ name: "{name}" base_path: "{folder.parent}" model_platform: "tensorflow" '
        'model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 } } }\n'
    )


def measure(
    predictor: Predictor, store: Any, bars: pl.DataFrame, names: tuple[str, ...], *, push_first: bool
) -> Any:
    """(N, 3) milliseconds per bar: features, answer, and the whole way from close to decision."""
    from barcast.features import StreamEngine

    config = predictor.config
    times = bars["event_timestamp"].unique().sort()
    history = bars.filter(pl.col("event_timestamp") <= times[WARM - 1])
    engine = StreamEngine(config.interval, Calendar.of("24/7"), config.features)
    rows = engine.warm(adjusted(history)).sort("symbol", "event_timestamp")
    tails = {
        str(part["symbol"][0]): part.tail(config.lookback_bars).select(names).to_numpy().astype(np.float32)
        for part in rows.partition_by("symbol")
    }
    predictor.book = predictor.chain.book = predictor.windows._book = MarketBook(config.interval)
    predictor.book.update(history)
    live = bars.filter(pl.col("event_timestamp") > times[WARM - 1]).sort("event_timestamp", "symbol")
    memory.prepare()  # as whoever answers in the product does
    taken = []
    for closed in live.partition_by("event_timestamp", maintain_order=True):
        start = time.perf_counter()
        fresh = engine.update(adjusted(closed))
        values = fresh.select(names).to_numpy().astype(np.float32)
        symbols = fresh["symbol"].to_list()
        for symbol, new in zip(symbols, values, strict=True):
            tails[symbol] = np.concatenate([tails[symbol][1:], new[None]])
        stacked = np.stack([tails[s] for s in symbols])
        computed = time.perf_counter()
        if push_first:
            predictor.book.update(closed)
            store.push(fresh, stacked)
        else:
            at = closed["event_timestamp"][0]
            predictor.observe(closed, [Window.of(s, at, w) for s, w in zip(symbols, stacked, strict=True)])
        answers = predictor.predict(symbols)
        done = time.perf_counter()
        if not push_first:
            store.push(fresh, stacked)
        bad = [a.reason or a.fallback for a in answers if a.fallback is not None or a.decision is None]
        if bad:
            raise SystemExit(f"not answered by the model: {bad[0]}")
        taken.append(((computed - start) * 1e3, (done - computed) * 1e3, (done - start) * 1e3))
    return np.array(taken[5:])


def one_way(count: int, num_bars: int, *, push_first: bool) -> Any:
    """As `measure`, with stores and server of its own: a store that has met later rows would answer with them."""
    from barcast.adapters.feast import FeatureStore
    from barcast.features import feature_names
    from barcast.serving.model_server import start

    with tempfile.TemporaryDirectory() as folder:
        config = Config(workspace="bench", interval="5m")
        workspace = Workspace("bench", Path(folder))
        names = tuple(feature_names(config.interval, config.features))
        export(workspace, names, config)
        store = FeatureStore(workspace, config)
        store.apply()
        bars = simulate(count, WARM + num_bars + 5, config.interval, 7)
        flags = config.model_server.flags(workspace.models / "models.config", config.serving.batch_sizes)
        with start(**{**flags, "port": 0, "timeout_seconds": 600}) as server:
            book = MarketBook(config.interval)
            with Predictor(workspace, config, server.endpoint, book=book) as predictor:
                return measure(predictor, store, bars, names, push_first=push_first)


def main() -> None:
    """Run both ways for each number of symbols."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=200)
    parser.add_argument("--symbols", type=int, nargs="+", default=[1, 50])
    options = parser.parse_args()
    results = []
    for count in options.symbols:
        ours, peer = (one_way(count, options.bars, push_first=way) for way in (False, True))
        for quantile in (50, 99):
            a, b = (float(np.percentile(x[:, 2], quantile)) for x in (ours, peer))
            name = f"closed bar to decision, {count} symbol(s), p{quantile}"
            results.append(row(name, a, b, "ms", higher_is_better=False))
        name = f"of which features, {count} symbol(s), p50"
        results.append(row(name, float(np.median(ours[:, 0])), None, "ms"))
    report("decision", results)


if __name__ == "__main__":
    main()

"""Load: minutes at 80% of capacity, first through the gateway, then straight at the model server.

    python benchmarks/load.py [--gateway-seconds 600] [--server-seconds 120]

Capacity is measured first, with clients that ask again as soon as they are answered. Then requests arrive at a fixed
rate of 80% of it, whether or not the ones before are answered, and a request's time counts from its arrival. Both
servers run in their own processes, as a user starts them; the gateway keeps no answers (`cache_predictions: 0`), so
that every prediction goes on to the model server over gRPC. 85% of the requests ask for one symbol, 5% for all, 10%
report a trade; bars close all the while. Targets: no error, no answer by a fallback, no growth of memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import yaml
from _common import report, row
from decision import export

from serving import export_network, window

SYMBOLS, HISTORY, CONNECTIONS = 10, 700, 16
BAR_SECONDS = 5.0
SHARE = 0.8
Ask = Callable[[], Awaitable[str]]
"""One request; an empty text when all is well, else what was wrong."""


@dataclass
class Seen:
    """What came back: seconds from arrival to answer, and what was wrong, by its text."""

    seconds: list[float] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=dict)

    def add(self, began: float, fault: str) -> None:
        self.seconds.append(time.perf_counter() - began)
        if fault:
            self.wrong[fault] = self.wrong.get(fault, 0) + 1


async def one_answer(ask: Ask, seen: Seen, arrived: float) -> None:
    try:
        fault = await ask()
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"[:100]
    seen.add(arrived, fault)


async def at_capacity(asks: list[Ask], seconds: float) -> float:
    """Requests a second when each client asks again as soon as it has its answer."""
    seen, until = Seen(), time.perf_counter() + seconds

    async def client(ask: Ask) -> None:
        while (now := time.perf_counter()) < until:
            await one_answer(ask, seen, now)

    began = time.perf_counter()
    await asyncio.gather(*(client(ask) for ask in asks))
    if seen.wrong:
        raise SystemExit(f"errors while capacity was measured: {seen.wrong}")
    return len(seen.seconds) / (time.perf_counter() - began)


async def at_rate(asks: list[Ask], rate: float, seconds: float) -> Seen:
    """Requests arrive evenly at `rate` a second; one that finds no free connection waits for one."""
    free: asyncio.Queue[Ask] = asyncio.Queue()
    for ask in asks:
        free.put_nowait(ask)
    seen, tasks = Seen(), set()

    async def arrival(arrived: float) -> None:
        ask = await free.get()
        await one_answer(ask, seen, arrived)
        free.put_nowait(ask)

    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.ensure_future(arrival(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return seen


class Memory(threading.Thread):
    """Resident memory of processes, MiB, every half second."""

    def __init__(self, **pids: int) -> None:
        super().__init__(daemon=True)
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.seen: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.5):
            for name, process in self._processes.items():
                self.seen[name].append((time.monotonic(), process.memory_info().rss / 2**20))

    def growth(self, name: str) -> tuple[float, float]:
        """(MiB at the end, MiB a minute over the second half: what comes first is warming up)."""
        half = self.seen[name][len(self.seen[name]) // 2 :]
        times, sizes = np.array(half).T
        return float(sizes[-1]), float(np.polyfit((times - times[0]) / 60, sizes, 1)[0])


async def connection(port: int, key: str, make: Callable[[], tuple[str, str, bytes]]) -> Ask:
    """An HTTP connection that stays open; `make` gives method, path and body of the next request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask() -> str:
        method, path, body = make()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(headers.partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await reader.readexactly(length)
        status = headers.split(b" ", 2)[1].decode()
        if status != "200":
            return f"status {status}: {content[:80].decode()}"
        found = json.loads(content)
        for answer in found if isinstance(found, list) else [found]:
            if answer.get("status") == "refused" or answer.get("fallback"):
                return f"fallback: {answer.get('reason') or answer['fallback']['reasons'][:1]}"
        return ""

    return ask


def requests(symbols: list[str]) -> Callable[[], tuple[str, str, bytes]]:
    """The mix of requests, seeded."""
    dice, number = random.Random(5), iter(range(10**9))

    def make() -> tuple[str, str, bytes]:
        drawn = dice.random()
        if drawn < 0.85:
            return "GET", f"/v1/predictions/{dice.choice(symbols)}", b""
        if drawn < 0.90:
            return "GET", "/v1/predictions", b""
        trade = {
            "trade_id": f"t-{next(number)}",
            "symbol": dice.choice(symbols),
            "action": "BUY",
            "entry_price": 100.0,
            "exit_price": 100.0 + dice.uniform(-5, 5),
            "opened_at": "2024-01-10T10:00:00Z",
            "closed_at": "2024-01-10T12:30:00Z",
            "size": 0.1,
        }
        return "POST", "/v1/feedback", json.dumps(trade).encode()

    return make


class Market(threading.Thread):
    """Closes a bar every few seconds: window to the online store first, then the bar to the log and on to the table, as
    the live feed does at each close."""

    def __init__(self, config: Any, workspace: Any, bars: pl.DataFrame, windows: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        from barcast.adapters.feast import FeatureStore
        from barcast.bars.ingest import open_store
        from barcast.bars.live import open_log

        self._features, self._bars = FeatureStore(workspace, config), open_store(config, workspace)
        self._log = open_log(config, workspace)
        self._parts = bars.partition_by("event_timestamp", maintain_order=True)
        self._windows = windows
        self.closed = 0
        self.done = threading.Event()

    def run(self) -> None:
        for part in self._parts:
            if self.done.wait(BAR_SECONDS):
                return
            self.close_bar(part)
            self.closed += 1

    def close_bar(self, part: pl.DataFrame) -> None:
        symbols = part["symbol"].to_list()
        stacked = np.stack([self._windows[s] for s in symbols])
        names = self._features.names
        rows = pl.DataFrame(stacked[:, -1], schema=dict.fromkeys(names, pl.Float32))
        keys = part.select("symbol", "event_timestamp", "created_timestamp")
        self._features.push(keys.hstack(rows), stacked)
        self._log.append(part)
        self._log.flush(self._bars)


@contextmanager
def gateway(root: Path, config: Path, endpoint: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """`barcast gateway serve` in its own process: process, port, a key that may write."""
    barcast = str(Path(sys.executable).with_name("barcast"))
    environment = {**os.environ, "BARCAST_ROOT": str(root), "BARCAST_CONFIG": str(config)}
    made = [barcast, "gateway", "key", "make", "load", "--role", "write"]
    key = subprocess.run(made, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    command = [barcast, "gateway", "serve", "--port", "0", "--endpoint", endpoint]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise SystemExit(f"the gateway did not start: {line}")
        yield process, int(line.rsplit(":", 1)[1]), key
    finally:
        process.terminate()
        process.wait(30)


def through_the_gateway(seconds: float, probe: float) -> list[dict[str, Any]]:
    """Results for the whole way: gateway, stores, model server."""
    from barcast.bars.sources.simulator import simulate
    from barcast.config import Config
    from barcast.features import feature_names
    from barcast.serving.model_server import start
    from barcast.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = Config(
            workspace="load",
            interval="5m",
            universe={"calendar": "24/7"},
            source={"kind": "simulator"},
            gateway={"requests_per_minute": 10_000_000, "burst": 10_000_000},
            serving={"cache_predictions": 0},
        )
        written = root / "load.yaml"
        written.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude={"storage"})))
        workspace = Workspace("load", root)
        names = tuple(feature_names(config.interval, config.features))
        export(workspace, names, config)
        live = int((seconds + 2 * probe) / BAR_SECONDS) + 20
        bars = simulate(SYMBOLS, HISTORY + live, config.interval, 7).sort("event_timestamp", "symbol")
        cut = bars["event_timestamp"].unique().sort()[HISTORY - 1]
        dice = np.random.default_rng(1)
        symbols = bars["symbol"].unique().sort().to_list()
        shape = (config.lookback_bars, len(names))
        windows = {s: dice.standard_normal(shape).astype(np.float32) for s in symbols}
        market = Market(config, workspace, bars.filter(pl.col("event_timestamp") > cut), windows)
        market._features.apply()
        market._bars.append(bars.filter(pl.col("event_timestamp") < cut))
        market.close_bar(bars.filter(pl.col("event_timestamp") == cut))
        flags = config.model_server.flags(
            workspace.models / "models.config", config.serving.batch_sizes, root / "xla"
        )
        with start(**{**flags, "port": 0}) as server, gateway(root, written, server.endpoint) as door:
            process, port, key = door

            async def run() -> tuple[float, Seen, Memory]:
                make = requests(symbols)
                asks = [await connection(port, key, make) for _ in range(CONNECTIONS)]
                await at_capacity(asks, probe / 2)
                market.start()
                capacity = await at_capacity(asks, probe)
                memory = Memory(gateway=process.pid, server=server.process.pid)
                memory.start()
                seen = await at_rate(asks, SHARE * capacity, seconds)
                memory.done.set()
                market.done.set()
                return capacity, seen, memory

            capacity, seen, memory = asyncio.run(run())
            market.join(30)
    print(f"{market.closed} bars closed; wrong: {seen.wrong or 'nothing'}")
    return results("gateway", capacity, seen, memory)


def at_the_model_server(seconds: float, probe: float) -> list[dict[str, Any]]:
    """Results for Predict over gRPC alone, network C1 at 160 features, batching on."""
    import grpc

    from barcast.serving.client import _request
    from barcast.serving.model_server import start

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c1" / "1"
        export_network(path, preset="standard", features=160)
        body = _request("c1", window(160), None, None, "", ()).SerializeToString()
        with start(models={"c1": path.parent}, enable_batching=True, timeout_seconds=900) as server:

            async def run() -> tuple[float, Seen, Memory]:
                async with grpc.aio.insecure_channel(server.endpoint) as channel:
                    predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

                    async def ask() -> str:
                        await predict(body, timeout=30)
                        return ""

                    asks: list[Ask] = [ask] * (2 * CONNECTIONS)
                    await at_capacity(asks, probe / 2)
                    capacity = await at_capacity(asks, probe)
                    memory = Memory(server=server.process.pid)
                    memory.start()
                    seen = await at_rate(asks, SHARE * capacity, seconds)
                    memory.done.set()
                    return capacity, seen, memory

            capacity, seen, memory = asyncio.run(run())
    print(f"model server: wrong: {seen.wrong or 'nothing'}")
    return results("model server", capacity, seen, memory)


def results(name: str, capacity: float, seen: Seen, memory: Memory) -> list[dict[str, Any]]:
    found = [
        row(f"{name}: capacity", capacity, None, "requests/s"),
        row(f"{name}: requests at {SHARE:.0%} of it", float(len(seen.seconds)), None, "requests"),
        row(f"{name}: errors and fallbacks (target 0)", float(sum(seen.wrong.values())), None, "requests"),
    ]
    for q in (50, 99, 99.9):
        milliseconds = float(np.percentile(seen.seconds, q) * 1e3)
        found.append(row(f"{name}: p{q}", milliseconds, None, "ms", higher_is_better=False))
    for process in memory.seen:
        size, growth = memory.growth(process)
        found.append(row(f"{name}: memory of the {process} process", size, None, "MiB"))
        found.append(row(f"{name}: its growth over the second half", growth, None, "MiB/minute"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway-seconds", type=float, default=600.0)
    parser.add_argument("--server-seconds", type=float, default=120.0)
    parser.add_argument(
        "--probe-seconds", type=float, default=15.0, help="length of the capacity measurement"
    )
    options = parser.parse_args()
    found = []
    if options.gateway_seconds:
        found += through_the_gateway(options.gateway_seconds, options.probe_seconds)
    if options.server_seconds:
        found += at_the_model_server(options.server_seconds, options.probe_seconds)
    report("load", found)


if __name__ == "__main__":
    main()

"""One-sample latency and the rate of 32 concurrent clients: in-process, embedded model server, LitServe.

The network C1 at 160 features; each server in its own process, one at a time; clients as light as they can be (ready
bytes out, raw bytes in), so that the servers are measured. Targets: one-sample p50 at most the in-process call + 1.5
ms; 32 clients at least 80% of the in-process batched rate. That rate is one loop of the best batch size, alone on the
machine; the server has one batch thread to answer it with, and shares the cores with the clients. Batches of half the
clients let one batch run while the answers to the last one travel. In-process and served are measured in turn, and the
median over the rounds counts (of the share, its quartiles too): a shared machine may be half as quick a minute later.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from _common import report, row

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
CLIENTS = 32
BATCH_SIZES = (1, 8, 16)
LOOP_SIZES = (1, 16, 32)
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


def export_network(path: Path, *, preset: str, features: int) -> None:
    """The network C1, untrained (speed does not depend on the weights), as the SavedModel that is served."""
    from barcast.config.models import ModelConfig
    from barcast.models.network import Network
    from barcast.models.presets import architecture
    from barcast.models.savedmodel import export

    shape = architecture(ModelConfig(preset=preset), num_features=features, lookback_bars=60)
    export(Network(shape, seed=1).build_once(), path, mean=np.zeros(features, np.float32))


def window(features: int, rows: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    return {
        "window": generator.standard_normal((rows, 60, features)).astype(np.float32),
        "symbol_id": np.zeros(rows, np.int32),
    }


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


def percentile(seconds: list[float], q: float) -> float:
    return float(np.percentile(seconds, q) * 1e3)


_ALONE = """
import json, sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from serving import LOOP_SIZES, percentile, window
from barcast.serving.model_server.saved_model import SessionSettings
from barcast.serving.model_server.servable import Servable
threads = SessionSettings(1)  # as the server's; the twin below is quicker with one thread than with two
threads.apply_to_process()
servable = Servable("m", 1, Path(sys.argv[1]), batch_sizes=LOOP_SIZES, settings=threads)
outputs = sorted(servable.signatures["serving_default"].outputs)
inputs = {size: window(int(sys.argv[2]), size) for size in LOOP_SIZES}
for line in sys.stdin:
    seconds, times, rates, costs = float(line), [], [], []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        servable.run("serving_default", inputs[1], outputs)
        times.append(time.perf_counter() - began)
    for size in LOOP_SIZES[1:]:
        count, began, spent = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < began + seconds:
            servable.run("serving_default", inputs[size], outputs)
            count += size
        rates.append(count / (time.perf_counter() - began))
        costs.append((time.process_time() - spent) / count * 1e6)
    print(json.dumps([percentile(times, 50), max(rates), min(costs)]), flush=True)
"""


class InProcess:
    """The model in a process that does nothing else, and nothing between two measurements."""

    def __init__(self, path: Path, features: int) -> None:
        command = [sys.executable, "-c", _ALONE, str(path), str(features), str(Path(__file__).parent)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def measure(self, seconds: float) -> list[float]:
        """[p50 of one sample in ms, most samples/s in batches, processor time a sample of a batch in µs]."""
        assert self.process.stdin
        assert self.process.stdout
        print(seconds, file=self.process.stdin, flush=True)
        found: list[float] = json.loads(self.process.stdout.readline())
        return found

    def __enter__(self) -> InProcess:
        self.measure(0.1)  # loaded, compiled, warm
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


Call = Callable[[], Awaitable[None]]


async def _load(
    open_call: Callable[[], Awaitable[tuple[Call, Callable[[], Any]]]], clients: int, seconds: float
) -> Any:
    """Latencies (s) and rate (1/s) of `clients` that each ask again as soon as they have an answer."""
    opened = [await open_call() for _ in range(clients)]
    times: list[float] = []

    async def client(call: Call, until: float) -> None:
        while time.perf_counter() < until:
            began = time.perf_counter()
            await call()
            times.append(time.perf_counter() - began)

    for until in (time.perf_counter() + min(1.0, seconds / 4),):  # warm up
        await asyncio.gather(*(client(call, until) for call, _ in opened))
    times.clear()
    began = time.perf_counter()
    await asyncio.gather(*(client(call, began + seconds) for call, _ in opened))
    rate = len(times) / (time.perf_counter() - began)
    for _, close in opened:
        closed = close()
        if closed is not None:
            await closed
    return times, rate


def grpc_load(endpoint: str, features: int, clients: int, seconds: float) -> Any:
    import grpc

    from barcast.serving.client import _request

    body = _request("c1", window(features), None, None, "", ()).SerializeToString()

    async def run() -> Any:
        async with grpc.aio.insecure_channel(endpoint) as channel:
            predict = channel.unary_unary(_PREDICT)

            async def open_call() -> tuple[Call, Callable[[], Any]]:
                async def call() -> None:
                    await predict(body, timeout=30)

                return call, lambda: None

            return await _load(open_call, clients, seconds)

    return asyncio.run(run())


def http_load(port: int, features: int, clients: int, seconds: float) -> Any:
    content = json.dumps({"window": base64.b64encode(window(features)["window"].tobytes()).decode()}).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode()

    async def open_call() -> tuple[Call, Callable[[], Any]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def call() -> None:
            writer.write(head + content)
            headers = await reader.readuntil(b"\r\n\r\n")
            length = int(headers.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer = await reader.readexactly(length)
            if b" 200 " not in headers.partition(b"\r\n")[0]:
                raise RuntimeError(answer.decode())

        return call, writer.close

    return asyncio.run(_load(open_call, clients, seconds))


@contextlib.contextmanager
def peer(path: Path) -> Iterator[int]:
    """LitServe with the same SavedModel; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("_serving_peer.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(path), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        import httpx

        until = time.monotonic() + 600
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("LitServe did not start")
            time.sleep(0.5)
        yield port
    finally:
        # LitServe's workers outlive their parent: end those that it started, each by its own id.
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            family = [*parent.children(recursive=True), parent]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(family, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=15, help="in-process and served in turn, so often")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--features", type=int, default=160)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    features, seconds = options.features, options.seconds

    from barcast.serving.model_server import start

    alone: list[list[float]] = []
    single: list[list[float]] = []
    many: list[list[float]] = []
    costs: list[list[float]] = []
    rates: list[float] = []
    peer_single: list[float] = []
    peer_many: list[float] = []
    peer_rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c1" / "1"
        export_network(path, preset=options.preset, features=features)
        parameters = Path(folder) / "batching.config"
        sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)
        parameters.write_text(
            f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}\nbatch_timeout_micros {{ value: 0 }}\n"
            f"num_batch_threads {{ value: 1 }}\nmax_enqueued_batches {{ value: 100 }}\n{sizes}\n"
        )
        served = start(
            models={"c1": path.parent},
            enable_batching=True,
            batching_parameters_file=parameters,
            tensorflow_intra_op_parallelism=1,  # as `barcast serve` sets it
            timeout_seconds=900,
        )
        with InProcess(path, features) as model, served as server:
            pids = (server.process.pid, os.getpid())
            for _ in range(options.rounds):
                alone.append(model.measure(seconds))
                single.append(grpc_load(server.endpoint, features, 1, seconds)[0])
                before, began = [processor_seconds(pid) for pid in pids], time.perf_counter()
                times, rate = grpc_load(server.endpoint, features, CLIENTS, seconds)
                asked = rate * (time.perf_counter() - began)
                after = [processor_seconds(pid) for pid in pids]
                costs.append([(a - b) / asked * 1e6 for a, b in zip(after, before, strict=True)])
                many.append(times)
                rates.append(rate)
        if not options.no_peer:
            with peer(path) as port:
                for _ in range(options.rounds):
                    peer_single += http_load(port, features, 1, seconds)[0]
                    times, rate = http_load(port, features, CLIENTS, seconds)
                    peer_many += times
                    peer_rates.append(rate)
    one_ms, batched, model_us = np.median(alone, axis=0)
    server_us, clients_us = np.median(costs, axis=0)
    over = np.median([percentile(s, 50) - a[0] for s, a in zip(single, alone, strict=True)])
    peer_rate = float(np.median(peer_rates)) if peer_rates else None
    shares = [rate / a[1] for rate, a in zip(rates, alone, strict=True)]
    low, share, high = np.quantile(shares, (0.25, 0.5, 0.75))

    def both(name: str, rounds: list[list[float]], theirs: list[float], q: float) -> dict[str, Any]:
        ours = [one for taken in rounds for one in taken]
        peer_ms = percentile(theirs, q) if theirs else None
        return row(name, percentile(ours, q), peer_ms, "ms", higher_is_better=False)

    report(
        "serving",
        [
            row("in-process one sample p50", float(one_ms), None, "ms", higher_is_better=False),
            row("in-process batched rate", float(batched), None, "samples/s"),
            both("one client p50", single, peer_single, 50),
            both("one client p99", single, peer_single, 99),
            row("over the in-process call (target 1.5)", float(over), None, "ms"),
            both(f"{CLIENTS} clients p50", many, peer_many, 50),
            both(f"{CLIENTS} clients p99", many, peer_many, 99),
            row(f"{CLIENTS} clients rate", float(np.median(rates)), peer_rate, "samples/s"),
            row(
                f"share of the in-process rate (target 0.8) [{low:.2f}, {high:.2f}]", float(share), None, "x"
            ),
            row(
                "processor time a sample, the model alone",
                float(model_us),
                None,
                "µs",
                higher_is_better=False,
            ),
            row(f"processor time a request, server at {CLIENTS} clients", float(server_us), None, "µs"),
            row("processor time a request, the clients", float(clients_us), None, "µs"),
        ],
    )


if __name__ == "__main__":
    main()

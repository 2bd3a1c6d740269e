"""One-sample latency and the rate of 32 concurrent clients: in-process, embedded model server, LitServe.

The network C1 at 160 features; each server in its own process, one at a time, asked by h2load (32 connections, one
request at a time on each). Targets: one-sample p50 at most the in-process call + 1.5 ms; 32 clients at least 80% of the
in-process batched rate. That rate is one loop of the best batch size, alone on the machine; the server has one batch
thread to answer it with, and shares the cores with the clients. Batches of half the clients let one batch run while the
answers to the last one travel. In-process and served are measured in turn, and the median over the rounds counts (of
the share, its quartiles too): a shared machine may be half as quick a minute later. One row is the rate that 32 clients
in one Python process reach, who take four times h2load's processor time from the same two cores.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from _common import report, row
from _h2load import Load, load

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
    size, seconds = int(line.split()[0]), float(line.split()[1])
    times, began, spent = [], time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < began + seconds:
        servable.run("serving_default", inputs[size], outputs)
        times.append(time.perf_counter() - now)
    spent, count = time.process_time() - spent, size * len(times)
    print(json.dumps([percentile(times, 50), count / (time.perf_counter() - began), spent / count * 1e6]), flush=True)
"""


class InProcess:
    """The model in a process that does nothing else, and nothing between two measurements."""

    def __init__(self, path: Path, features: int) -> None:
        command = [sys.executable, "-c", _ALONE, str(path), str(features), str(Path(__file__).parent)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def measure(self, size: int, seconds: float) -> tuple[float, float, float]:
        """Batches of `size` in a loop: p50 of a call in ms, samples/s, processor time a sample in µs."""
        assert self.process.stdin
        assert self.process.stdout
        print(size, seconds, file=self.process.stdin, flush=True)
        found: tuple[float, float, float] = tuple(json.loads(self.process.stdout.readline()))
        return found

    def __enter__(self) -> InProcess:
        for size in LOOP_SIZES:  # loaded, compiled, warm
            self.measure(size, 0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def grpc_load(endpoint: str, features: int, clients: int, seconds: float) -> Load:
    """Load on `Predict`; one question by the library first, so that the answer is known to be right and how long."""
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    from barcast.serving.client import _request

    request = _request("c1", window(features), None, None, "", ())
    with grpc.insecure_channel(endpoint) as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    assert isinstance(answer, predict_pb2.PredictResponse)
    body = request.SerializeToString()
    return load(
        f"http://{endpoint}{_PREDICT}",
        b"\0" + len(body).to_bytes(4, "big") + body,  # gRPC's frame: not compressed, length
        {"content-type": "application/grpc", "te": "trailers"},
        clients=clients,
        seconds=seconds,
        answer_bytes=answer.ByteSize(),
    )


def http_load(port: int, features: int, clients: int, seconds: float) -> Load:
    """Load on LitServe."""
    content = json.dumps({"window": base64.b64encode(window(features)["window"].tobytes()).decode()}).encode()
    url, headers = f"http://127.0.0.1:{port}/predict", {"content-type": "application/json"}
    return load(url, content, headers, clients=clients, seconds=seconds, answer_bytes=2, http1=True)


async def _python_clients(endpoint: str, body: bytes, clients: int, seconds: float) -> float:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        predict = channel.unary_unary(_PREDICT)  # ready bytes out, raw bytes in

        async def client(until: float) -> int:
            count = 0
            while time.perf_counter() < until:
                await predict(body, timeout=30)
                count += 1
            return count

        began = time.perf_counter()
        counts = await asyncio.gather(*(client(began + seconds) for _ in range(clients)))
        return sum(counts) / (time.perf_counter() - began)


def python_rate(endpoint: str, features: int, clients: int, seconds: float) -> float:
    """Answers per s to as many clients of one Python process, on the same cores, as barcast's own gateway is one."""
    from barcast.serving.client import _request

    body = _request("c1", window(features), None, None, "", ()).SerializeToString()
    return asyncio.run(_python_clients(endpoint, body, clients, seconds))


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

    one: list[float] = []
    loops: dict[int, list[tuple[float, float, float]]] = {size: [] for size in LOOP_SIZES[1:]}
    single: list[Load] = []
    many: list[Load] = []
    server_us: list[float] = []
    python: list[float] = []
    peer_single: list[Load] = []
    peer_many: list[Load] = []
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
            for _ in range(options.rounds):
                one.append(model.measure(1, seconds)[0])
                single.append(grpc_load(server.endpoint, features, 1, seconds))
                for size, found in loops.items():
                    found.append(model.measure(size, seconds))
                before = processor_seconds(server.process.pid)
                many.append(grpc_load(server.endpoint, features, CLIENTS, seconds))
                spent = processor_seconds(server.process.pid) - before
                server_us.append(spent / many[-1].answers * 1e6)
                python.append(python_rate(server.endpoint, features, CLIENTS, seconds))
        if not options.no_peer:
            with peer(path) as port:
                for _ in range(options.rounds):
                    peer_single.append(http_load(port, features, 1, seconds))
                    peer_many.append(http_load(port, features, CLIENTS, seconds))
    over = np.median([percentile(s.times, 50) - ms for s, ms in zip(single, one, strict=True)])
    # The better size over all rounds: the better of each round would be the luckier one.
    alone = max(loops.values(), key=lambda found: float(np.median([rate for _, rate, _ in found])))
    _, batched, model_us = np.median(alone, axis=0)
    shares = [taken.rate / rate for taken, (_, rate, _) in zip(many, alone, strict=True)]
    low, share, high = np.quantile(shares, (0.25, 0.5, 0.75))
    python_share = np.median([theirs / rate for theirs, (_, rate, _) in zip(python, alone, strict=True)])

    def both(name: str, rounds: list[Load], theirs: list[Load], q: float) -> dict[str, Any]:
        ours = percentile([one for taken in rounds for one in taken.times], q)
        peer_ms = percentile([one for taken in theirs for one in taken.times], q) if theirs else None
        return row(name, ours, peer_ms, "ms", higher_is_better=False)

    def rate(loads: list[Load]) -> float | None:
        return float(np.median([taken.rate for taken in loads])) if loads else None

    def client_us(loads: list[Load]) -> float | None:
        return float(np.median([t.client_seconds / t.answers for t in loads])) * 1e6 if loads else None

    def cost(name: str, ours: float | None, theirs: float | None = None) -> dict[str, Any]:
        return row(name, ours, theirs, "µs", higher_is_better=False)

    report(
        "serving",
        [
            row("in-process one sample p50", float(np.median(one)), None, "ms", higher_is_better=False),
            row("in-process batched rate", float(batched), None, "samples/s"),
            both("one client p50", single, peer_single, 50),
            both("one client p99", single, peer_single, 99),
            row("over the in-process call (target 1.5)", float(over), None, "ms"),
            both(f"{CLIENTS} clients p50", many, peer_many, 50),
            both(f"{CLIENTS} clients p99", many, peer_many, 99),
            row(f"{CLIENTS} clients rate", rate(many), rate(peer_many), "samples/s"),
            row(f"share of the in-process rate (target 0.8) [{low:.2f}, {high:.2f}]", share, None, "x"),
            row(f"{CLIENTS} clients in Python, rate", float(np.median(python)), None, "samples/s"),
            row(f"{CLIENTS} clients in Python, share", float(python_share), None, "x"),
            cost("processor time a sample, the model alone", float(model_us)),
            cost(f"processor time a request, server at {CLIENTS} clients", float(np.median(server_us))),
            cost("processor time a request, h2load", client_us(many), client_us(peer_many)),
        ],
    )


if __name__ == "__main__":
    main()

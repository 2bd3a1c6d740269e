"""What 100 reloads of one model do to the requests of another, and to the server's memory.

A client asks model `steady` at a fixed pace, first while nothing happens, then while `moving` gets a new version 100
times (each loaded, made available, the one before unloaded). Targets: p99 during the reloads at most 2 times the quiet
p99; resident memory flat.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from _common import report, row

from barcast.serving.client import ModelClient
from barcast.serving.model_server import start
from serving import export_network, percentile, window

PACE_SECONDS = 0.005


class Pacer(threading.Thread):
    """Asks `steady` every 5 ms (or as soon as the last answer came) and keeps the latencies."""

    def __init__(self, endpoint: str, features: int) -> None:
        super().__init__(daemon=True)
        self.client = ModelClient(endpoint, deadline_seconds=10)
        self.inputs = window(features)
        self.times: list[float] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            began = time.perf_counter()
            self.client.predict("steady", self.inputs)
            took = time.perf_counter() - began
            self.times.append(took)
            time.sleep(max(0.0, PACE_SECONDS - took))

    def take(self) -> list[float]:
        taken, self.times = self.times, []
        return taken


def megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--quiet-seconds", type=float, default=20.0)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--features", type=int, default=160)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        export_network(root / "steady" / "1", preset=options.preset, features=options.features)
        moving = root / "moving"
        shutil.copytree(root / "steady" / "1", moving / "1")
        with start(
            models={"steady": root / "steady", "moving": moving},
            file_system_poll_wait_seconds=0.05,
            xla_cache_directory=root / "xla",
            tensorflow_intra_op_parallelism=1,  # as `barcast serve` sets it
            timeout_seconds=900,
        ) as server:
            client = ModelClient(server.endpoint, deadline_seconds=10)
            pacer = Pacer(server.endpoint, options.features)
            pacer.start()
            time.sleep(2)
            pacer.take()
            time.sleep(options.quiet_seconds)
            quiet = pacer.take()
            memory, seconds = [], []
            for version in range(2, options.reloads + 2):
                began = time.perf_counter()
                temporary = moving / f".{version}.tmp"
                shutil.copytree(moving / str(version - 1), temporary, copy_function=os.link)
                temporary.rename(moving / str(version))
                states: dict[int, str] = {}
                while states.get(version) != "AVAILABLE" or states.get(version - 1) != "END":
                    time.sleep(0.02)
                    states = client.versions("moving")
                shutil.rmtree(moving / str(version - 1))
                seconds.append(time.perf_counter() - began)
                memory.append(megabytes(server.process.pid))
            busy = pacer.take()
            pacer.done.set()
            pacer.join(20)
    ratio = percentile(busy, 99) / percentile(quiet, 99)
    tail = memory[len(memory) // 10 :] or memory
    growth = float(np.polyfit(np.arange(len(tail)), tail, 1)[0]) if len(tail) > 1 else 0.0
    report(
        "reload",
        [
            row("p50 while quiet", percentile(quiet, 50), None, "ms", higher_is_better=False),
            row("p50 during reloads", percentile(busy, 50), None, "ms", higher_is_better=False),
            row("p99 while quiet", percentile(quiet, 99), None, "ms", higher_is_better=False),
            row("p99 during reloads", percentile(busy, 99), None, "ms", higher_is_better=False),
            row("p99 ratio (target at most 2)", ratio, None, "x"),
            row("seconds a reload", float(np.median(seconds)), None, "s"),
            row("memory after the first reloads", tail[0], None, "MiB"),
            row("memory after the last", memory[-1], None, "MiB"),
            row("memory growth a reload", growth, None, "MiB"),
        ],
    )


if __name__ == "__main__":
    main()

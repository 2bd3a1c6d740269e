"""What spreading work over processes costs and gains: features and scores on Beam, a search, training.

Each on one and on two processes of this machine, beside the plain call in one process (the peer), which may use all
cores by threads. Seconds are of the call itself, the start of Beam's own workers included, Python's imports not.
Usage: `python benchmarks/distribution.py [--symbols 8] [--bars 12000] [--rows 12000] [--only features,scores,...]`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from _common import report, row

FEATURES, LOOKBACK, TRIALS = 40, 60, 4
SIZES = {
    "model": {"lstm_units": [32, 16], "symbol_capacity": 32, "bayesian_samples": 4},
    "training": {"batch_size": 128, "max_epochs": 2, "patience_epochs": 2},
    "splits": {"tuning_folds": 2},
    "horizon_bars": 5,
    "lookback_bars": LOOKBACK,
}
KINDS = ("features", "scores", "search", "training")


def settings() -> Any:
    """The configuration that all parts share."""
    from barcast.config import load

    return load(None, **SIZES, interval="5m", universe={"calendar": "24/7"})


def prepare(folder: Path, symbols: int, bars: int, rows: int) -> None:
    """Bars, a data set and an exported model on disk."""
    from training import dataset_of

    from barcast import datasets, splits
    from barcast.bars.sources import open_source
    from barcast.training import train_universal

    config = settings()
    source = config.source.model_copy(
        update={
            "kind": "simulator",
            "simulator": config.source.simulator.model_copy(
                update={"num_symbols": symbols, "num_bars": bars}
            ),
        }
    )
    open_source(source, interval="5m", calendar="24/7").fetch().write_parquet(folder / "bars.parquet")
    dataset = dataset_of(rows, FEATURES, 8)
    datasets.save(dataset, folder / "dataset")
    quick = config.model_copy(update={"training": config.training.model_copy(update={"max_epoch_rows": 512})})
    fold = splits.holdout(dataset.rows, config.splits)
    train_universal(dataset, fold, quick, folder / "fit").export(folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump({**SIZES, "interval": "5m"}))


def measure_features(folder: Path, processes: int) -> float:
    """Rows of features a second; 0 processes: the batch engine in this one."""
    from barcast import features
    from barcast.adapters import beam, beam_features
    from barcast.bars import Calendar, adjusted

    config = settings()
    rows = pl.read_parquet(folder / "bars.parquet")
    # kernels are compiled and Beam imported before the clock runs
    features.compute(
        adjusted(rows.head(2000)), interval="5m", calendar=Calendar.of("24/7"), config=config.features
    )
    started = time.perf_counter()
    if processes == 0:
        features.compute(adjusted(rows), interval="5m", calendar=Calendar.of("24/7"), config=config.features)
    else:
        options = beam.processes(processes) if processes > 1 else ()
        with tempfile.TemporaryDirectory() as out:
            beam_features.backfill(folder / "bars.parquet", Path(out) / "out", config, options=options)
    return rows.height / (time.perf_counter() - started)


def measure_scores(folder: Path, processes: int) -> float:
    """Windows scored a second; 0 processes: the model in this one."""
    from barcast import datasets
    from barcast.adapters import beam
    from barcast.training import TrainedModel

    dataset = datasets.load(folder / "dataset")
    rows = np.arange(len(dataset))
    if processes == 0:
        model = TrainedModel.load(folder / "model")
        model.answers(dataset, rows[:512])
        started = time.perf_counter()
        model.answers(dataset, rows)
    else:
        options = beam.processes(processes) if processes > 1 else ()
        with tempfile.TemporaryDirectory() as out:
            beam.score(folder / "model", folder / "dataset", Path(out) / "a", rows=rows[:256], options=())
            started = time.perf_counter()
            beam.score(folder / "model", folder / "dataset", Path(out) / "b", options=options)
    return len(rows) / (time.perf_counter() - started)


def one_search(folder: str, storage: str, trials: int) -> None:
    """A worker of a search (a process of its own)."""
    from barcast import datasets, splits
    from barcast.training import tuning

    config = settings()
    dataset = datasets.load(Path(folder) / "dataset")
    small = dataset.take(np.arange(0, len(dataset), 3))
    fold = splits.holdout(small.rows, config.splits)
    space: dict[str, Any] = {"learning_rate": (1e-4, 1e-2), "dropout": [0.1, 0.3]}
    tuning.search(small, fold, config, storage=storage or None, sampler="random", trials=trials, space=space)


def measure_search(folder: Path, processes: int) -> float:
    """Trials a minute on one study; 0 processes: in memory, in one process."""
    if processes == 0:
        return TRIALS / _clocked([_child("one_search", folder, "", TRIALS)]) * 60
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import servers

    with servers.postgres() as server:
        info = server.get_postmaster_info()
        storage = f"postgresql+psycopg://postgres@/postgres?host={info.socket_dir}&port={info.port}"
        children = [_child("one_search", folder, storage, TRIALS // processes) for _ in range(processes)]
        return TRIALS / _clocked(children) * 60


def measure_training(folder: Path, processes: int) -> float:
    """Training rows a second, evaluation included; 0 processes: the trainer as always."""
    from barcast import datasets, splits

    rows = splits.holdout(datasets.load(folder / "dataset").rows, settings().splits).train
    workers = max(1, processes)
    with tempfile.TemporaryDirectory() as out:
        hosts = [f"127.0.0.1:{_free_port()}" for _ in range(workers)]
        command = [
            *(sys.executable, "-m", "barcast.training.multi_worker"),
            *(str(folder / "dataset"), out, str(folder / "config.yaml")),
        ]
        started = []
        for index in range(workers):
            task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(task)}  # with one worker it changes nothing
            started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        for child in started:
            child.communicate(timeout=400)
            if child.returncode:
                raise RuntimeError(f"a worker left with {child.returncode}")
        facts = json.loads((Path(out) / "fit" / "model.json").read_text())["info"]["facts"]
    # The first epoch traces the graph: the last one is the speed.
    return len(rows) / float(facts["epochs"][-1]["seconds"])


def _child(function: str, *arguments: Any) -> subprocess.Popen[str]:
    """A process that calls a function of this file, imports TensorFlow, and waits for a line before it begins."""
    words = ", ".join(repr(str(a)) if isinstance(a, Path) else repr(a) for a in arguments)
    code = (
        "import sys, tensorflow, optuna, distribution; from barcast.training import tuning; "
        f"print('ready', flush=True); sys.stdin.readline(); distribution.{function}({words})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _clocked(children: list[subprocess.Popen[str]]) -> float:
    """Seconds from the common start to the last one's end."""
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    started = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        if child.wait(timeout=400):
            raise RuntimeError(f"a worker left with {child.returncode}")
    return time.perf_counter() - started


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


MEASURES: dict[str, tuple[Callable[[Path, int], float], str]] = {
    "features": (measure_features, "rows/s"),
    "scores": (measure_scores, "windows/s"),
    "search": (measure_search, "trials/min"),
    "training": (measure_training, "rows/s"),
}


def main() -> None:
    """Measure each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=8)
    parser.add_argument("--bars", type=int, default=12000, help="per symbol")
    parser.add_argument("--rows", type=int, default=12000, help="windows of the data set")
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--one", nargs=3, metavar=("KIND", "FOLDER", "PROCESSES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, folder, processes = given.one
        print(MEASURES[kind][0](Path(folder), int(processes)))
        return
    results = []
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), given.symbols, given.bars, given.rows)
        for kind in given.only.split(","):
            found = []
            for processes in (0, 1, 2):
                command = [sys.executable, __file__, "--one", kind, name, str(processes)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=480, check=True)
                found.append(float(done.stdout.strip().splitlines()[-1]))
                print(f"{kind}, {processes or 'plain'}: {found[-1]:.1f} {MEASURES[kind][1]}", file=sys.stderr)
            for processes in (1, 2):
                results.append(
                    row(f"{kind}, {processes} process(es)", found[processes], found[0], MEASURES[kind][1])
                )
    report("distribution", results)


if __name__ == "__main__":
    main()

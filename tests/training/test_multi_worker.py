"""Two processes on loopback train one network: the same numbers as one process, and clear errors.

Slow: each run is processes of their own that import TensorFlow.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from barcast import datasets
from barcast.errors import ConfigError
from barcast.training import multi_worker

CONFIG = {
    "horizon_bars": 3,
    "lookback_bars": 12,
    "seed": 3,
    "model": {
        "lstm_units": [8, 6], "attention_heads": 2, "attention_key_dim": 4, "dense_units": [8],
        "symbol_embedding_dim": 3, "symbol_capacity": 8, "bayesian_samples": 4, "lstm_dropout": 0.0,
        "recurrent_dropout": 0.0, "attention_dropout": 0.0, "dense_dropout": 0.0,
    },
    "training": {"batch_size": 64, "max_epochs": 3, "patience_epochs": 3, "min_rows": 50, "nan_restarts": 0},
}  # fmt: skip


def tf_config(index: int, ports: list[int]) -> str:
    workers = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", (0, 1)), (tf_config(1, [1, 2, 3]), (1, 3)), (tf_config(0, [1]), (0, 1))],
)
def test_place_reads_tf_config(text: str, expected: tuple[int, int]) -> None:
    assert multi_worker.place({"TF_CONFIG": text}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "not json", "[]", '{"cluster": {}}', tf_config(2, [1, 2]), tf_config(-1, [1, 2]),
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)  # fmt: skip
def test_a_wrong_tf_config_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ConfigError, match="TF_CONFIG") as caught:
        multi_worker.place({"TF_CONFIG": text})
    assert caught.value.hint


def start(folder: Path, out: Path, config: Path, given: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("TF_CONFIG", None)
    if given:
        environment["TF_CONFIG"] = given
    return subprocess.Popen(
        [sys.executable, "-m", "barcast.training.multi_worker", str(folder), str(out), str(config)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_train_the_same_network_as_one(dataset: Any, tmp_path: Path) -> None:
    from barcast import splits
    from barcast.models import savedmodel
    from barcast.training import TrainedModel

    folder, config = tmp_path / "dataset", tmp_path / "config.yaml"
    datasets.save(dataset, folder)
    config.write_text(yaml.safe_dump(CONFIG))
    ports = free_ports(2)
    runs = [
        start(folder, tmp_path / "alone", config, ""),
        *(start(folder, tmp_path / "pair", config, tf_config(i, ports)) for i in range(2)),
    ]
    results = [run.communicate(timeout=600) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], "\n".join(result[1][-2500:] for result in results)
    assert results[2][0].strip() == "done"  # worker 1 wrote nothing
    assert sorted(p.name for p in (tmp_path / "pair").iterdir()) == ["export", "fit"]

    one = TrainedModel.load(tmp_path / "alone" / "fit").info.facts
    two = TrainedModel.load(tmp_path / "pair" / "fit").info.facts
    assert len(one["epochs"]) == len(two["epochs"]) == 3
    for a, b in zip(one["epochs"], two["epochs"], strict=True):
        # Not to the last digit: symbols are hidden at random in training, by row of the batch.
        for name in ("loss", "val_loss", "class", "val_class", "learning_rate"):
            assert a[name] == pytest.approx(b[name], rel=2e-3), name
    assert one["epochs"][-1]["loss"] < one["epochs"][0]["loss"]  # it learned
    rows = splits.holdout(dataset.rows).test[:64]
    answers = [
        savedmodel.predict(tmp_path / name / "export", dataset.windows(rows), dataset.symbol_id[rows])
        for name in ("alone", "pair")
    ]
    np.testing.assert_allclose(answers[0]["probabilities"], answers[1]["probabilities"], atol=2e-2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_with_different_seeds_are_refused(dataset: Any, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    datasets.save(dataset, folder)
    ports = free_ports(2)
    workers = []
    for index, seed in enumerate((3, 4)):
        config = tmp_path / f"{index}.yaml"
        config.write_text(yaml.safe_dump({**CONFIG, "seed": seed}))
        workers.append(start(folder, tmp_path / "out", config, tf_config(index, ports)))
    results = [worker.communicate(timeout=400) for worker in workers]
    assert [w.returncode for w in workers] == [5, 5]
    assert all("starts from other weights" in r[1] for r in results)

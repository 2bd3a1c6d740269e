"""Runs on this machine: listed, shown, cancelled with all their steps, started again; parameters of pipelines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from barcast.adapters.kubeflow import parameters, read_arguments
from barcast.config import load
from barcast.errors import ConfigError
from barcast.operations import runs

pytestmark = pytest.mark.timeout(900)
BARCAST = [sys.executable, "-c", "from barcast.cli import main; main()"]


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BARCAST, *words],
        env={**os.environ, "BARCAST_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def call(root: Path, *words: str) -> tuple[int, str]:
    process = start(root, *words)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def write(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump({"workspace": "w", "universe": {"calendar": "24/7"}, **settings}))
    return path


def test_a_failed_run_is_listed_shown_and_started_again(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", source={"kind": "files", "files": {"path": str(tmp_path / "none")}})
    code, output = call(tmp_path, "run", str(path))
    assert code not in (0, 1)
    assert "Step ingest" in output
    (row,) = json.loads(call(tmp_path, "runs", "list", "--json")[1])
    assert row["state"] == "FAILED"
    assert row["error"].startswith("ingest: ")
    cause = row["error"].removeprefix("ingest: ")
    assert cause in output
    shown = json.loads(call(tmp_path, "runs", "show", "--json")[1])["steps"]
    assert [(step["step"], step["state"], step["note"]) for step in shown] == [
        ("ingest", "failed", f"FAILED: {cause}"),
        ("record_outcome", "succeeded", "recorded: failed"),
    ]
    assert f"failed: ingest: {cause}" in call(tmp_path, "status")[1]
    assert call(tmp_path, "runs", "watch", row["run_id"])[0] == 1
    assert "does not go on: it is failed" in call(tmp_path, "runs", "cancel", row["run_id"])[1]

    again, output = call(tmp_path, "runs", "rerun", row["run_id"])
    assert again == code
    assert "Step ingest" in output
    newest, _ = json.loads(call(tmp_path, "runs", "list", "--json")[1])
    assert newest["run_id"] != row["run_id"]


def test_a_cancelled_run_ends_with_its_steps_and_leaves_the_workspace_free(tmp_path: Path) -> None:
    simulator = {"num_symbols": 60, "num_bars": 20_000}
    path = write(tmp_path / "c.yaml", source={"kind": "simulator", "simulator": simulator}, interval="1h")
    config = load(path, root=tmp_path)
    process = start(tmp_path, "run", str(path))
    until = time.monotonic() + 240
    while not (logs := list(config.open_workspace().runs.glob("*/steps.jsonl"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    run_id = logs[0].parent.name
    assert runs.alive(config, run_id)
    family = psutil.Process(process.pid).children(recursive=True)
    assert "still going on" in call(tmp_path, "run", str(path))[1]

    code, output = call(tmp_path, "runs", "cancel", run_id)
    assert code == 0, output
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "was cancelled" in output
    assert psutil.wait_procs(family, timeout=120)[1] == []
    assert [(row["run_id"], row["state"]) for row in runs.latest(config)] == [(run_id, "CANCELED")]
    os.close(runs._lock(config.open_workspace()))
    why = "by barcast runs cancel, during ingest"
    assert f"{run_id}  cancelled    {why}" in call(tmp_path, "runs", "list")[1]
    assert f"{run_id}  cancelled: {why}" in call(tmp_path, "runs", "show")[1]
    shown = json.loads(call(tmp_path, "runs", "show", "--json")[1])
    assert (shown["state"], shown["error"], shown["steps"]) == ("CANCELED", why, [])


def test_a_killed_run_says_so_even_before_its_first_step(tmp_path: Path) -> None:
    config = load(write(tmp_path / "c.yaml"), root=tmp_path)
    folder = config.open_workspace().runs / runs.new_run_id("training")
    folder.mkdir(parents=True)
    (folder / "arguments.json").write_text("{}")
    words = ("runs", "show", "--config", str(tmp_path / "c.yaml"))
    assert call(tmp_path, *words) == (0, f"{folder.name}  unfinished: its process was killed\n")
    started = {"step": "ingest", "event": "started", "text": ""}
    (folder / "steps.jsonl").write_text(json.dumps(started) + "\n")
    assert "its process was killed, during ingest" in call(tmp_path, *words)[1]


def test_a_feature_store_that_cannot_be_read_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "fs.yaml").write_text("project: ${NOT_SET_ANYWHERE}\n")
    path = write(tmp_path / "c.yaml", feast={"feature_store_yaml": str(tmp_path / "fs.yaml")})
    code, output = call(tmp_path, "run", str(path))
    assert code == 2
    assert "needs environment variables that are not set or empty: NOT_SET_ANYWHERE" in output
    assert not (tmp_path / "w").exists()
    code, output = call(tmp_path, "doctor", "--config", str(path))
    assert code == 1
    assert "FAIL  feature store" in output


def test_parameters_are_read_in_the_types_of_the_pipeline() -> None:
    assert read_arguments("retraining", ["models=AAPL,MSFT", "mode=anew"]) == {
        "models": "AAPL,MSFT",
        "mode": "anew",
    }
    read = read_arguments("tuning", ["trials=5", 'gpu_nodes={"pool": "gpu"}'])
    assert read == {"trials": 5, "gpu_nodes": {"pool": "gpu"}}
    assert read_arguments("backfill", ["scoring=false", 'options=["--a=b"]']) == {
        "scoring": False,
        "options": ["--a=b"],
    }
    assert set(parameters("promotion")) == {"rollback", "to", "by", "reason"}


@pytest.mark.parametrize(
    ("pipeline", "word", "message"),
    [
        ("retrainin", "models=A", "Did you mean 'retraining'"),
        ("retraining", "model=A", "Did you mean 'models'"),
        ("promotion", "models=A", "It has: by, reason, rollback, to."),
        ("tuning", "trials=many", "is no number integer"),
        ("backfill", "scoring=perhaps", "is no boolean"),
        ("tuning", "trials", "is no NAME=VALUE"),
        ("tuning", "sampler=tp", "Did you mean 'tpe'"),
        ("retraining", "mode=foo", "It is one of update, anew, recalibrate."),
        ("backfill", "start=2012-13-01", "start is '2012-13-01': month must be in 1..12."),
        ("backfill", "end=soon", "Write it like 2024-01-31"),
        ("backfill", "options=5", "is no list"),
        ("training", "gpu_nodes=[1]", "is no struct"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_would_be_right(
    pipeline: str, word: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read_arguments(pipeline, [word])
    assert message in f"{raised.value.message} {raised.value.hint}"


def test_a_run_that_cannot_begin_gives_its_turn_back(tmp_path: Path) -> None:
    """As on a full disk: a scheduler lives on, and its next run must not be refused."""
    config = load(write(tmp_path / "c.yaml", storage={"root": str(tmp_path)}))
    (config.open_workspace().runs / "training-1").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        next(runs.run_pipeline(config, "training", "training-1"))
    os.close(runs._lock(config.open_workspace()))

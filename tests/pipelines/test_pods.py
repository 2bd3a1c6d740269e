"""Every step's container command in an empty place of its own gives what the run on one machine gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from barcast.config import Config, load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PODS = Path(__file__).parents[1] / "support" / "pods.py"
CONFIG = {
    "workspace": "pods",
    "source": {"kind": "simulator", "simulator": {"num_symbols": 2, "num_bars": 900}},
    "universe": {"calendar": "24/7"},
    "training": {"max_epochs": 1, "transfer_epochs": 1, "min_symbol_rows": 300, "symbols_per_step": 1},
    "evaluation": {"bootstrap_samples": 200, "lightgbm_rounds": 5, "tfma": False},
    "gate": {"bootstrap_samples": 1000, "max_calibration_error": 0.9},
    "serving": {"endpoint": "127.0.0.1:1"},
}
OF_THE_RUN = ("created_timestamp",)  # when something was known: another moment in each run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pods")


def here(place: Path, *words: str) -> Path:
    """The artifacts of a run on one machine."""
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    done = subprocess.run(
        [sys.executable, "-c", "from barcast.cli import main; main()", "run", str(path), *words],
        env={**os.environ, "BARCAST_ROOT": str(place / "here")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = load(path, root=place / "here").open_workspace().runs
    return max(runs.glob("*-*"), key=lambda run: run.name.split("-")[1:]) / "artifacts"


def in_pods(place: Path, pipeline: str, **arguments: Any) -> Path:
    """The artifacts of the same pipeline, each step in a pod."""
    storage = {"root": str(place / "mnt" / "state"), "models": str(place / "mnt" / "models")}
    config = Config.model_validate({**CONFIG, "storage": storage})
    given = {"config": config.model_dump_json(), "run_id": f"{pipeline}-1", **arguments}
    (place / "arguments.json").write_text(json.dumps(given))
    done = subprocess.run(
        [sys.executable, str(PODS), pipeline, str(place)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return max((place / "artifacts").iterdir(), key=lambda folder: folder.stat().st_mtime)


def named(artifacts: Path) -> dict[str, Path]:
    """Every file of a run's artifacts by its step and place."""
    root = artifacts if (artifacts / "ingest").exists() else next(artifacts.iterdir())
    return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}


def test_training_in_pods_gives_the_same_artifacts_as_on_one_machine(place: Path) -> None:
    ours, theirs = named(here(place)), named(in_pods(place, "training"))
    assert set(ours) == set(theirs)
    steps = {folder for name in ours for folder in name.split("/")[:2]}  # those of a loop lie a folder deeper
    assert {
        "ingest",
        "build-dataset",
        "train-universal",
        "train-symbols",
        "evaluate",
        "gate",
        "canary",
    } <= steps
    compared = 0
    for name, path in ours.items():
        compared += same(name, path, theirs[name])
    assert compared > 20


def same(name: str, path: Path, other: Path) -> bool:
    """Compare what can be compared; whether it was."""
    if path.suffix == ".parquet" or name.split("/")[-1] in ("bars", "features"):
        mine, yours = pl.read_parquet(path), pl.read_parquet(other)
        known = [c for c in mine.columns if c not in OF_THE_RUN]
        assert_frame_equal(mine.select(known), yours.select(known))
    elif path.suffix == ".npz":
        mine, yours = np.load(path, allow_pickle=False), np.load(other, allow_pickle=False)
        assert mine.files == yours.files
        for key in mine.files:
            np.testing.assert_array_equal(mine[key], yours[key], err_msg=f"{name} {key}")
    elif path.suffix == ".npy":
        np.testing.assert_array_equal(np.load(path), np.load(other), err_msg=name)
    elif path.name == "serving.json":
        assert path.read_text() == other.read_text(), name
    else:
        return False
    return True

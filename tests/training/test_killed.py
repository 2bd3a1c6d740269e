"""A training process that is killed for real goes on where it was, to the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barcast import datasets
from barcast.training import TrainedModel

PROGRAM = """
import pickle, sys
from pathlib import Path
from barcast import datasets
from barcast.training import train_universal
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
fold, settings = pickle.loads((folder / "arguments").read_bytes())
train_universal(datasets.load(folder / "dataset"), fold, settings, out, progress=lambda text: print(text, flush=True))
"""


@pytest.mark.slow
def test_killed_process_resumes_to_the_same_numbers(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    import pickle

    datasets.save(dataset, tmp_path / "dataset")
    (tmp_path / "arguments").write_bytes(pickle.dumps((fold, small)))
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert (out / "checkpoint.npz").is_file()
    assert not (out / "model.json").exists()
    subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
    resumed = TrainedModel.load(out)
    assert resumed.info.facts["events"][0].startswith("resumed at epoch")
    assert len(resumed.info.facts["epochs"]) == len(universal.info.facts["epochs"])
    for ours, theirs in zip(resumed.network.weights, universal.network.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))

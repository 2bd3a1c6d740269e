"""A run killed at any step: the next one completes, and nothing half-made is ever served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from barcast.config import Config, load
from barcast.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONFIG = {
    "workspace": "killed",
    "source": {"kind": "simulator", "simulator": {"num_symbols": 2, "num_bars": 900}},
    "universe": {"calendar": "24/7"},
    "training": {"max_epochs": 1, "transfer_epochs": 1, "min_symbol_rows": 100_000},
    "evaluation": {"bootstrap_samples": 200, "lightgbm_rounds": 5, "tfma": False},
    "gate": {"bootstrap_samples": 1000, "max_calibration_error": 0.9},
    "serving": {"endpoint": "127.0.0.1:1"},
}


def start(path: Path, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from barcast.cli import main; main()", "run", str(path)],
        env={**os.environ, "BARCAST_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_at(config: Config, path: Path, root: Path, step: str) -> None:
    """Start a run and kill it, with everything it started, as soon as `step` begins."""
    known = set(config.open_workspace().runs.glob("training-*"))
    run = start(path, root)
    began = time.monotonic()
    while time.monotonic() - began < 300:
        for folder in set(config.open_workspace().runs.glob("training-*")) - known:
            log = folder / "steps.jsonl"
            if log.exists() and f'"step": "{step}", "event": "started"' in log.read_text():
                for pid in children(run.pid):
                    os.kill(pid, signal.SIGKILL)
                run.kill()
                run.wait()
                return
        assert run.poll() is None, run.stdout.read() if run.stdout else ""
        time.sleep(0.05)
    raise AssertionError(f"{step} never began")


def children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def served_whole(registry: Registry) -> None:
    """Every version that models.config names is a whole one, with the files that were registered."""
    models = registry.state().models
    for name, labels in registry.live.read().items():
        for version in set(labels.values()):
            registry.live.verify(name, version, models[name].versions[version].digest)


@pytest.mark.parametrize(
    "step", ["ingest", "materialize", "train_universal", "register", "promote", "canary"]
)
def test_a_killed_run_is_completed_by_the_next(step: str, tmp_path: Path) -> None:
    path, root = tmp_path / "c.yaml", tmp_path / "state"
    path.write_text(yaml.safe_dump(CONFIG))
    config = load(path, root=root)
    kill_at(config, path, root, step)
    registry = Registry(config.open_workspace(), config)
    served_whole(registry)
    again = start(path, root)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    assert registry.verify() == []
    served_whole(registry)
    assert registry.incumbent(None) is not None
    newest = max(config.open_workspace().runs.glob("training-*"))
    assert json.loads((newest / "outcome.json").read_text())["state"] == "SUCCEEDED"

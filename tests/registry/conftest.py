"""A registry on a real MLflow (SQLite and files), and small model folders to register."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from barcast.adapters.mlflow import Tracking
from barcast.config.registry import RegistryConfig
from barcast.registry import Recorded, Registry
from barcast.workspace import Workspace

PROMOTE = {
    "outcome": "promote",
    "reasons": ["Better by 12 bps a day, 95% interval 3 to 21."],
    "numbers": {"bps": 12.0},
}
HOLD = {"outcome": "hold", "reasons": ["Undecided."], "numbers": {}, "days_to_decide": 40}
KEEP = {"outcome": "keep", "reasons": ["Loses."], "numbers": {}}


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "network",
        "data_version": "7",
        "data_hash": "d" * 64,
        "config_hash": "c" * 64,
        "features": ["log_return_1", "rsi_14"],
        "metrics": {"log_loss": 1.05, "sharpe": 0.7},
        "parameters": {"units": 32},
        "reliability": 0.6,
        **changes,
    }


def recorded(salt: float = 0.0) -> Recorded:
    return Recorded(
        {"window": np.full((1, 3, 2), salt, np.float32), "symbol_id": np.zeros(1, np.int32)},
        {
            "probabilities": np.array([[0.2, 0.3, 0.5]], np.float32),
            "confidence": np.array([salt], np.float32),
        },
    )


def model_folder(folder: Path, salt: int) -> Path:
    """A folder shaped like an exported SavedModel; its content depends on `salt`."""
    (folder / "variables").mkdir(parents=True)
    (folder / "assets.extra").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph %d" % salt)
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(bytes([salt % 256]) * 5000)
    (folder / "assets.extra" / "serving.json").write_text('{"lookback_bars": 3}')
    return folder


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables made: copying it saves each test two seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    Tracking(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"), "template").ping()
    return folder / "mlflow.db"


@pytest.fixture
def workspace(tmp_path: Path, empty_mlflow: Path) -> Workspace:
    base = tmp_path / "state"
    base.mkdir()
    shutil.copyfile(empty_mlflow, base / "mlflow.db")
    return Workspace("daily", base)


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return Registry(workspace, RegistryConfig(retry_attempts=2, retry_wait_seconds=0.01))


@pytest.fixture
def register(registry: Registry, tmp_path: Path) -> Callable[..., int]:
    """Register a fresh folder; returns the version."""
    count = iter(range(1, 1000))

    def make(symbol: str | None = "AAPL", verdict: dict[str, Any] | None = None, **changes: Any) -> int:
        salt = next(count)
        folder = model_folder(tmp_path / f"export-{salt}", salt)
        version = registry.register(folder, symbol, metadata(**changes), recorded=recorded(salt))
        if verdict is not None:
            registry.judge(symbol, version, verdict)
        return version

    return make


@pytest.fixture
def promoted(registry: Registry, register: Callable[..., int]) -> Callable[..., int]:
    """Register, judge, approve and promote; returns the version."""

    def make(symbol: str | None = "AAPL", by: str = "ana", reason: str = "better", **changes: Any) -> int:
        version = register(symbol, PROMOTE, **changes)
        registry.set_challenger(symbol, version)
        registry.approve(symbol, by=by, reason=reason)
        return registry.promote(symbol)

    return make


PIECES = SimpleNamespace(
    PROMOTE=PROMOTE, HOLD=HOLD, KEEP=KEEP, metadata=metadata, recorded=recorded, model_folder=model_folder
)


@pytest.fixture
def kit() -> SimpleNamespace:
    """What tests build with (test modules cannot import one another)."""
    return PIECES


@pytest.fixture(scope="module")
def pieces() -> SimpleNamespace:
    """The same for fixtures that live as long as a module."""
    return PIECES

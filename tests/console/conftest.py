"""The registry's fixtures, a console over it, and a browser where there is one."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from barcast.config.registry import RegistryConfig
from barcast.console import Access, create_app
from barcast.registry import Registry
from barcast.workspace import Workspace

# Test folders are no packages: the registry's conftest is loaded by its path.
_spec = importlib.util.spec_from_file_location(
    "registry_fixtures", Path(__file__).parents[1] / "registry" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
empty_mlflow, kit = _shared.empty_mlflow, _shared.kit

CHROMIUM = Path("/usr/bin/chromium")
NOWHERE = "127.0.0.1:1"
VERDICT = {
    "outcome": "promote",
    "reasons": [
        "Challenger earns 4.2 bps more per decision after costs; the 97.5% lower bound is 1.1 bps.",
        "Log loss is 0.013 lower and no slice is worse than the limit.",
    ],
    "numbers": {
        "net_gain_bps": 4.2, "net_gain_bps_low": 1.1, "net_gain_bps_high": 7.4, "p_net_return": 0.006,
        "log_loss_gain": 0.013, "log_loss_gain_low": -0.002, "log_loss_gain_high": 0.027, "p_log_loss": 0.049,
    },
    "checks": [
        {"name": "infrastructure", "passed": True, "detail": "A model server loaded it and "
                                                             "answered.", "on_failure": "keep"},
        {"name": "seed noise", "passed": None, "detail": "Not measured.", "on_failure": "hold"},
    ],
}  # fmt: skip
METRICS = {
    "ml_accuracy": 0.412, "ml_log_loss": 1.071, "ml_ece": 0.031, "financial_sharpe": 0.62,
    "financial_total_return": 0.083, "financial_max_drawdown": -0.121,
}  # fmt: skip


@pytest.fixture(scope="module")
def built(empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AAPL: version 1 served, 2 serves, 3 waits; the universal model and the baseline are live. Built
    once."""
    folder = tmp_path_factory.mktemp("scene")
    base = folder / "state"
    base.mkdir()
    shutil.copyfile(empty_mlflow, base / "mlflow.db")
    registry = Registry(Workspace("daily", base), RegistryConfig())
    salts = iter(range(1, 100))

    def challenger(symbol: str | None, **changes: Any) -> None:
        salt = next(salts)
        export = _shared.model_folder(folder / f"export-{salt}", salt)
        version = registry.register(
            export, symbol, _shared.metadata(**changes), recorded=_shared.recorded(salt)
        )
        registry.judge(symbol, version, VERDICT)
        registry.set_challenger(symbol, version)

    for symbol, changes in (
        ("_linear", {"kind": "linear"}),
        (None, {"metrics": METRICS}),
        ("AAPL", {"metrics": METRICS}),
        ("AAPL", {"metrics": {**METRICS, "ml_accuracy": 0.419}}),
    ):
        challenger(symbol, **changes)
        registry.approve(symbol, by="ana", reason="better")
        registry.promote(symbol)
    better = {
        **METRICS,
        "ml_accuracy": 0.437,
        "ml_log_loss": 1.058,
        "financial_sharpe": 0.94,
        "ml_ece": 0.036,
    }
    challenger("AAPL", metrics=better, parent="daily.universal:1")
    return base


@pytest.fixture
def scene(built: Path, tmp_path: Path) -> Registry:
    """A copy of the built registry."""
    shutil.copytree(built, tmp_path / "state")
    return Registry(Workspace("daily", tmp_path / "state"), RegistryConfig())


@pytest.fixture
def access(scene: Registry) -> Access:
    return Access(scene.workspace.state / "persons.json", 60)


@pytest.fixture
def console(scene: Registry, access: Access) -> Iterator[SimpleNamespace]:
    """A console that really listens: `.url`, `.token`, `.registry`."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # a request that comes before the server's thread waits instead of being refused
    app = create_app(scene, access, NOWHERE)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        token=access.start_token,
        registry=scene,
        access=access,
    )
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def browser_page(console: SimpleNamespace) -> Iterator[Any]:
    """A page of headless Chromium that reports every script error and every request that leaves the
    console."""
    if not CHROMIUM.exists():
        pytest.skip("needs /usr/bin/chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.problems = []
        page.on("console", lambda m: page.problems.append(m.text) if m.type == "error" else None)
        page.on("response", lambda r: None if r.url.startswith(console.url) else page.problems.append(r.url))
        yield page
        browser.close()

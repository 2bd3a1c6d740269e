"""The registry's fixtures, a console over it, and a browser where there is one."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from barcast.console import Access, create_app
from barcast.registry import Registry

# Test folders are no packages: the registry's conftest is loaded by its path.
_spec = importlib.util.spec_from_file_location(
    "registry_fixtures", Path(__file__).parents[1] / "registry" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
empty_mlflow, workspace, registry, register, promoted, kit = (
    getattr(_shared, name)
    for name in ("empty_mlflow", "workspace", "registry", "register", "promoted", "kit")
)

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
    "ml_accuracy": 0.412, "ml_log_loss": 1.071, "ml_ece": 0.031, "financial_sharpe": 0.62, "financial_total_return": 0.083,
    "financial_max_drawdown": -0.121,
}  # fmt: skip


@pytest.fixture
def scene(registry: Registry, promoted: Callable[..., int], register: Callable[..., int]) -> Registry:
    """AAPL: version 1 served, 2 serves, 3 waits; the universal model and the baseline are live."""
    promoted("_linear", kind="linear")
    promoted(None, metrics=METRICS)
    promoted("AAPL", metrics=METRICS)
    promoted("AAPL", metrics={**METRICS, "ml_accuracy": 0.419})
    better = {
        **METRICS,
        "ml_accuracy": 0.437,
        "ml_log_loss": 1.058,
        "financial_sharpe": 0.94,
        "ml_ece": 0.036,
    }
    version = register("AAPL", VERDICT, metrics=better, parent="daily.universal:1")
    registry.set_challenger("AAPL", version)
    return registry


@pytest.fixture
def access(scene: Registry) -> Access:
    return Access(scene.workspace.state / "persons.json", 60)


@pytest.fixture
def console(scene: Registry, access: Access) -> Iterator[SimpleNamespace]:
    """A console that really listens: `.url`, `.token`, `.registry`."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
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
        page.on("request", lambda r: None if r.url.startswith(console.url) else page.problems.append(r.url))
        yield page
        browser.close()

"""The health strip: is the ledger sound, does MLflow answer, does the model server serve what models.config says."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from barcast.errors import BarcastError
from barcast.registry import Registry
from barcast.registry.asking import listens
from barcast.wording import count

KEPT_SECONDS = 5.0


@dataclass(frozen=True)
class Light:
    """One line of the strip; `state` is ok, warn or bad."""

    name: str
    state: str
    text: str


class Health:
    """Asks at most once in a few seconds, whoever looks."""

    def __init__(self, registry: Registry, endpoint: str) -> None:
        self.registry = registry
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Light]] = (0.0, [])

    def lights(self) -> list[Light]:
        """Ledger and files, MLflow, model server, alarms."""
        with self._lock:
            at, lights = self._kept
            if not lights or time.monotonic() - at > KEPT_SECONDS:
                lights = [self._ledger(), self._mlflow(), self._server()]
                self._kept = (time.monotonic(), lights)
            return lights

    def _ledger(self) -> Light:
        findings = self.registry.verify(mlflow=False)
        if findings:
            more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
            return Light("Ledger and files", "bad", f"{findings[0].where}: {findings[0].problem}{more}")
        alarms = self.registry.state().alarms
        if alarms:
            return Light("Ledger and files", "bad", f"{alarms[-1].model}: {alarms[-1].reason}")
        return Light("Ledger and files", "ok", "Chain, manifests and models.config agree.")

    def _mlflow(self) -> Light:
        try:
            self.registry.tracking.ping()
        except BarcastError as error:
            return Light("MLflow", "bad", error.message)
        return Light("MLflow", "ok", "Answers.")

    def _server(self) -> Light:
        if not listens(self.endpoint):
            return Light("Model server", "warn", f"Nothing listens at {self.endpoint}.")
        from barcast.serving.client import ModelClient

        try:
            live = self.registry.live.read()
            missing = []
            with ModelClient(self.endpoint, deadline_seconds=2.0, retries=0) as client:
                for model, labels in live.items():
                    states = client.versions(model)
                    missing += [
                        f"{model} v{v}" for v in sorted(set(labels.values())) if states.get(v) != "AVAILABLE"
                    ]
        except BarcastError as error:
            return Light("Model server", "bad", error.message)
        if missing:
            return Light("Model server", "bad", f"Not available: {', '.join(missing[:4])}.")
        return Light("Model server", "ok", f"Serves {count(len(live), 'live model')}.")

"""Asking model servers from a step: the one that is configured where it answers, else one started for the purpose."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from barcast.config import Config
from barcast.errors import ServingError
from barcast.registry import Ask, Registry
from barcast.registry.asking import listens
from barcast.serving import ModelClient
from barcast.steps._record import Run

_PATIENCE_SECONDS = 60.0
# Compiling with XLA pays for thousands of requests, not for one.
_FOR_A_MOMENT: dict[str, Any] = {
    "port": 0,
    "rest_api_port": 0,
    "xla_cpu_compilation_enabled": False,
    "num_load_threads": 2,
}


def ask_with(client: ModelClient) -> Ask:
    """What the registry needs to compare a served answer with the recorded one."""

    def ask(model: str, version: int, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return client.predict(model, inputs, version=version, deadline_seconds=_PATIENCE_SECONDS).outputs

    return ask


@contextmanager
def live_server(config: Config) -> Iterator[str]:
    """Address of a server for all that is live: the configured one, or one that ends with the context."""
    from barcast.serving.model_server import start

    if listens(config.serving.endpoint):
        yield config.serving.endpoint
        return
    flags = config.model_server.flags(config.open_workspace().models_config, config.serving.batch_sizes)
    with start(**{**flags, **_FOR_A_MOMENT}) as server:
        yield server.endpoint


Confirm = Callable[[str, int], float]


@contextmanager
def candidate_server(
    run: Run, registry: Registry, versions: Sequence[Mapping[str, Any]]
) -> Iterator[Confirm]:
    """The registered candidates, loaded from the registry's own copy: by the embedded server or, where
    `gate.infrastructure` says so, one after the other by TensorFlow Serving in a pod.

    Yields:
        confirm(word, version) -> largest difference between served and recorded answer; raises BarcastError.
    """
    in_pods = run.config.gate.infrastructure == "tensorflow_serving"
    # a pod reads the candidate from the claim of served models; `.candidates` is no model's name
    folder = run.workspace.models / ".candidates" / run.key if in_pods else run.folder / "candidates"

    def fetched() -> dict[str, Path]:
        bases = {}
        for item in versions:
            name, version = registry.model_name(item["word"]), int(item["version"])
            found = registry.tracking.fetch(name, version, "model", folder / "fetched" / name)
            bases[name] = folder / "served" / name
            bases[name].mkdir(parents=True, exist_ok=True)
            shutil.move(found, bases[name] / str(version))
        return bases

    try:
        with _pods(run, registry, fetched()) if in_pods else _embedded(registry, fetched) as confirm:
            yield confirm
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _embedded(registry: Registry, fetched: Callable[[], Mapping[str, Path]]) -> Iterator[Confirm]:
    from barcast.serving.model_server import start

    with start(models=fetched, **_FOR_A_MOMENT) as server:  # MLflow and TensorFlow begin side by side
        yield lambda word, version: _largest_difference(registry, word, version, server.endpoint)


@contextmanager
def _pods(run: Run, registry: Registry, bases: Mapping[str, Path]) -> Iterator[Confirm]:
    from barcast.adapters.infra_validator import serving_pod

    def confirm(word: str, version: int) -> float:
        path = bases[registry.model_name(word)] / str(version)
        with serving_pod(path, image=run.config.gate.infrastructure_image) as endpoint:
            return _largest_difference(registry, word, version, endpoint)

    yield confirm


def _largest_difference(registry: Registry, word: str, version: int, endpoint: str) -> float:
    with ModelClient(endpoint, retries=2) as client:
        result = registry.compare(registry.model(registry.state(), word), version, ask_with(client))
    return max(v for k, v in result.items() if k != "seconds")


def answers(config: Config, endpoint: str) -> list[dict[str, Any]]:
    """Predictions of every symbol that can be answered, ready for JSON.

    Raises:
        ServingError: no symbol was answered by a live model.
    """
    from barcast.serving import open_predictor

    with open_predictor(config, config.open_workspace(), endpoint) as predictor:
        found = [answer.model_dump(mode="json") for answer in predictor.predict()]
    if not any(answer.get("model_version") for answer in found):
        reasons = sorted({str(a.get("reason") or a.get("fallback") or "no reason given") for a in found})
        raise ServingError(
            f"The model server at {endpoint} answered for no symbol: {'; '.join(reasons)}",
            hint="Look at the model server's log and `barcast status`.",
        )
    return found

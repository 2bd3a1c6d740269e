"""The server under test: the one named by ENDPOINT (and REST), else the embedded server started here.

To run against TensorFlow Serving: write the models with `python tests/conformance/conformance_models.py DIR`, start
    tensorflow_model_server --port=8500 --rest_api_port=8501 --model_config_file=DIR/models.config
        --monitoring_config_file=DIR/monitoring.config --allow_version_labels_for_unavailable_models
then `make conformance ENDPOINT=localhost:8500 REST=localhost:8501 MODELS=DIR`. Without MODELS the tests that change
the configuration are skipped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conformance_client import Client
from conformance_models import write_all

from barcast.serving.model_server import start


@dataclass(frozen=True)
class Target:
    """Where the server under test listens; `folder` holds its models, when they are ours to change."""

    grpc: str
    rest: str
    folder: Path | None


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server under test."""
    endpoint = os.environ.get("ENDPOINT")
    if endpoint:
        folder = os.environ.get("MODELS")
        yield Target(endpoint, os.environ.get("REST", ""), Path(folder) if folder else None)
        return
    folder_here = tmp_path_factory.mktemp("models")
    config = write_all(folder_here)
    with start(
        model_config_file=config,
        rest_api_port="auto",
        monitoring_config_file=folder_here / "monitoring.config",
        allow_version_labels_for_unavailable_models=True,
        max_num_load_retries=0,
        xla_batch_sizes="1,4",
    ) as running:
        yield Target(running.endpoint, running.rest_endpoint, folder_here)


@pytest.fixture(scope="session")
def client(target: Target) -> Iterator[Client]:
    """A gRPC client of it."""
    with Client(target.grpc) as made:
        yield made


@pytest.fixture(scope="session")
def rest(target: Target) -> str:
    """The base address of its REST API."""
    if not target.rest:
        pytest.skip("needs REST=host:port")
    return f"http://{target.rest}"

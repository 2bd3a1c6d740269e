"""Asking the running model server, over gRPC, for what the registry wants to see with its own eyes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from barcast.registry.fingerprint import Ask


def listens(endpoint: str, timeout_seconds: float = 1.0) -> bool:
    """Whether anything accepts connections at `endpoint` (host:port)."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_seconds):
            return True
    except (OSError, ValueError):
        return False


@contextmanager
def server(endpoint: str) -> Iterator[Ask | None]:
    """A function that asks the model server at `endpoint`; None when nothing listens there."""
    if not listens(endpoint):
        yield None
        return
    from barcast.serving.breaker import Breaker
    from barcast.serving.client import ModelClient

    # A version that is being loaded refuses for a while: that must neither open a breaker nor be repeated
    # inside.
    with ModelClient(endpoint, deadline_seconds=10.0, retries=0, breaker=Breaker(1_000_000, 0.0)) as client:

        def ask(model: str, version: int, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            return client.predict(model, inputs, version=version).outputs

        yield ask

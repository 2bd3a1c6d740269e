"""A large REST request beside small ones."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from barcast.serving.model_server import start


def test_small_requests_are_answered_while_a_large_one_is_read_and_answered(affine_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((150_000, 3)).round(3)
    body = json.dumps({"instances": rows.tolist()}).encode()
    models = {"affine": affine_path.parent}
    with (
        start(models=models, rest_api_port="auto", xla_cpu_compilation_enabled=False) as server,
        httpx.Client(base_url=f"http://{server.rest_endpoint}/v1/models/", timeout=300) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.post("affine:predict", json={"instances": [[1, 2, 3]]})
        began = time.monotonic()
        large = pool.submit(httpx.post, f"{client.base_url}affine:predict", content=body, timeout=300)
        waits = []
        while not large.done():
            asked = time.monotonic()
            assert client.get("affine").status_code == 200
            waits.append(time.monotonic() - asked)
        whole = time.monotonic() - began
        found = large.result().json()["predictions"]
    np.testing.assert_allclose(found, rows * 2 + 1, rtol=1e-5, atol=1e-5)
    # Reading the text itself is one piece; in the event loop reading and answering would be one each.
    assert max(waits) < whole / 3, (max(waits), whole, len(waits))

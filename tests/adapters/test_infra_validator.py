"""TFX's InfraValidator parts against a double of the Kubernetes API whose pods are real model servers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from barcast.errors import ServingError
from barcast.serving.client import ModelClient
from barcast.serving.model_server import start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]  # TFX's imports take half a minute and warn
SAVED_MODELS = Path(__file__).parents[1] / "registry" / "saved_models.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def models(tmp_path):
    """`<claim>/daily.AAPL/3`, a real SavedModel, and what it answers."""
    subprocess.run([sys.executable, str(SAVED_MODELS), str(tmp_path / "made"), "2"], check=True, timeout=600)
    path = tmp_path / "claim" / "daily.AAPL" / "3"
    path.parent.mkdir(parents=True)
    (tmp_path / "made" / "2").rename(path)
    return SimpleNamespace(path=path, answer=dict(np.load(tmp_path / "made" / "2.npz")))


class Cluster:
    """The few calls of the Kubernetes API that TFX makes. A pod that is created starts a model server."""

    def __init__(self, claim: Path, port: int, *, phase: str = "Running") -> None:
        self.port, self.phase = port, phase
        self.manifests: list[dict] = []
        self.servers: dict[str, object] = {}
        self.deleted: list[str] = []
        self.me = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "step", "uid": "u1"},
            "spec": {
                "serviceAccountName": "runner",
                "containers": [
                    {"name": "main", "volumeMounts": [{"name": "models", "mountPath": str(claim)}]}
                ],
                "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
            },
        }  # fmt: skip
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body: dict | str, status: int = 200) -> None:
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header(
                    "Content-Type", "text/plain" if isinstance(body, str) else "application/json"
                )
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self) -> None:
                name = self.path.partition("?")[0].rstrip("/").split("/")[-1]
                if "persistentvolumeclaims" in self.path:
                    self.answer({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"]}})
                elif name == "log":
                    self.answer("the pod's last words")
                elif name == "step":
                    self.answer(cluster.me)
                else:
                    self.answer(cluster.pod(name))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(cluster.create(body), 201)

            def do_DELETE(self) -> None:
                name = self.path.partition("?")[0].split("/")[-1]
                cluster.delete(name)
                self.answer(cluster.pod(name))

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def pod(self, name: str) -> dict:
        return {"metadata": {"name": name}, "spec": {"containers": []},
                "status": {"phase": self.phase, "podIP": "127.0.0.1"}}  # fmt: skip

    def create(self, manifest: dict) -> dict:
        self.manifests.append(manifest)
        name = f"{manifest['metadata']['generateName']}{len(self.manifests)}"
        if self.phase == "Running":
            (container,) = manifest["spec"]["containers"]
            variables = {v["name"]: v["value"] for v in container["env"]}
            base = (
                f"{variables['MODEL_BASE_PATH']}/{variables['MODEL_NAME']}"  # as the image's own entry does
            )
            context = start(models={variables["MODEL_NAME"]: base}, port=self.port, rest_api_port=0,
                            xla_cpu_compilation_enabled=False)  # fmt: skip
            context.__enter__()
            self.servers[name] = context
        return self.pod(name)

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        context = self.servers.pop(name, None)
        if context is not None:
            context.__exit__(None, None, None)


@pytest.fixture
def cluster(models, monkeypatch):
    from kubernetes import client
    from tfx.components.infra_validator import serving_bins
    from tfx.utils import kube_utils

    port = free_port()
    made = Cluster(models.path.parents[1], port)
    monkeypatch.setattr(serving_bins.TensorFlowServing, "_DEFAULT_GRPC_PORT", port)
    monkeypatch.setattr(kube_utils._factory, "_config_loaded", True)
    monkeypatch.setattr(kube_utils._factory, "_inside_cluster", True)
    monkeypatch.setenv("KFP_POD_NAME", "step")
    monkeypatch.setenv("KFP_NAMESPACE", "pipelines")
    before = client.Configuration.get_default_copy()
    client.Configuration.set_default(client.Configuration(host=made.url))
    yield made
    client.Configuration.set_default(before)
    for name in list(made.servers):
        made.delete(name)
    made.http.shutdown()
    made.http.server_close()


def test_candidate_is_loaded_in_a_pod_of_its_own_and_answers_as_recorded(cluster, models):
    from barcast.adapters.infra_validator import serving_pod

    with (
        serving_pod(models.path, image="registry.example/tensorflow/serving:2.19.1") as endpoint,
        ModelClient(endpoint) as client,
    ):
        inputs = {name: models.answer[name] for name in ("window", "symbol_id")}
        answer = client.predict("daily.AAPL", inputs, version=3).outputs
        np.testing.assert_allclose(answer["probabilities"], models.answer["probabilities"], atol=1e-5)
        assert cluster.deleted == []
    (manifest,) = cluster.manifests
    (container,) = manifest["spec"]["containers"]
    assert container["image"] == "registry.example/tensorflow/serving:2.19.1"
    assert container["volumeMounts"][0]["readOnly"] is True
    assert manifest["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "models"
    assert manifest["metadata"]["ownerReferences"][0]["name"] == "step"  # it goes when the step's pod goes
    assert len(cluster.deleted) == 1


def test_pod_that_dies_is_an_error_with_its_log_and_is_removed(cluster, models):
    from barcast.adapters.infra_validator import serving_pod

    cluster.phase = "Failed"
    with (
        pytest.raises(ServingError, match=re.escape("did not load daily.AAPL version 3")) as caught,
        serving_pod(models.path, image="tensorflow/serving:2.19.1"),
    ):
        pytest.fail("a dead pod gives no address")
    assert "the pod's last words" in caught.value.hint
    assert len(cluster.deleted) == 1


def test_outside_a_pipeline_it_says_where_it_works(cluster, models, monkeypatch):
    from barcast.adapters.infra_validator import serving_pod

    monkeypatch.delenv("KFP_POD_NAME")
    with (
        pytest.raises(ServingError, match="cannot be started") as caught,
        serving_pod(models.path, image="tensorflow/serving:2.19.1"),
    ):
        pytest.fail("there is no pipeline")
    assert "embedded" in caught.value.hint
    assert cluster.manifests == []

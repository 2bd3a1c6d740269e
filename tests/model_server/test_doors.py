"""A server in its own process: flags, TLS, unix socket, batching, warm-up, manifests, failures at start."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conformance_client import Client, failure, floats, predict_request
from conformance_models import save_affine
from tensorflow_serving.apis import prediction_log_pb2

from barcast.errors import ServingError
from barcast.serving.model_server import messages, start

ROW = floats([1, 2, 3])
QUICK = {"xla_cpu_compilation_enabled": False, "max_num_load_retries": 0}


def answers(client: Client, name: str = "affine") -> Any:
    return tf.make_ndarray(client.predict(predict_request(name, {"x": ROW})).outputs["y"])


def certificate() -> tuple[bytes, bytes]:
    """A key and a self-signed certificate for localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def test_tls_with_client_certificate_unix_socket_batching_and_health(
    tmp_path: Path, affine_path: Path
) -> None:
    key, cert = certificate()
    config = messages.CLASSES["SSLConfig"](
        server_key=key.decode(), server_cert=cert.decode(), custom_ca=cert.decode(), client_verify=True
    )
    (tmp_path / "ssl").write_text(str(config))
    (tmp_path / "batching").write_text("max_batch_size { value: 4 } allowed_batch_sizes: 4")
    unix = tmp_path / "s"
    with start(
        models={"affine": affine_path.parent},
        ssl_config_file=tmp_path / "ssl",
        grpc_socket_path=unix,
        enable_batching=True,
        batching_parameters_file=tmp_path / "batching",
        enable_grpc_healthcheck_service=True,
        enable_serialization_as_tensor_content=True,
        **QUICK,
    ) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "localhost")
        with Client(endpoint, grpc.ssl_channel_credentials(cert, key, cert)) as client:
            np.testing.assert_allclose(answers(client), ROW * 2 + 1)
            proto = client.predict(predict_request("affine", {"x": ROW})).outputs["y"]
            assert len(proto.tensor_content) == 12
            code, text = failure(
                lambda: client.predict(predict_request("affine", {"x": np.ones((5, 3), np.float32)}))
            )
            assert (code, text) == (
                "INVALID_ARGUMENT",
                "Task size 5 is larger than maximum input batch size 4",
            )
        with Client(endpoint, grpc.ssl_channel_credentials(cert)) as stranger:
            assert (
                failure(lambda: stranger.predict(predict_request("affine", {"x": ROW})))[0] == "UNAVAILABLE"
            )
        with Client(f"unix:{unix}") as client:
            np.testing.assert_allclose(answers(client), ROW * 2 + 1)
        with grpc.insecure_channel(f"unix:{unix}") as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=messages.CLASSES["HealthCheckRequest"].SerializeToString,
                response_deserializer=messages.CLASSES["HealthCheckResponse"].FromString,
            )
            assert check(messages.CLASSES["HealthCheckRequest"](), timeout=10).status == 1
    assert not unix.exists()


def warmup(path: Path, *requests: Any) -> None:
    folder = path / "assets.extra"
    folder.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def manifest(path: Path) -> None:
    files = {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file()
    }
    (path / "manifest.json").write_text(json.dumps({"files": files}))


def test_partial_start_warmup_and_manifest(tmp_path: Path, affine_path: Path) -> None:
    """One server, six models: what loads answers, what does not says why in its status."""
    models = {name: tmp_path / name for name in ("good", "warm", "cold", "garbled", "sealed", "forged")}
    for base in models.values():
        shutil.copytree(affine_path, base / "1")
    warmup(models["warm"] / "1", predict_request("any", {"x": ROW}))
    warmup(models["cold"] / "1", predict_request("any", {"z": ROW}))
    extra = models["garbled"] / "1" / "assets.extra"
    extra.mkdir()
    (extra / "tf_serving_warmup_requests").write_bytes(b"not records at all")
    manifest(models["sealed"] / "1")
    manifest(models["forged"] / "1")
    with (models["forged"] / "1" / "variables" / "variables.data-00000-of-00001").open("r+b") as file:
        file.write(b"\x00\x01")
    with (
        start(models={**models, "absent": tmp_path / "absent"}, allow_partial_start=True, **QUICK) as server,
        Client(server.endpoint) as client,
    ):
        for name in ("good", "warm", "sealed"):
            np.testing.assert_allclose(answers(client, name), ROW * 2 + 1)
        for name, text in (
            ("cold", "Signature input alias: x"),
            ("garbled", "verify your warmup data is in TFRecord format"),
            ("forged", "its manifest says"),
        ):
            (status,) = client.status(name).model_version_status
            assert status.state == 50, name
            assert text in status.status.error_message
            assert failure(lambda name=name: answers(client, name))[0] == "NOT_FOUND"
        assert failure(lambda: answers(client, "absent"))[0] == "NOT_FOUND"
        save_affine(tmp_path / "absent" / "1", factor=2.0)  # appears later: found by the next look
        until = time.monotonic() + 20
        while not client_sees(client, "absent") and time.monotonic() < until:
            time.sleep(0.1)
        np.testing.assert_allclose(answers(client, "absent"), ROW * 2 + 1)


def client_sees(client: Client, name: str) -> bool:
    try:
        answers(client, name)
    except grpc.RpcError:
        return False
    return True


def test_models_found_while_the_server_starts_are_served(affine_path: Path) -> None:
    with start(models=lambda: {"affine": affine_path.parent}) as server:
        status = Client(server.endpoint).status("affine")
        assert [entry.version for entry in status.model_version_status] == [int(affine_path.name)]


def test_models_that_are_not_found_end_the_server_and_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def begin(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*words, **options))
        return started[-1]

    def missing() -> dict[str, Path]:
        raise LookupError("no candidate there")

    monkeypatch.setattr(subprocess, "Popen", begin)
    with pytest.raises(LookupError, match="no candidate there"), start(models=missing):
        pass
    assert [process.poll() is not None for process in started] == [True]


def test_a_model_that_cannot_load_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(ServingError) as failed, start(models={"m": tmp_path}, **QUICK):
        pass
    assert (
        "UNKNOWN: 1 servable(s) did not become available: {{{name: m version: 1} due to error: NOT_FOUND"
        in str(failed.value)
    )


def test_a_start_that_waits_for_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, what in (("nowhere", "does not exist"), ("empty", "holds none")):
        where = tmp_path / name
        command = [sys.executable, "-m", "barcast.serving.model_server", "--port=0"]
        waits = subprocess.Popen(
            [*command, "--model_name=x", f"--model_base_path={where}"], stderr=subprocess.PIPE, text=True
        )
        try:
            assert waits.stderr is not None
            line = waits.stderr.readline()
            assert line.startswith(f"Waiting for a version of model x: {where} {what}.")
            assert "1/saved_model.pb" in line
        finally:
            waits.terminate()
            assert waits.wait(30) == 0
            waits.stderr.close()


def run(*flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "barcast.serving.model_server", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_a_busy_port_is_named_at_once(affine_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = run(f"--port={port}", f"--model_base_path={affine_path.parent}")
    assert code == 7
    assert f"Port {port} (--port)" in text
    assert "Traceback" not in text


def test_bad_command_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text("model_config_list { nonsense }")
    for flags, words in (
        ((), "No model to serve"),
        (("--modle_name=x", "--model_base_path=/x"), "Did you mean 'model_name'"),
        (("--model_base_path=/x", "--batching_parameters_file=/x"), "without --enable_batching"),
        (("--model_base_path=/x", "--grpc_max_threads=0"), "--grpc_max_threads must be at least 1, got 0"),
        (
            ("--model_base_path=/x", "--file_system_poll_wait_seconds=-1"),
            "--file_system_poll_wait_seconds must be at least 0, got -1",
        ),
        (
            (f"--model_config_file={tmp_path / 'models.config'}", "--port=0"),
            "Error parsing text-format tensorflow.serving.ModelServerConfig",
        ),
    ):
        code, text = run(*flags)
        assert code == 2, text
        assert words in text
        assert "Traceback" not in text


def test_ipv6_has_an_address_that_clients_can_use(affine_path: Path) -> None:
    models = {"affine": affine_path.parent}
    with start(models=models, bind_address="::1", rest_api_port="auto", **QUICK) as server:
        assert server.endpoint.startswith("[::1]:")
        with Client(server.endpoint) as client:
            assert answers(client).tolist() == [[3, 5, 7]]
        with urllib.request.urlopen(f"http://{server.rest_endpoint}/v1/models/affine") as answer:
            assert b"AVAILABLE" in answer.read()


def test_a_start_that_fails_leaves_anothers_socket_and_long_texts_reach_the_client(
    tmp_path: Path, affine_path: Path
) -> None:
    path = tmp_path / "server.sock"
    with start(models={"affine": affine_path.parent}, grpc_socket_path=path, **QUICK) as server:
        (tmp_path / "broken" / "1").mkdir(parents=True)
        code, _ = run(
            "--port=0",
            f"--model_base_path={tmp_path / 'broken'}",
            f"--grpc_socket_path={path}",
            "--max_num_load_retries=0",
        )
        assert code != 0
        assert path.exists()
        request = predict_request("affine", {"x": ROW})
        request.model_spec.version_label = "標" * 1200
        with Client(server.endpoint) as client:
            code_name, text = failure(lambda: client.predict(request))
        assert code_name == "INVALID_ARGUMENT"
        assert text.endswith("標...TRUNCATED")
    assert not path.exists()

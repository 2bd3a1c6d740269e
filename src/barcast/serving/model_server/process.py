"""Runs the server in a process of its own, for tests, pipelines and `barcast run`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import ServingError

_STOP_SECONDS = 20.0
_TAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        endpoint: host:port of gRPC.
        rest_endpoint: host:port of REST, empty when it is off.
        process: the server's process.
        log: the file its messages go to.
    """

    endpoint: str
    rest_endpoint: str
    process: subprocess.Popen[bytes]
    log: Path


def command_line(options: Mapping[str, object]) -> list[str]:
    """The server's arguments for flags by name; None leaves one out."""
    found = []
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            value = ",".join(str(part) for part in value)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found.append(f"--{name}={text}")
    return found


def _config_text(models: Mapping[str, str | Path]) -> str:
    entries = [
        f"  config {{ name: {json.dumps(name)} base_path: {json.dumps(str(Path(path).absolute()))} "
        'model_platform: "tensorflow" }'
        for name, path in models.items()
    ]
    return "\n".join(["model_config_list {", *entries, "}", ""])


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-_TAIL_CHARACTERS:]


def _wait_ready(
    process: subprocess.Popen[bytes], pipe: int, log: Path, timeout_seconds: float
) -> dict[str, int]:
    until = time.monotonic() + timeout_seconds
    received = b""
    while True:
        left = until - time.monotonic()
        readable, _, _ = select.select([pipe], [], [], max(0.0, left))
        if not readable:
            raise ServingError(
                f"The model server was not ready after {timeout_seconds:g} s. It said: {_tail(log)}",
                hint="Do the models' folders exist, with a version folder in them?",
            )
        part = os.read(pipe, 4096)
        if part:
            received += part
            continue
        if received:
            return {str(key): int(value) for key, value in json.loads(received).items()}
        process.wait(_STOP_SECONDS)
        raise ServingError(f"The model server ended with code {process.returncode}. It said: {_tail(log)}")


@contextmanager
def start(
    *,
    models: Mapping[str, str | Path] | None = None,
    model_config_file: str | Path | None = None,
    port: int = 0,
    rest_api_port: int | str = 0,
    timeout_seconds: float = 120.0,
    **flags: object,
) -> Iterator[RunningServer]:
    """A model server in its own process, ready when the block begins, gone when it ends.

    Args:
        models: name → base path, instead of a configuration file.
        model_config_file: ModelServerConfig in text format.
        port: gRPC port; 0 takes any free one.
        rest_api_port: REST port; 0 is off, "auto" takes any free one.
        timeout_seconds: longest wait for the models to be available.
        flags: further flags of the server by name, e.g. `enable_batching=True`.

    Raises:
        ServingError: it ended or was not ready in time; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="barcast-model-server-") as folder:
        log = Path(folder) / "log"
        if models is not None:
            model_config_file = Path(folder) / "models.config"
            model_config_file.write_text(_config_text(models), encoding="utf-8")
        read, write = os.pipe()
        try:
            command = [
                sys.executable,
                "-m",
                "barcast.serving.model_server",
                *command_line(
                    {
                        "port": port,
                        "rest_api_port": rest_api_port,
                        "model_config_file": model_config_file,
                        "ready_fd": write,
                        **flags,
                    }
                ),
            ]
            with log.open("wb") as file:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=(write,)
                )
            os.close(write)
            write = -1
            try:
                ports = _wait_ready(process, read, log, timeout_seconds)
                host = str(flags.get("bind_address", "127.0.0.1"))
                rest = f"{host}:{ports['rest_port']}" if ports["rest_port"] else ""
                yield RunningServer(f"{host}:{ports['port']}", rest, process, log)
            finally:
                _end(process)
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

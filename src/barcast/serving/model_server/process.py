"""Runs the server in a process of its own, for tests, pipelines and `barcast run`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from barcast.errors import ServingError
from barcast.serving.model_server.options import address

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
    models: Mapping[str, str | Path] | Callable[[], Mapping[str, str | Path]] | None = None,
    model_config_file: str | Path | None = None,
    port: int = 0,
    rest_api_port: int | str = 0,
    timeout_seconds: float = 120.0,
    **flags: object,
) -> Iterator[RunningServer]:
    """A model server in its own process, ready when the block begins, gone when it ends.

    Args:
        models: name → base path, instead of a configuration file; or a function that gives them, called while the
            server starts.
        model_config_file: ModelServerConfig in text format.
        port: gRPC port; 0 takes any free one.
        rest_api_port: REST port; 0 is off, "auto" takes any free one.
        timeout_seconds: longest wait for the models to be available.
        flags: further flags of the server by name, e.g. `enable_batching=True`.

    Raises:
        ServingError: it ended or was not ready in time; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="barcast-model-server-") as folder, ExitStack() as ends:
        log = Path(folder) / "log"
        ready, write = _pipe(ends)
        passed = [write]
        if models is not None:
            # The server reads its configuration once TensorFlow is there: until then it need not be known.
            reader, writer = _pipe(ends)
            model_config_file = f"/dev/fd/{reader.fileno()}"
            passed.append(reader)
        given = {
            "port": port,
            "rest_api_port": rest_api_port,
            "model_config_file": model_config_file,
            "ready_fd": write.fileno(),
            **flags,
        }
        command = [sys.executable, "-m", "barcast.serving.model_server", *command_line(given)]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[end.fileno() for end in passed],
            )
        for end in passed:
            end.close()
        try:
            if models is not None:
                with writer, suppress(BrokenPipeError):  # it has ended: its last words say more
                    writer.write(_config_text(models() if callable(models) else models).encode())
            ports = _wait_ready(process, ready.fileno(), log, timeout_seconds)
            host = str(flags.get("bind_address", "127.0.0.1"))
            rest = address(host, ports["rest_port"]) if ports["rest_port"] else ""
            yield RunningServer(address(host, ports["port"]), rest, process, log)
        finally:
            _end(process)


def _pipe(ends: ExitStack) -> tuple[FileIO, FileIO]:
    """Reading and writing end, both closed with `ends`."""
    reader, writer = os.pipe()
    return ends.enter_context(FileIO(reader, "r")), ends.enter_context(FileIO(writer, "w"))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

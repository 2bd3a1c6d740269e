"""Starts the server: ports checked, models loaded, doors opened; and ends it in order.

Only `run` imports TensorFlow, after everything that can fail quickly has been checked.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from barcast import logs
from barcast.errors import ServingError
from barcast.serving import memory
from barcast.serving.model_server.options import Options

if TYPE_CHECKING:
    from barcast.serving.model_server.core import Core

_GRACE_SECONDS = 5.0
# A request waits at most this long for the interpreter's lock while a model loads (Python's default is 5 ms).
_SWITCH_SECONDS = 0.0005


def check_ports(options: Options) -> None:
    """Fail at once, not after the models have loaded, when a port is taken.

    Raises:
        ServingError: naming the port and its flag.
    """
    for port, flag in ((options.port, "--port"), (options.rest_api_port, "--rest_api_port")):
        if port <= 0:
            continue
        family = socket.AF_INET6 if ":" in options.bind_address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.bind_address, port))
            except OSError as error:
                raise ServingError(
                    f"Port {port} ({flag}) on {options.bind_address} cannot be used: {error.strerror}.",
                    hint=f"Is another server running there? Choose another {flag}.",
                ) from error


def _prepare_environment(options: Options) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if options.xla_cache_directory is not None and options.xla_cpu_compilation_enabled:
        options.xla_cache_directory.mkdir(parents=True, exist_ok=True)
        flags = os.environ.get("TF_XLA_FLAGS", "")
        directory = options.xla_cache_directory.absolute()
        os.environ["TF_XLA_FLAGS"] = f"{flags} --tf_xla_persistent_cache_directory={directory}".strip()


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServingError: a port is taken, a model did not load, a file cannot be read.
    """
    logs.configure(options.log_level)
    check_ports(options)
    _prepare_environment(options)
    # The doors are imported here too, so that all that lives as long as the process is there before it is set aside.
    with logs.hushed(options.log_level):
        from barcast.serving.model_server import grpc_server, rest_server  # noqa: F401
        from barcast.serving.model_server.core import Core

    core = Core(options)
    memory.prepare()
    sys.setswitchinterval(_SWITCH_SECONDS)
    run_loop = asyncio.run
    if importlib.util.find_spec("uvloop") is not None:  # a quicker event loop, where it is installed
        run_loop = importlib.import_module("uvloop").run
    run_loop(_serve(core))


async def _serve(core: Core) -> None:
    from barcast.serving.model_server.grpc_server import GrpcDoor
    from barcast.serving.model_server.rest_server import RestDoor

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _interrupt, core, stop)
    grpc_door, rest_door = GrpcDoor(core), RestDoor(core)
    try:
        await loop.run_in_executor(None, core.start)
        if not stop.is_set():
            port = await grpc_door.start()
            rest_port = await rest_door.start()
            _announce(core.options, port, rest_port)
            await stop.wait()
    finally:
        await rest_door.stop()
        await grpc_door.stop(_GRACE_SECONDS)
        await loop.run_in_executor(None, core.stop)


def _interrupt(core: Core, stop: asyncio.Event) -> None:
    stop.set()
    core.interrupt()


def _announce(options: Options, port: int, rest_port: int) -> None:
    print(f"Serving gRPC on {options.address(port)}", file=sys.stderr)
    if rest_port:
        print(f"Serving REST on {options.address(rest_port)}", file=sys.stderr)
    if options.ready_fd >= 0:
        with os.fdopen(options.ready_fd, "w") as pipe:
            pipe.write(json.dumps({"port": port, "rest_port": rest_port}))

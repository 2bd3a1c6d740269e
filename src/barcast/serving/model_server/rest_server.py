"""The REST door: TensorFlow Serving's HTTP API and the Prometheus page, on uvicorn.

Data passes: bytes → route and body → `rest_api.answer` → JSON with the HTTP status of its code.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from barcast import logs
from barcast.errors import ServingError
from barcast.serving.model_server import rest_api
from barcast.serving.model_server.core import Core
from barcast.serving.model_server.messages import read_text
from barcast.serving.model_server.status import Code, StatusError, from_exception, invalid
from barcast.serving.model_server.status import deadline as expired

_LOG = logs.get("model_server")
_METRICS_PATH = "/monitoring/prometheus/metrics"
_LARGEST_BODY_BYTES = 2**28
_JSON = "application/json"
_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.PERMISSION_DENIED: 403,
    Code.UNAUTHENTICATED: 401,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
}
_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "Content-Type, Authorization, X-Requested-With",
}


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has one way to end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class RestDoor:
    """The HTTP server of a core; without --rest_api_port it stays shut.

    Raises:
        ConfigError: the monitoring configuration cannot be read.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._options = core.options
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._metrics_path = ""
        if core.options.monitoring_config_file is not None:
            config = read_text("MonitoringConfig", core.options.monitoring_config_file).prometheus_config
            if config.enable:
                self._metrics_path = config.path or _METRICS_PATH

    async def start(self) -> int:
        """Bind and serve; the bound port, 0 when off.

        Raises:
            ServingError: the port is taken.
        """
        if self._options.rest_api_port < 0:
            return 0
        address = (self._options.bind_address, self._options.rest_api_port)
        try:
            listener = socket.create_server(
                address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=1024
            )
        except OSError as error:
            raise ServingError(
                f"Cannot listen for REST on {address[0]}:{address[1]}: {error.strerror}.",
                hint="Is another server running there? Choose another --rest_api_port.",
            ) from error
        config = uvicorn.Config(
            self._application,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """End it, after the requests in flight."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        method = scope["method"]
        path = scope["raw_path"].decode("latin-1").partition("?")[0]
        headers = {key.decode("latin-1").lower(): value for key, value in scope["headers"]}
        if path == self._metrics_path and method == "GET":
            await _respond(send, 200, self._core.metrics.text().encode(), "text/plain")
        elif not path.lower().startswith("/v1/"):
            await _respond(send, 404, b"<html><body><h1>Not Found</h1></body></html>", "text/html")
        elif method == "OPTIONS" and self._options.rest_api_enable_cors_support:
            allowed = headers.get("origin", b"").startswith((b"http://", b"https://"))
            await _respond(send, 200 if allowed else 400, b"", _JSON, _CORS if allowed else {})
        else:
            status, content = await self._call(method, path, headers, receive)
            extra = _CORS if self._options.rest_api_enable_cors_support else {}
            await _respond(send, status, content, _JSON, extra)

    async def _call(
        self, method: str, path: str, headers: dict[str, bytes], receive: Any
    ) -> tuple[int, bytes]:
        began = time.monotonic()
        seconds = self._options.rest_api_timeout_in_ms / 1000
        model, api, code = "", "", Code.OK
        try:
            called = rest_api.route(method, path)
            model, api = called.spec.name, called.api
            body = await _body(receive, headers)
            async with asyncio.timeout(seconds):
                content = await rest_api.answer(self._core, called, body, began + seconds)
        except Exception as error:
            failure = expired() if isinstance(error, TimeoutError) else from_exception(error)
            if failure.code == Code.INTERNAL and not isinstance(error, StatusError):
                _LOG.exception("a request failed unexpectedly", path=path)
            code = failure.code
            content = json.dumps({"error": failure.message}).encode()
        self._core.metrics.request(model, code.name, api, "REST", time.monotonic() - began)
        return _HTTP.get(code, 500), content


async def _body(receive: Callable[[], Awaitable[Any]], headers: dict[str, bytes]) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise StatusError(Code.CANCELLED, "The client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > _LARGEST_BODY_BYTES:
            raise invalid(f"The request body is larger than {_LARGEST_BODY_BYTES} bytes")
        parts.append(part)
        if not message.get("more_body"):
            break
    body = b"".join(parts)
    if b"gzip" not in headers.get("content-encoding", b"").lower():
        return body
    try:
        reader = zlib.decompressobj(wbits=31)
        plain = reader.decompress(body, _LARGEST_BODY_BYTES)
    except zlib.error as error:
        raise invalid(f"The gzip body cannot be read: {error}") from error
    if reader.unconsumed_tail or not reader.eof:
        raise invalid(f"The gzip body is cut off, or larger than {_LARGEST_BODY_BYTES} bytes")
    return plain


async def _respond(
    send: Any, status: int, content: bytes, kind: str, extra: dict[str, str] | None = None
) -> None:
    headers = {"content-type": kind, "content-length": str(len(content)), **(extra or {})}
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})

"""What every request passes before a route sees it: key, rate, size; and what leaves is counted and never leaks.

Pure ASGI, so that the stream is not buffered and a body that is too large is refused before it is read whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from barcast import logs, tracing
from barcast.config.serving import GatewayConfig
from barcast.serving.gateway.security import Caller, KeyFile, RateLimit
from barcast.serving.metrics import Metrics

_log = logs.get("serving.gateway")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'"),
]
Scope = MutableMapping[str, Any]


class Door:
    """ASGI middleware: authentication, rate limit, body limit, metrics.

    Args:
        app: what lies behind.
        keys: API keys; None lets everyone in (only with `require_keys: false`).
    """

    def __init__(
        self, app: Any, *, keys: KeyFile | None, limit: RateLimit, config: GatewayConfig, metrics: Metrics
    ) -> None:
        self._app, self._keys, self._limit, self._config, self._metrics = app, keys, limit, config, metrics
        self._open = {"/healthz", "/metrics"} if config.metrics_open else {"/healthz"}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass or refuse one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), [500]

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            with tracing.span("request", method=scope["method"]):
                await self._enter(scope, receive, counted)
        finally:
            route = scope.get("route")
            name = getattr(route, "path", "none")
            self._metrics.count("request", {"route": name, "status": str(status[0])})
            _log.info(
                "request",
                method=scope["method"],
                route=name,
                status=status[0],
                milliseconds=round((time.perf_counter() - started) * 1000, 2),
            )

    async def _enter(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        headers = {k.lower(): v for k, v in scope["headers"]}
        caller: Caller | None
        if self._keys is None:
            client = scope.get("client")
            caller = Caller(client[0] if client else "local", "write")
        else:
            key = _key(headers)
            caller = self._keys.met(key)
            if caller is None:
                # Keys not met before share one bucket per address, so that they cannot be tried at speed, and are
                # hashed on a thread, so that nobody else waits for it.
                client = scope.get("client")
                if wait := self._limit.take(f"unknown:{client[0] if client else ''}"):
                    await _refuse(send, 429, "Too many requests.", retry=wait)
                    return
                caller = await asyncio.to_thread(self._keys.caller, key)
        if caller is None:
            await _refuse(
                send, 401, "An API key is needed: header `Authorization: Bearer <key>`.", challenge=True
            )
            return
        if wait := self._limit.take(caller.name):
            await _refuse(send, 429, "Too many requests.", retry=wait)
            return
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and caller.role != "write":
            await _refuse(send, 403, "This key may only read.")
            return
        length = headers.get(b"content-length", b"")
        if length and (not length.isdigit() or int(length) > self._config.max_body_bytes):
            await _refuse(send, 413, f"A body may have {self._config.max_body_bytes} bytes.")
            return
        scope["state"] = {**scope.get("state", {}), "caller": caller}
        body = _Bounded(receive, self._config.max_body_bytes)

        async def unless_too_large(message: MutableMapping[str, Any]) -> None:
            if not body.exceeded:  # else what the route made of the broken body is not sent
                await send(message)

        with contextlib.suppress(_TooLargeError):
            await self._app(scope, body, unless_too_large)
        if body.exceeded:
            await _refuse(send, 413, f"A body may have {self._config.max_body_bytes} bytes.")


class _TooLargeError(Exception):
    pass


class _Bounded:
    """`receive` that stops a body without a stated length at the limit."""

    def __init__(self, receive: Callable[[], Any], limit: int) -> None:
        self._receive, self._left, self.exceeded = receive, limit, False

    async def __call__(self) -> MutableMapping[str, Any]:
        message: MutableMapping[str, Any] = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.exceeded = True
                raise _TooLargeError
        return message


def _key(headers: dict[bytes, bytes]) -> str:
    value = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, key = value.partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip()


async def _refuse(
    send: Any, status: int, detail: str, *, retry: float = 0.0, challenge: bool = False
) -> None:
    headers = [(b"content-type", b"application/json")]
    if retry > 0:
        headers.append((b"retry-after", str(int(retry) + 1).encode()))
    if challenge:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})

"""The REST door: TensorFlow Serving's HTTP API and the Prometheus page, on uvicorn."""

from __future__ import annotations

from barcast.serving.model_server.core import Core


class RestDoor:
    """The HTTP server of a core; without --rest_api_port it stays shut."""

    def __init__(self, core: Core) -> None:
        self._options = core.options

    async def start(self) -> int:
        """The bound port; 0 when off."""
        return 0

    async def stop(self) -> None:
        """End it."""

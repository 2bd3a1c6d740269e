"""Server-sent events: all answers at once when a bar or a version is new, a heartbeat otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from barcast.errors import BarcastError
from barcast.serving.predictor import Predictor
from barcast.serving.types import Prediction


def events(
    request: Any,
    predictor: Predictor,
    ask: Callable[[], Awaitable[list[Prediction]]],
    every_seconds: float,
    *,
    once: bool = False,
) -> Any:
    """The response. An error becomes an `error` event; the stream goes on.

    Args:
        ask: gives all answers.
        every_seconds: how often to look.
        once: end after the first event.
    """
    from sse_starlette import EventSourceResponse

    async def produce() -> AsyncIterator[dict[str, str]]:
        last: Any = None
        while not await request.is_disconnected():
            try:
                mark = await asyncio.to_thread(_mark, predictor)
                if mark != last:
                    answers = await ask()
                    yield {
                        "event": "predictions",
                        "data": json.dumps([a.model_dump(mode="json") for a in answers]),
                    }
                    last = mark
            except BarcastError as error:
                yield {"event": "error", "data": json.dumps({"detail": error.message})}
            if once:
                return
            await asyncio.sleep(every_seconds)

    return EventSourceResponse(produce(), ping=15)


def _mark(predictor: Predictor) -> tuple[int, str]:
    """Changes whenever another answer may be due."""
    predictor.book.refresh()
    table = predictor.live.read()
    return predictor.book.revision, json.dumps([table.models, table.traffic], sort_keys=True)

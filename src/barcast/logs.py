"""Structured logs: quiet by default (warnings and worse), on standard error, one line an event.

Lines carry what is bound around them: run and step in pipelines, symbol and job in workers, symbol and version
where a model speaks, and the trace where one is recorded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import structlog

from barcast import tracing


def configure(level: str = "warning", *, json: bool = False) -> None:
    """Set the level ("debug" to "error") and the form (readable, or JSON lines for machines)."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            *([_not_told] if number >= logging.WARNING else []),
            structlog.contextvars.merge_contextvars,
            _with_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # standard error as it is then
        cache_logger_on_first_use=False,
    )


def bound(**values: Any) -> Any:
    """A context in which every log line of this thread or task carries `values` (run, step, symbol, version ...)."""
    return structlog.contextvars.bound_contextvars(**values)


_told: list[str] = []


@contextlib.contextmanager
def without(*events: str) -> Iterator[None]:
    """Leave out these events: the command says the same in its own output, where a log line would tear a table.

    At "debug" and "info" they are heard.
    """
    _told.extend(events)
    try:
        yield
    finally:
        for event in events:
            _told.remove(event)


def _not_told(_: Any, __: str, event: Any) -> Any:
    if event["event"] in _told:
        raise structlog.DropEvent
    return event


def _with_trace(_: Any, __: str, event: Any) -> Any:
    if found := tracing.trace_id():
        event["trace"] = found
    return event


@contextlib.contextmanager
def hushed(level: str = "warning") -> Iterator[None]:
    """Keep from standard error what TensorFlow's libraries say while they load; no setting of theirs does.

    Args:
        level: at "debug" and "info" they are heard.
    """
    if level in ("debug", "info"):
        yield
        return
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def get(name: str) -> Any:
    """A logger bound to `name`; `log.bind(symbol=..., version=...)` adds context."""
    return structlog.get_logger(logger_name=name)  # lazy: a level set after this import holds too


configure()

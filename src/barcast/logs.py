"""Structured logs: quiet by default (warnings and worse), on standard error, one line an event."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(level: str = "warning", *, json: bool = False) -> None:
    """Set the level ("debug" to "error") and the form (readable, or JSON lines for machines)."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Any:
    """A logger bound to `name`; `log.bind(symbol=..., version=...)` adds context."""
    return structlog.get_logger().bind(logger=name)


configure()

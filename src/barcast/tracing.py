"""Traces from a bar to its decision, through OpenTelemetry; nothing is recorded until `configure` says where to.

bar → features → push → predict → (windows, model, decide, log): each a span; the model call carries the trace on
to the model server in its gRPC metadata.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace

if TYPE_CHECKING:
    from barcast.config import Config

_tracer = trace.get_tracer("barcast")


def configure(config: Config, service: str) -> None:
    """Record this process' spans as `operations.tracing` says; off leaves everything as it is.

    Args:
        service: the program's name in the traces: feed, gateway, worker, monitor.
    """
    settings = config.operations.tracing
    if settings.exporter == "off":
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    exporter: Any
    if settings.exporter == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=settings.endpoint or None)
    else:
        path = Path(settings.file) if settings.file else config.open_workspace().logs / "traces.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        exporter = ConsoleSpanExporter(
            out=path.open("a"), formatter=lambda span: span.to_json(indent=None) + "\n"
        )
    resource = Resource.create({"service.name": f"barcast-{service}", "service.namespace": config.workspace})
    provider = TracerProvider(
        resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_share))
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    atexit.register(provider.shutdown)


@contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[Any]:
    """A span around the enclosed work, child of the one around it; an exception is recorded on it.

    Costs about 15 microseconds while nothing is configured.
    """
    with _tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


def carried() -> list[tuple[str, str]]:
    """The present trace as metadata for a call to another program; empty where there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return list(carrier.items())


def trace_id() -> str:
    """The present trace's id in hex, for log lines; empty where there is none."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""

"""The newest report as a Prometheus page, for scraping, rules and dashboards.

`barcast_alert{name, severity, subject}` is 1 for each open alert, `barcast_reading{name, subject}` and
`barcast_reading_bound` every measured value and where it begins to be bad, `barcast_monitoring_timestamp_seconds` when
monitoring last looked (an alert for its own death).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily

from barcast import logs
from barcast.errors import BarcastError, ConfigError
from barcast.operations.monitoring.look import Monitor, StoppedError
from barcast.operations.monitoring.serving import await_server
from barcast.operations.monitoring.types import Report

_log = logs.get("monitoring")


class Page:
    """A collector over the newest report; also counts the looks that could not be kept."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.failures = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Any]:
        """All metrics, as prometheus_client asks for them."""
        failures = GaugeMetricFamily("barcast_monitoring_failures", "Looks that failed since the start")
        failures.add_metric([], self.failures)
        yield failures
        report = self.report
        if report is None:
            return
        looked = GaugeMetricFamily("barcast_monitoring_timestamp_seconds", "When monitoring looked (epoch)")
        looked.add_metric([], report.at.timestamp())
        alerts = GaugeMetricFamily("barcast_alert", "Open alerts", labels=["name", "severity", "subject"])
        for alert in report.alerts:
            alerts.add_metric([alert.name, alert.severity, alert.subject], 1.0)
        values = GaugeMetricFamily("barcast_reading", "Measured values", labels=["name", "subject"])
        bounds = GaugeMetricFamily(
            "barcast_reading_bound", "Where they begin to be bad", labels=["name", "subject"]
        )
        for subject, reading in report.readings:
            if reading.value is not None:
                values.add_metric([reading.name, subject], reading.value)
            if reading.bound is not None:
                bounds.add_metric([reading.name, subject], reading.bound)
        yield from (looked, alerts, values, bounds)


def follow(
    monitor: Monitor,
    stop: threading.Event,
    *,
    act: bool = True,
    grace_seconds: float = 0.0,
    seen: Callable[[Report], None] = lambda _: None,
    ready: Callable[[int], None] = lambda _: None,
) -> None:
    """Look again and again until `stop` is set (give the monitor the same), and serve the page meanwhile.

    A look that cannot be kept (a full disk) is logged, counted and tried again.

    Args:
        grace_seconds: longest that the first look waits for a model server that is still starting.
        seen: told each report.
        ready: told the page's port.

    Raises:
        ConfigError: the port is taken.
    """
    settings = monitor.config.operations.monitoring
    page = Page()
    try:
        server, thread = start_http_server(settings.port, settings.host, page.registry)
    except OSError as error:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be used for the metrics ({error.strerror}).",
            hint="Another program holds the port: set operations.monitoring.port.",
        ) from error
    ready(server.server_port)
    try:
        await_server(monitor.config, stop, grace_seconds)
        while not stop.is_set():
            try:
                page.report = monitor.look(act=act)
                seen(page.report)
            except StoppedError:
                return
            except BarcastError as error:
                page.failures += 1
                _log.error("look failed", error=str(error))
            stop.wait(settings.every_seconds)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

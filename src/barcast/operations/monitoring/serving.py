"""What serving says of itself: fallbacks from the prediction log, errors and times from the Prometheus pages.

Counters only grow, so each look is compared with the one before; the first look after a start shows the time since
that start. What a page counted stays known while it does not answer: its errors are told once.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping

import polars as pl
from prometheus_client.parser import text_string_to_metric_families

from barcast.config import Config
from barcast.operations.monitoring.collect import Collected
from barcast.operations.monitoring.types import Reading
from barcast.registry.asking import listens

Totals = dict[str, float]
BREAKER = "breaker"  # no counter: open or closed now
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.5


def judge(collected: Collected, before: Mapping[str, float]) -> tuple[list[Reading], Totals]:
    """Readings, and the counters' totals for the next look.

    Args:
        before: totals of the look before.
    """
    serving = collected.config.serving
    up = listens(serving.endpoint)
    wanted = bool(collected.models) and collected.workspace.models_config.exists()
    readings = [
        Reading(
            name="model_server_up",
            value=float(up),
            bound=1.0 if wanted else None,
            alert="ModelServerDown" if wanted and not up else "",
            text=f"{'listens' if up else 'nothing listens'} at {serving.endpoint}",
        ),
        *_fallbacks(collected),
    ]
    now: Totals = {}
    new: Totals = {}
    for page in (_gateway_page(collected), _server_page(collected)):
        now |= page
        new |= grown(page, before)
    return readings + _counted(collected, now, new), dict(before) | now


def grown(page: Mapping[str, float], before: Mapping[str, float]) -> Totals:
    """What a program's counters grew by; where one of them fell, it was started anew and all began at nothing."""
    counters = {name: value for name, value in page.items() if name != BREAKER}
    if any(value < before.get(name, 0.0) for name, value in counters.items()):
        return counters
    return {name: value - before.get(name, 0.0) for name, value in counters.items()}


def await_server(config: Config, stop: threading.Event, seconds: float) -> None:
    """Give a model server that starts beside the caller time to load what is live; no time where nothing is."""
    until = time.monotonic() + seconds
    while (
        config.open_workspace().models_config.exists()
        and time.monotonic() < until
        and not listens(config.serving.endpoint)
        and not stop.wait(_PAUSE_SECONDS)
    ):
        pass


def _fallbacks(collected: Collected) -> list[Reading]:
    """Share of fallbacks among the newest answers; a handful (a try before the server runs) is not judged."""
    answers = collected.answers
    if answers.is_empty():
        return []
    own = answers.filter(pl.col("arm") != "shadow").sort("answered_us").tail(collected.settings.min_answers)
    if own.is_empty():
        return []
    share = float((own["link"] != "").mean() or 0.0)  # type: ignore[arg-type]
    links = own.filter(pl.col("link") != "")["link"].value_counts(sort=True)
    bound, least = collected.settings.max_fallback_share, collected.settings.min_fallback_answers
    few = own.height < least
    return [
        Reading(
            name="fallback_share",
            value=share,
            bound=bound,
            alert="FallbackShareHigh" if share > bound and not few else "",
            text=f"of the newest {own.height} answers"
            + (f", judged from {least} on" if few else "")
            + "".join(f"; {name}: {n}" for name, n in links.iter_rows()),
        )
    ]


def _gateway_page(collected: Collected) -> Totals:
    gateway = collected.config.gateway
    totals: Totals = {}
    for name, labels, value in _samples(f"http://{_host(gateway.host)}:{gateway.port}/metrics"):
        if name == "barcast_gateway_requests_total":
            kind = "failed" if labels["status"].startswith("5") else "answered"
            _add(totals, f"gateway_{kind}", value)
        elif name == "barcast_log_failures_total":
            _add(totals, "log_failures", value)
        elif name == "barcast_seconds_bucket" and labels["step"] == "predict":
            _add(totals, f"predict_le_{labels['le']}", value)
        elif name == "barcast_breaker_open":
            totals[BREAKER] = value
    return totals


def _server_page(collected: Collected) -> Totals:
    server = collected.config.model_server
    if not server.rest_api_port:
        return {}
    totals: Totals = {}
    address = f"http://{_host(server.bind_address)}:{server.rest_api_port}/monitoring/prometheus/metrics"
    for name, labels, value in _samples(address):
        if name.removesuffix("_total").endswith("tensorflow:serving:request_count"):
            _add(totals, f"server_{'answered' if labels['status'] == 'OK' else 'failed'}", value)
    return totals


def _counted(collected: Collected, now: Totals, new: Totals) -> list[Reading]:
    """Readings of what the counters grew by since the last look."""
    settings = collected.settings
    found = []
    for who, alert in (("gateway", "GatewayErrors"), ("server", "ModelServerErrors")):
        failed, answered = new.get(f"{who}_failed", 0.0), new.get(f"{who}_answered", 0.0)
        if failed + answered:
            share, bound = failed / (failed + answered), settings.max_error_share
            text = f"{failed:.0f} of {failed + answered:.0f} requests failed"
            bad = alert if share > bound else ""
            found.append(Reading(name=f"{who}_error_share", value=share, bound=bound, alert=bad, text=text))
    p99 = quantile({k[11:]: v for k, v in new.items() if k.startswith("predict_le_")}, 0.99)
    if p99 is not None:
        slow = "PredictionsSlow" if p99 > settings.max_p99_seconds else ""
        found.append(
            Reading(
                name="predict_p99_seconds",
                value=p99,
                bound=settings.max_p99_seconds,
                alert=slow,
                text="upper edge of the histogram's bucket",
            )
        )
    if "log_failures" in new:
        bad = "PredictionLogFailing" if new["log_failures"] else ""
        found.append(
            Reading(
                name="log_failures",
                value=new["log_failures"],
                bound=0.0,
                alert=bad,
                text="answers since the last look that could not be recorded",
            )
        )
    if BREAKER in now:
        bad = "BreakerOpen" if now[BREAKER] else ""
        word = "open" if now[BREAKER] else "closed"
        found.append(Reading(name="breaker_open", value=now[BREAKER], bound=0.0, alert=bad, text=word))
    return found


def quantile(buckets: Mapping[str, float], share: float) -> float | None:
    """The upper edge of the bucket that holds the quantile of a cumulative histogram; None where it is empty."""
    ordered = sorted((float(edge), count) for edge, count in buckets.items())
    if not ordered or ordered[-1][1] <= 0:
        return None
    need = share * ordered[-1][1]
    return next(edge for edge, count in ordered if count >= need)


def _samples(address: str) -> Iterable[tuple[str, dict[str, str], float]]:
    """Samples of a Prometheus page; none where nothing answers."""
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE_SECONDS) as page:
            text = page.read().decode()
    except (urllib.error.URLError, OSError, ValueError):
        return []
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _host(address: str) -> str:
    return "127.0.0.1" if address in ("0.0.0.0", "::") else address


def _add(totals: Totals, name: str, value: float) -> None:
    totals[name] = totals.get(name, 0.0) + value

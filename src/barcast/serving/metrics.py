"""Counters and times of the prediction engine, in a Prometheus registry of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import values as prometheus_values

from barcast.serving.breaker import Breaker
from barcast.serving.types import Prediction

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


# Importing Feast switches prometheus_client to files shared by processes, where two registries of one process add up.
prometheus_values.ValueClass = prometheus_values.MutexValue


class Metrics:
    """What the prediction engine and the gateway count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._answers = Counter(
            "barcast_answers",
            "Answers by link of the fallback chain",
            ["link", "kind", "fallback"],
            registry=r,
        )
        self._refused = Counter("barcast_refusals", "Refused answers", registry=r)
        self._acted = Counter(
            "barcast_advice", "Advice by action and confidence band", ["action", "band"], registry=r
        )
        self._rules = Counter("barcast_rule_refusals", "Decisions refused, by rule", ["rule"], registry=r)
        self._cache = Counter("barcast_cache", "Model answers found in the cache", ["result"], registry=r)
        self._lost = Counter(
            "barcast_log_failures", "Answers that could not be logged", ["error"], registry=r
        )
        self._requests = Counter(
            "barcast_gateway_requests", "Gateway requests", ["route", "status"], registry=r
        )
        self._seconds = Histogram("barcast_seconds", "Time of a step", ["step"], registry=r, buckets=_BUCKETS)
        self._breaker = Gauge(
            "barcast_breaker_open", "Circuit breaker of the model server: 1 open", registry=r
        )
        self.feature_age = Gauge(
            "barcast_feature_timestamp", "Close of the newest bar answered (epoch)", registry=r
        )

        self._newest = 0.0

    def watch_breaker(self, breaker: Breaker) -> None:
        """Show whether the circuit breaker of the model server is open (1), looked at when the page is asked for."""
        self._breaker.set_function(lambda: float(breaker.state != "closed"))

    def count(self, what: str, labels: dict[str, str]) -> None:
        """Add one to a counter: answer, cache or log_failure."""
        {"answer": self._answers, "cache": self._cache, "log_failure": self._lost, "request": self._requests}[
            what
        ].labels(**labels).inc()

    def answered(self, prediction: Prediction) -> None:
        """Count a finished answer."""
        if prediction.status == "refused":
            self._refused.inc()
        if prediction.decision is not None:
            self._acted.labels(prediction.decision.action, prediction.decision.confidence_band).inc()
            for refusal in prediction.decision.refusals:
                self._rules.labels(refusal.rule).inc()
        if prediction.feature_timestamp is not None:
            self._newest = max(self._newest, prediction.feature_timestamp.timestamp())
            self.feature_age.set(self._newest)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure the enclosed step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.labels(step).observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """Prometheus text form."""
        return generate_latest(self.registry)

"""Counters and histograms under TensorFlow Serving's names, written in Prometheus' text form."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

_LATENCY_BUCKETS = tuple(10 * 1.8**power for power in range(33))
_MOST_COUNTERS = 10_000
_OTHER = "(other)"
_BATCH_BUCKETS = tuple(float(2**power) for power in range(15))

REQUEST_COUNT = "/tensorflow/serving/request_count"
REQUEST_LATENCY = "/tensorflow/serving/request_latency"
RUNTIME_LATENCY = "/tensorflow/serving/runtime_latency"
EXAMPLE_COUNTS = "/tensorflow/serving/request_example_counts"
QUEUING_LATENCY = "/tensorflow/serving/batching_session/queuing_latency"
INPUT_BATCH_SIZE = "/tensorflow/serving/batching_session/input_batch_size"
PROCESSED_BATCH_SIZE = "/tensorflow/serving/batching_session/processed_batch_size"
PADDING_SIZE = "/tensorflow/serving/batching_session/padding_size"
RUN_COUNT = "/tensorflow/serving/batching_session/wrapped_run_count"
WARMUP_LATENCY = "/tensorflow/serving/model_warmup_latency"
WARMUP_RECORDS = "/tensorflow/serving/model_warmup_records_read"


@dataclass
class _Histogram:
    counts: list[int]
    total: float = 0.0
    number: int = 0


@dataclass
class _Metric:
    kind: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    values: dict[tuple[str, ...], float] = field(default_factory=dict)
    histograms: dict[tuple[str, ...], _Histogram] = field(default_factory=dict)


def _catalogue() -> dict[str, _Metric]:
    return {
        REQUEST_COUNT: _Metric("counter", ("model_name", "status")),
        REQUEST_LATENCY: _Metric("histogram", ("model_name", "API", "entrypoint"), _LATENCY_BUCKETS),
        RUNTIME_LATENCY: _Metric("histogram", ("model_name", "API", "runtime"), _LATENCY_BUCKETS),
        EXAMPLE_COUNTS: _Metric("histogram", ("model",), _BATCH_BUCKETS),
        QUEUING_LATENCY: _Metric("histogram", ("thread_pool_name",), _LATENCY_BUCKETS),
        INPUT_BATCH_SIZE: _Metric("histogram", ("thread_pool_name",), _BATCH_BUCKETS),
        PROCESSED_BATCH_SIZE: _Metric("histogram", ("thread_pool_name",), _BATCH_BUCKETS),
        PADDING_SIZE: _Metric("histogram", ("execution_batch_size",), _BATCH_BUCKETS),
        RUN_COUNT: _Metric("counter", ("thread_pool_name",)),
        WARMUP_LATENCY: _Metric("histogram", ("model_path", "status"), _LATENCY_BUCKETS),
        WARMUP_RECORDS: _Metric("counter", ("model_path",)),
    }


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**63 else repr(float(value))


def _labels(names: Sequence[str], values: Sequence[str], extra: str = "") -> str:
    parts = [f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)]
    if extra:
        parts.append(extra)
    return "{" + ",".join(parts) + "}" if parts else ""


class Metrics:
    """All metrics of one server; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics = _catalogue()

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        with self._lock:
            values = self._metrics[name].values
            values[labels] = values.get(labels, 0) + by

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        metric = self._metrics[name]
        with self._lock:
            histogram = metric.histograms.get(labels)
            if histogram is None:
                histogram = metric.histograms[labels] = _Histogram([0] * (len(metric.buckets) + 1))
            histogram.counts[bisect.bisect_left(metric.buckets, value)] += 1
            histogram.total += value
            histogram.number += 1

    def request(self, model: str, status: str, api: str, entrypoint: str, seconds: float) -> None:
        """One answered request; latency is kept for successes only, as in TensorFlow Serving."""
        counted = self._metrics[REQUEST_COUNT].values
        if (model, status) not in counted and len(counted) >= _MOST_COUNTERS:
            model = (
                _OTHER  # clients may ask for any name: the names that they make up must not fill the memory
            )
        self.count(REQUEST_COUNT, model, status)
        if status == "OK":
            self.observe(REQUEST_LATENCY, seconds * 1e6, model, api, entrypoint)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """The part of a request spent in the model."""
        self.observe(RUNTIME_LATENCY, seconds * 1e6, model, api, "TF1")

    def warmed_up(self, model: str, records: int, seconds: float) -> None:
        """A version's warm-up requests were replayed."""
        self.count(WARMUP_RECORDS, model, by=records)
        if records:
            self.observe(WARMUP_LATENCY, seconds * 1e6, model, "OK")

    def total(self, name: str) -> int:
        """The sum of a counter (or of a histogram's observations) over all labels; 0 for an unknown name."""
        metric = self._metrics.get(name)
        if metric is None:
            return 0
        with self._lock:
            return int(sum(metric.values.values()) + sum(h.number for h in metric.histograms.values()))

    def text(self) -> str:
        """Everything in Prometheus' text form; `/` in names becomes `:`."""
        lines: list[str] = []
        with self._lock:
            for name, metric in self._metrics.items():
                flat = name.replace("/", ":")
                lines.append(f"# TYPE {flat} {metric.kind}")
                for labels, value in metric.values.items():
                    lines.append(f"{flat}{_labels(metric.labels, labels)} {_number(value)}")
                for labels, histogram in metric.histograms.items():
                    lines += self._histogram_lines(flat, metric, labels, histogram)
        return "\n".join(lines) + "\n"

    @staticmethod
    def _histogram_lines(
        flat: str, metric: _Metric, labels: tuple[str, ...], histogram: _Histogram
    ) -> list[str]:
        lines, running = [], 0
        for bound, count in zip((*metric.buckets, None), histogram.counts, strict=True):
            running += count
            edge = "+Inf" if bound is None else f"{bound:g}"
            marked = _labels(metric.labels, labels, f'le="{edge}"')
            lines.append(f"{flat}_bucket{marked} {running}")
        lines.append(f"{flat}_sum{_labels(metric.labels, labels)} {_number(histogram.total)}")
        lines.append(f"{flat}_count{_labels(metric.labels, labels)} {histogram.number}")
        return lines

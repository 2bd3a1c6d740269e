"""The live loop with a real feed, feature engine, Feast store and gRPC call: answers, recovery, and one trace a bar."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from model_double import ModelDouble, outputs

from barcast import clock
from barcast.bars.feed import Batch
from barcast.bars.ingest import open_store
from barcast.bars.live import open_log
from barcast.bars.schema import TIME
from barcast.bars.sources.simulator import simulate
from barcast.config import Config
from barcast.operations.live import Live
from barcast.operations.monitoring import Monitor
from barcast.serving.predictor import open_predictor

NUM_BARS = 420
MODEL = "lively.universal"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelDouble]:
    double = ModelDouble()
    double.models[(MODEL, 1)] = outputs((0.1, 0.3, 0.6))
    yield double
    double.stop()


def made(folder: Path, at: str, **tracing: Any) -> tuple[Config, pl.DataFrame]:
    """A workspace with all bars but the last three closes, and one live version; those closes."""
    config = Config.model_validate(
        {
            "workspace": "lively", "interval": "1h", "horizon_bars": 3, "lookback_bars": 5,
            "storage": {"root": str(folder / "root")}, "source": {"kind": "simulator"},
            "universe": {"calendar": "24/7"}, "features": {"categories": ["price_action"]},
            "serving": {"endpoint": at, "deadline_seconds": 20}, "operations": {"tracing": tracing},
        }
    )  # fmt: skip
    bars = simulate(2, NUM_BARS, "1h", 5, calendar="24/7", start=datetime(2025, 1, 1, tzinfo=UTC))
    times = bars["event_timestamp"].unique().sort()
    workspace = config.open_workspace()
    open_store(config, workspace).append(bars.filter(pl.col("event_timestamp") < times[-3]))
    workspace.models.mkdir(parents=True)
    (workspace.models / "models.config").write_text(
        f'model_config_list {{ config {{ name: "{MODEL}" base_path: "x" model_platform: "tensorflow" '
        'model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 } } }\n'
    )
    return config, bars.filter(pl.col("event_timestamp") >= times[-3])


def batches(bars: pl.DataFrame) -> list[Batch]:
    parts = bars.sort("event_timestamp", "symbol").partition_by("event_timestamp", maintain_order=True)
    return [Batch(part["event_timestamp"][0], part, "live") for part in parts]


def test_each_close_is_answered_from_its_own_window_and_a_correction_begins_again(
    tmp_path: Path, server: ModelDouble
) -> None:
    config, coming = made(tmp_path, server.endpoint)
    log = open_log(config, config.open_workspace())
    first, second, third = batches(coming)
    with Live(config) as live:
        for batch in (first, second):
            log.append(batch.bars)
            answers = live(batch)
            assert [(a.symbol, a.status, a.feature_timestamp) for a in answers] == [
                (s, "success", batch.event_timestamp) for s in ("SIM0000", "SIM0001")
            ]
            assert all(a.model == MODEL and a.decision is not None and a.prediction_id for a in answers)
        online = live.store.online(["SIM0000"], as_of=second.event_timestamp)["SIM0000"]
        assert online.event_timestamp == second.event_timestamp
        changed = second.bars.with_columns(pl.col("high") * 1.5)
        log.append(changed)
        assert live(Batch(second.event_timestamp, changed, "correction")) == []
        log.append(third.bars)
        live(third)
        corrected = live.stream.newest(["SIM0000"]).windows
    with Live(config) as fresh:  # what a restart computes from the stored bars
        assert fresh.stream.newest(["SIM0000"]).windows == pytest.approx(corrected, rel=1e-5)
        assert fresh(first) == []  # known already
    assert "FeaturesStale" not in stale(config)
    later = third.bars.with_columns(pl.col("event_timestamp", "created_timestamp") + timedelta(hours=3))
    open_store(config, config.open_workspace()).append(later)  # bars come, and nothing computes features
    assert "FeaturesStale" in stale(config)


def test_another_process_answers_from_the_bar_that_has_just_closed(
    tmp_path: Path, server: ModelDouble
) -> None:
    """A gateway beside the feed: neither the flush to the table nor any cache keeps a bar or a correction from it."""
    config, coming = made(tmp_path, server.endpoint)
    config = config.model_copy(
        update={"serving": config.serving.model_copy(update={"features_wait_seconds": 30.0})}
    )
    workspace = config.open_workspace()
    table, log = open_store(config, workspace), open_log(config, workspace)
    with Live(config) as live, open_predictor(config, workspace) as gateway:
        before = gateway.predict()
        stored = table.version
        for number, batch in enumerate(batches(coming)):
            bars = batch.bars.with_columns(created_timestamp=pl.lit(clock.now(), dtype=TIME))
            closed = Batch(batch.event_timestamp, bars, "live")
            log.append(bars)  # known from here on; its features follow
            late = threading.Timer(0.3 if number else 0.0, live, [closed])
            late.start()
            answers = gateway.predict()
            late.join()
            assert [a.feature_timestamp for a in answers] == [closed.event_timestamp] * 2
            assert [a.price for a in answers] == bars["close"].to_list()
            assert all(a.fallback is None for a in answers)
            assert {a.input_hash for a in answers}.isdisjoint({a.input_hash for a in before})
            before = answers
        assert table.version == stored  # all this before any flush
        changed = bars.with_columns(
            pl.col("close") * 0.999, created_timestamp=pl.lit(clock.now(), dtype=TIME)
        )
        log.append(changed)
        live(Batch(closed.event_timestamp, changed, "correction"))
        corrected = gateway.predict()
        assert [a.price for a in corrected] == changed["close"].to_list()
        assert {a.input_hash for a in corrected}.isdisjoint({a.input_hash for a in before})
        revision = gateway.book.revision
        log.flush(table)  # the same bars from the table are nothing new
        assert [a.price for a in gateway.predict()] == changed["close"].to_list()
        assert gateway.book.revision == revision


def stale(config: Config) -> set[str]:
    return {alert.name for alert in Monitor(config).look(act=False).alerts}


SCRIPT = """
import pickle, sys
from pathlib import Path
from barcast import logs, tracing
from barcast.config import Config
from barcast.operations.live import Live
from barcast.operations.monitoring import Monitor
from barcast import clock
from barcast.bars.feed import Batch
import polars as pl
if __name__ == "__main__":
    config = Config.model_validate_json(Path(sys.argv[1]).read_text())
    logs.configure("info", json=True)
    tracing.configure(config, "feed")
    bars = pl.read_parquet(sys.argv[2])
    with Live(config) as live:
        live(Batch(bars["event_timestamp"][0], bars, "live"))
"""


class Collector(HTTPServer):
    """An OTLP collector: what it is sent over HTTP, decoded."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            named = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.server.services.add(named["service.name"])  # type: ignore[attr-defined]
            for scope in resource.scope_spans:
                self.server.spans += list(scope.spans)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def run(config: Config, coming: pl.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """One live bar in a process of its own; its log lines."""
    (folder / "config.json").write_text(config.model_dump_json())
    first = batches(coming)[0].bars
    first.write_parquet(folder / "bars.parquet")
    (folder / "live.py").write_text(SCRIPT)
    words = [str(folder / name) for name in ("live.py", "config.json", "bars.parquet")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def test_one_live_bar_to_its_decision_is_one_trace(
    tmp_path: Path, server: ModelDouble, collector: Collector
) -> None:
    address = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    config, coming = made(tmp_path, server.endpoint, exporter="otlp", endpoint=address)
    lines = run(config, coming, tmp_path)
    assert collector.services == {"barcast-feed"}
    (trace,) = {span.trace_id for span in collector.spans}
    by_id = {span.span_id: span for span in collector.spans}
    way = {s.name: by_id[s.parent_span_id].name if s.parent_span_id else "" for s in collector.spans}
    assert way == {
        "bar": "",
        "features": "bar",
        "predict": "bar",
        "windows": "predict",
        "model": "predict",
        "decision": "predict",
        "log": "predict",
        "push": "bar",
    }
    assert server.traces[-1].split("-")[1] == trace.hex()  # the model server is told the trace
    answered = [line for line in lines if line["event"] == "answered"]
    assert {(a["symbol"], a["model"], a["version"], a["trace"]) for a in answered} == {
        (symbol, MODEL, 1, trace.hex()) for symbol in ("SIM0000", "SIM0001")
    }


@pytest.mark.slow
def test_traces_go_to_a_file_where_that_is_configured(tmp_path: Path, server: ModelDouble) -> None:
    config, coming = made(tmp_path, server.endpoint, exporter="file")
    run(config, coming, tmp_path)
    path = config.open_workspace().logs / "traces.jsonl"
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    assert {"bar", "predict", "decision"} <= {span["name"] for span in spans}

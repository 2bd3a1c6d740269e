"""What monitoring reads from the Prometheus pages of gateway and model server, counted from look to look."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import monitoring_world as worlds
import pytest

from barcast.operations.monitoring import Monitor, Report, serving
from barcast.operations.monitoring import metrics as page
from barcast.serving.breaker import Breaker
from barcast.serving.metrics import Metrics
from barcast.serving.model_server.metrics import Metrics as ServerMetrics


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pages() -> Iterator[SimpleNamespace]:
    """Both pages on one port, with the objects that make them."""
    made = SimpleNamespace(gateway=Metrics(), server=ServerMetrics(), clock=Clock())
    made.breaker = Breaker(failures=2, open_seconds=10, timer=made.clock)
    made.gateway.watch_breaker(made.breaker)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = made.gateway.text() if self.path == "/metrics" else made.server.text().encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    made.port = running.server_port
    yield made
    running.shutdown()
    thread.join()
    running.server_close()


def serve(pages: SimpleNamespace, *, good: int = 0, bad: int = 0, seconds: float = 0.004) -> None:
    for _ in range(good):
        pages.gateway.count("request", {"route": "/v1/predictions", "status": "200"})
        pages.gateway._seconds.labels("predict").observe(seconds)
        pages.server.request("m", "OK", "Predict", "GRPC", seconds)
    for _ in range(bad):
        pages.gateway.count("request", {"route": "/v1/predictions", "status": "503"})
        pages.server.request("m", "UNAVAILABLE", "Predict", "GRPC", seconds)


def names(report: Report) -> set[str]:
    return {alert.name for alert in report.alerts}


def value(report: Report, name: str) -> float | None:
    return next(r.value for r in report.whole if r.name == name)


def test_errors_slowness_lost_records_and_the_breaker_are_alerts_and_clear(
    tmp_path: Path, pages: SimpleNamespace
) -> None:
    plain = worlds.config(tmp_path)
    config = plain.model_copy(
        update={
            "gateway": plain.gateway.model_copy(update={"port": pages.port}),
            "model_server": plain.model_server.model_copy(update={"rest_api_port": pages.port}),
        }
    )
    monitor = Monitor(config)
    serve(pages, good=1000)
    quiet = monitor.look()
    assert names(quiet) == set()
    assert value(quiet, "predict_p99_seconds") == 0.005
    assert value(quiet, "gateway_error_share") == 0.0

    serve(pages, good=100, bad=5, seconds=0.8)
    pages.gateway.count("log_failure", {"error": "OSError"})
    pages.breaker.failure()
    pages.breaker.failure()
    spoiled = monitor.look()
    assert names(spoiled) == {
        "GatewayErrors", "ModelServerErrors", "PredictionsSlow", "PredictionLogFailing", "BreakerOpen"
    }  # fmt: skip
    assert value(spoiled, "gateway_error_share") == pytest.approx(5 / 105)  # since the last look only
    assert value(spoiled, "predict_p99_seconds") == 1.0

    pages.clock.now = 11.0
    pages.breaker.success()
    serve(pages, good=500)
    assert names(monitor.look()) == set()
    pages.gateway = Metrics()  # the gateway was started again: its counters begin at nothing
    serve(pages, good=10)
    again = monitor.look()
    assert value(again, "gateway_error_share") == 0.0
    assert again.at - quiet.at < timedelta(minutes=5)


def test_a_page_that_did_not_answer_once_brings_no_old_errors_back(
    tmp_path: Path, pages: SimpleNamespace
) -> None:
    plain = worlds.config(tmp_path)
    gateway = plain.gateway.model_copy(update={"port": pages.port})
    monitor = Monitor(plain.model_copy(update={"gateway": gateway}))
    pages.gateway.count("log_failure", {"error": "OSError"})
    assert names(monitor.look()) == {"PredictionLogFailing"}
    assert names(monitor.look()) == set()
    away = gateway.model_copy(update={"port": 1})
    assert names(Monitor(plain.model_copy(update={"gateway": away})).look()) == set()
    assert names(monitor.look()) == set()


def test_fallbacks_are_judged_once_there_are_enough_answers(tmp_path: Path) -> None:
    world = worlds.build(tmp_path, num_bars=600)
    asked = {"model": "watched.linear", "version": 1, "symbols": ("SIM0000",)}
    world.answer(**asked, first=500, last=505, link="linear")
    few = Monitor(world.config).look(act=False)
    assert "FallbackShareHigh" not in names(few)
    (reading,) = [r for r in few.whole if r.name == "fallback_share"]
    assert reading.value == 1.0
    assert reading.text == "of the newest 6 answers, judged from 20 on; linear: 6"
    world.answer(**asked, first=506, last=519)  # 6 of 20
    assert "FallbackShareHigh" in names(Monitor(world.config).look(act=False))


def test_the_first_look_waits_for_a_model_server_that_starts(tmp_path: Path) -> None:
    import socket

    world = worlds.build(tmp_path, num_bars=1300)
    world.promote()
    starting = socket.socket()
    starting.bind(("127.0.0.1", 0))
    serving = world.config.serving.model_copy(update={"endpoint": f"127.0.0.1:{starting.getsockname()[1]}"})
    quick = world.config.operations.monitoring.model_copy(update={"port": 0})
    operations = world.config.operations.model_copy(update={"monitoring": quick})
    config = world.config.model_copy(update={"serving": serving, "operations": operations})

    def first_look(grace_seconds: float) -> set[str]:
        stop, seen = threading.Event(), []

        def keep(report: Report) -> None:
            seen.append(report)
            stop.set()

        page.follow(Monitor(config), stop, act=False, grace_seconds=grace_seconds, seen=keep)
        return names(seen[0])

    assert "ModelServerDown" in first_look(0.0)
    assert "ModelServerDown" in first_look(1.0)  # it does not come
    opens = threading.Timer(1.5, starting.listen)
    opens.start()
    assert "ModelServerDown" not in first_look(60.0)
    opens.join()
    starting.close()


def test_a_page_that_does_not_answer_once_makes_no_old_error_new(
    tmp_path: Path, pages: SimpleNamespace
) -> None:
    plain = worlds.config(tmp_path)

    def monitor(port: int) -> Monitor:
        gateway = plain.gateway.model_copy(update={"port": port})
        return Monitor(plain.model_copy(update={"gateway": gateway}))

    serve(pages, good=10, bad=5)
    pages.gateway.count("log_failure", {"error": "OSError"})
    assert names(monitor(pages.port).look()) == {"GatewayErrors", "PredictionLogFailing"}
    away = monitor(1).look()
    assert "log_failures" not in {r.name for r in away.whole}
    serve(pages, good=500)
    back = monitor(pages.port).look()
    assert names(back) == set()
    assert value(back, "gateway_error_share") == 0.0


def test_counters_of_a_program_started_anew_begin_together() -> None:
    """More quick answers than before and fewer in all: a counter on its own would hide the quick ones."""
    before = {"predict_le_0.1": 60.0, "predict_le_5": 100.0, "predict_le_+Inf": 100.0, "breaker": 1.0}
    page = {"predict_le_0.1": 70.0, "predict_le_5": 70.0, "predict_le_+Inf": 70.0, "breaker": 0.0}
    buckets = {name[11:]: value for name, value in serving.grown(page, before).items()}
    assert serving.quantile(buckets, 0.99) == 0.1
    quiet = {"gateway_answered": 5.0, "breaker": 0.0}
    assert serving.grown(quiet, {"gateway_answered": 3.0, "breaker": 1.0}) == {"gateway_answered": 2.0}

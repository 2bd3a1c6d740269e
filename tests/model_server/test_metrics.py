"""The metrics of one server."""

from __future__ import annotations

from barcast.serving.model_server.metrics import REQUEST_COUNT, Metrics


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    metrics = Metrics()
    metrics.request("served", "OK", "Predict", "GRPC", 0.001)
    for number in range(20_000):
        metrics.request(f"guess-{number}", "NOT_FOUND", "Predict", "GRPC", 0.001)
    metrics.request("served", "OK", "Predict", "GRPC", 0.001)
    assert metrics.total(REQUEST_COUNT) == 20_002
    lines = [
        line for line in metrics.text().splitlines() if line.startswith(":tensorflow:serving:request_count")
    ]
    assert ':tensorflow:serving:request_count{model_name="served",status="OK"} 2' in lines
    assert ':tensorflow:serving:request_count{model_name="(other)",status="NOT_FOUND"} 10001' in lines
    assert len(lines) <= 10_020

"""The HTTP door: keys, rates, sizes, paths; answers; feedback that is kept once; an account from outside."""

from __future__ import annotations

import json
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from model_double import outputs
from serving_world import World

from barcast import logs
from barcast.errors import RefusedError, ServingError
from barcast.serving import state
from barcast.serving.client import ModelClient
from barcast.serving.gateway import create_app, middleware, security
from barcast.serving.gateway.security import KeyFile, RateLimit
from barcast.serving.prediction_log import PredictionLog

with warnings.catch_warnings():  # starlette asks for httpx's successor, which nothing else here knows yet
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient


@pytest.fixture
def door(world: World) -> Iterator[tuple[World, TestClient, PredictionLog]]:
    """A gateway with a key that may write."""
    log = PredictionLog(world.workspace.logs / "predictions.db")
    key = KeyFile(world.workspace.state / "api_keys.json").make("ana", "write")
    app = create_app(world.predictor(log=log), log)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield world, client, log


Door = tuple[World, TestClient, PredictionLog]
TRADE: dict[str, Any] = {
    "trade_id": "t-1",
    "symbol": "AAA",
    "action": "BUY",
    "entry_price": 100.0,
    "exit_price": 106.0,
    "opened_at": "2024-01-10T10:00:00Z",
    "closed_at": "2024-01-10T10:30:00Z",
    "size": 0.1,
}


def test_prediction_with_key_is_the_full_answer(door: Door) -> None:
    _, client, _ = door
    answer = client.get("/v1/predictions/AAA").json()
    assert answer["symbol"] == "AAA"
    assert answer["action"] == "BUY"
    assert set(answer["probabilities"]) == {"SELL", "HOLD", "BUY"}
    assert answer["model_version"] == 1
    assert answer["prediction_id"]
    everything = client.get("/v1/predictions").json()
    assert [a["symbol"] for a in everything] == ["AAA", "BBB", "CCC"]
    two = client.get("/v1/predictions", params={"symbols": ["CCC", "AAA"], "explain": True}).json()
    assert [a["symbol"] for a in two] == ["CCC", "AAA"]
    assert two[0]["explanation"]["rationale"].startswith("BUY: the universal model v1")


def test_request_without_or_with_wrong_key_is_refused(door: Door) -> None:
    _, client, _ = door
    right = client.headers.pop("Authorization").removeprefix("Bearer ")
    for headers in (
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {right[:-1]}"},
        {"X-API-Key": "é"},
    ):
        answer = client.get(
            "/v1/predictions/AAA", headers={k: v.encode("latin-1") for k, v in headers.items()}
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/predictions/AAA", headers={"X-API-Key": right}).status_code == 200
    assert client.get("/healthz").status_code == 200  # probes carry no key


def test_key_with_read_role_may_not_write_and_revoked_key_stops(door: Door) -> None:
    world, client, _ = door
    keys = KeyFile(world.workspace.state / "api_keys.json")
    reader = {"Authorization": f"Bearer {keys.make('bob', 'read')}"}
    assert client.get("/v1/account", headers=reader).status_code == 200
    assert client.post("/v1/feedback", json=TRADE, headers=reader).status_code == 403
    keys.revoke("bob")
    assert client.get("/v1/account", headers=reader).status_code == 401


def test_key_file_holds_no_key_and_is_private(world: World) -> None:
    path = world.workspace.state / "api_keys.json"
    key = KeyFile(path).make("ana", "write")
    text = path.read_text()
    assert key not in text
    assert key.split(".")[2] not in text
    assert path.stat().st_mode & 0o077 == 0


def test_rate_limit_with_burst_used_up_says_when_to_come_back(world: World) -> None:
    seconds = [0.0]
    limit = RateLimit(60, 2, timer=lambda: seconds[0])
    assert [limit.take("a"), limit.take("a")] == [0.0, 0.0]
    assert limit.take("a") == pytest.approx(1.0)
    assert limit.take("b") == 0.0
    seconds[0] = 1.0
    assert limit.take("a") == 0.0


def test_requests_beyond_the_burst_are_429(world: World) -> None:
    gate = world.config.gateway.model_copy(
        update={"burst": 3, "requests_per_minute": 1, "require_keys": False}
    )
    world.config = world.config.model_copy(update={"gateway": gate})
    app = create_app(world.predictor(), PredictionLog(world.workspace.logs / "p.db"))
    with TestClient(app) as client:
        codes = [client.get("/v1/account").status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        assert int(client.get("/v1/account").headers["retry-after"]) > 0


def test_unknown_keys_are_tried_no_faster_than_the_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = world.config.gateway.model_copy(update={"burst": 3, "requests_per_minute": 1})
    world.config = world.config.model_copy(update={"gateway": gate})
    keys = KeyFile(world.workspace.state / "api_keys.json")
    known = {"Authorization": f"Bearer {keys.make('ana', 'read')}"}
    threads: list[threading.Thread] = []
    hashed = security._hash

    def counted(secret: str, salt: str) -> str:
        threads.append(threading.current_thread())
        return hashed(secret, salt)

    monkeypatch.setattr(security, "_hash", counted)
    app = create_app(world.predictor(), PredictionLog(world.workspace.logs / "p.db"))

    @app.get("/loop")
    async def loop() -> str:
        threads.append(threading.current_thread())
        return ""

    with TestClient(app) as client:
        assert client.get("/loop", headers=known).status_code == 200
        asked = [{"Authorization": f"Bearer bk.{i:016x}.guess"} for i in range(6)]
        codes = [client.get("/v1/account", headers=wrong).status_code for wrong in asked]
        assert codes == [401, 401, 429, 429, 429, 429]
        assert (
            client.get("/v1/account", headers=known).status_code == 200
        )  # met before: no flood keeps it out
    first, event_loop, *rest = threads
    assert len(rest) == 2  # a hash costs tens of milliseconds: beyond the limit none is made
    assert event_loop not in (first, *rest)  # and meanwhile the others are answered


def test_a_key_revoked_while_it_is_looked_at_is_not_let_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.workspace.state / "api_keys.json"
    key, hashed, keys = KeyFile(path).make("ana", "read"), security._hash, KeyFile(path)

    def slow(secret: str, salt: str) -> str:
        if path.read_text() != "{}":
            KeyFile(path).revoke("ana")
            assert keys.met(key) is None  # another request has seen the new file meanwhile
        return hashed(secret, salt)

    monkeypatch.setattr(security, "_hash", slow)
    assert keys.caller(key) is None
    assert keys.met(key) is None


def test_body_beyond_the_limit_is_413_with_or_without_a_stated_length(door: Door) -> None:
    _, client, _ = door
    big = json.dumps({**TRADE, "trade_id": "x" * 100_000}).encode()
    assert client.post("/v1/feedback", content=big).status_code == 413

    def parts() -> Iterator[bytes]:
        for i in range(0, len(big), 1000):
            yield big[i : i + 1000]

    assert client.post("/v1/feedback", content=parts()).status_code == 413


@pytest.mark.parametrize(
    "path",
    ["/v1/predictions/../../../etc/passwd", "/v1/predictions/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/../state"],
)
def test_path_with_traversal_reads_no_file(door: Door, path: str) -> None:
    _, client, _ = door
    answer = client.get(path)
    assert "root:" not in answer.text
    assert answer.status_code in (200, 404)
    if answer.status_code == 200:
        assert answer.json()["status"] == "refused"


@pytest.mark.parametrize(
    "change",
    [
        {"entry_price": 0},
        {"entry_price": 0.001},  # a thousandth of the exit: another unit
        {"entry_price": "NaN"},
        {"action": "HOLD"},
        {"trade_id": "a b"},
        {"unknown": 1},
        {"size": 11},
        {"opened_at": "yesterday"},
    ],
)
def test_feedback_with_bad_field_is_422_and_keeps_nothing(door: Door, change: dict[str, Any]) -> None:
    _, client, log = door
    answer = client.post("/v1/feedback", json={**TRADE, **change})
    assert answer.status_code == 422
    assert log.trades().height == 0


def test_feedback_twice_is_kept_once_and_other_contents_are_refused(door: Door) -> None:
    _, client, log = door
    first = client.post("/v1/feedback", json=TRADE).json()
    assert first["accepted"] is True
    # +6% in half an hour: 1.0 + 2.0 + 0.5
    assert first["reward"] == pytest.approx(3.5)
    assert first["parts"] == {"profitable": 1.0, "high_profit": 2.0, "quick_profit": 0.5}
    assert client.post("/v1/feedback", json=TRADE).json()["accepted"] is False
    assert client.post("/v1/feedback", json={**TRADE, "exit_price": 90.0}).status_code == 409
    backwards = {**TRADE, "trade_id": "t-2", "closed_at": "2024-01-09T10:00:00Z"}
    assert client.post("/v1/feedback", json=backwards).status_code == 409
    assert (
        client.post("/v1/feedback", json={**TRADE, "trade_id": "t-3", "prediction_id": "no"}).status_code
        == 409
    )
    assert log.trades()["trade_id"].to_list() == ["t-1"]


def test_feedback_with_prediction_takes_confidence_and_risk_from_the_log(door: Door) -> None:
    _, client, _ = door
    answer = client.get("/v1/predictions/AAA").json()
    loss = {**TRADE, "exit_price": 99.0, "prediction_id": answer["prediction_id"]}
    parts = client.post("/v1/feedback", json=loss).json()["parts"]
    assert parts == {"losing": -0.5, "overconfidence": -1.0}  # the logged side confidence was 0.857
    other = {**TRADE, "trade_id": "t-9", "symbol": "BBB", "prediction_id": answer["prediction_id"]}
    assert client.post("/v1/feedback", json=other).status_code == 409


def test_account_put_from_outside_changes_sizes_and_pulls_the_stop_on_drawdown(door: Door) -> None:
    _, client, _ = door
    assert client.get("/v1/predictions/AAA").json()["decision"]["size"] == pytest.approx(0.2)
    held = {"symbol": "AAA", "quantity": 15.0, "price": 100.0}
    put = client.put("/v1/account", json={"equity": 10_000, "peak_equity": 10_000, "positions": [held]})
    assert put.status_code == 200
    assert client.get("/v1/predictions/AAA").json()["decision"]["size"] == pytest.approx(0.05)
    lost = client.put("/v1/account", json={"equity": 7_000, "peak_equity": 10_000}).json()
    assert "drawdown 30.0% reached 25%" in lost["emergency_reason"]
    # neither a better account nor a reason sent from outside lifts it
    again = client.put(
        "/v1/account", json={"equity": 10_000, "peak_equity": 10_000, "emergency_reason": ""}
    ).json()
    assert again["emergency_reason"]
    decision = client.get("/v1/predictions/AAA").json()["decision"]
    assert decision["size"] == 0
    assert [r["rule"] for r in decision["refusals"]] == ["emergency_stop"]


def test_accounts_put_at_the_same_time_are_all_taken_whole(door: Door) -> None:
    _, client, _ = door

    def put(number: int) -> int:
        trades = [{"symbol": "AAA", "opened_at": "2024-01-01T00:00:00Z"}] * (number * 40)
        body = {"equity": 1000.0 + number, "peak_equity": 1000.0 + number, "trades": trades}
        return client.put("/v1/account", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, list(range(8)) * 6)) == {200}
    account = client.get("/v1/account").json()
    assert len(account["trades"]) == (account["equity"] - 1000) * 40


def test_account_with_a_trade_without_zone_is_refused_and_answers_go_on(door: Door) -> None:
    _, client, _ = door
    trade = {"symbol": "AAA", "opened_at": "2024-01-12T00:00:00"}
    body = {"equity": 1000.0, "peak_equity": 1000.0, "trades": [trade]}
    assert client.put("/v1/account", json=body).status_code == 422
    assert client.get("/v1/predictions/AAA").status_code == 200


def test_damaged_account_keeps_the_stop_and_says_so(door: Door) -> None:
    world, client, _ = door
    client.post("/v1/stop", json={"by": "ana", "reason": "flash crash"})
    (world.workspace.state / "account.json").write_text("{")
    with pytest.raises(ServingError, match=r"account\.json is damaged"):
        state.lift(world.workspace, "Ana", "checked")
    assert state.load_emergency(world.workspace).active


def test_stop_with_reason_survives_and_only_a_person_lifts_it(door: Door) -> None:
    world, client, _ = door
    assert client.post("/v1/stop", json={"by": "ana", "reason": "flash crash"}).json()["active"]
    assert client.delete("/v1/stop").status_code == 405
    with pytest.raises(RefusedError):
        state.lift(world.workspace, "", "why")
    state.lift(world.workspace, "Ana", "checked")
    assert client.get("/v1/account").json()["emergency_reason"] == ""


def test_damaged_emergency_file_counts_as_stopped(door: Door) -> None:
    world, client, _ = door
    world.workspace.state.mkdir(parents=True, exist_ok=True)
    (world.workspace.state / "emergency.json").write_text("{")
    assert "damaged" in client.get("/v1/account").json()["emergency_reason"]


def test_models_and_metrics_name_what_is_live(door: Door) -> None:
    world, client, _ = door
    (model,) = client.get("/v1/models").json()
    assert (model["name"], model["labels"], model["symbol"]) == ("w.universal", {"stable": 1}, None)
    client.get("/v1/predictions/AAA")
    world.store.error = ConnectionError("x")
    client.get("/v1/predictions/AAA")
    text = client.get("/metrics").text
    answers = [line for line in text.splitlines() if line.startswith("barcast_answers_total")]
    assert 'barcast_answers_total{fallback="false",kind="universal",link="universal"} 1.0' in answers
    assert 'barcast_answers_total{fallback="true",kind="rules",link="rules"} 1.0' in answers
    assert "barcast_gateway_requests_total" in text


def test_models_ask_a_silent_server_once_and_not_for_each(door: Door) -> None:
    world, client, _ = door
    world.live({f"w.S{i}": {"stable": 1} for i in range(5)})
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        predictor = world.predictor(client=ModelClient(f"127.0.0.1:{silent.getsockname()[1]}"))
        app = create_app(predictor, PredictionLog(world.workspace.logs / "p.db"))
        began = time.perf_counter()
        with TestClient(app) as other:
            other.headers.update(client.headers)
            answer = other.get("/v1/models").json()
    assert [model["server"] for model in answer] == [{}] * 5
    assert time.perf_counter() - began < 4.0  # a second each before


def test_portfolio_leaves_the_log_to_what_the_account_is_advised(door: Door) -> None:
    _, client, log = door
    client.post("/v1/stop", json={"by": "ana", "reason": "flash crash"})
    assert client.get("/v1/portfolio").status_code == 200
    client.get("/v1/predictions")
    assert set(log.predictions()["advised"]) == {"HOLD"}


def test_health_with_damaged_table_is_503_and_says_why(door: Door) -> None:
    world, client, _ = door
    assert client.get("/healthz").json()["status"] == "ok"
    (world.workspace.models / "models.config").write_text("nonsense {")
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "cannot be read" in answer.json()["status"]
    assert client.get("/v1/predictions/AAA").status_code == 503


def test_portfolio_with_predictions_keeps_the_limits(door: Door) -> None:
    world, client, _ = door
    weights = client.get("/v1/portfolio").json()["weights"]
    assert set(weights) == {"AAA", "BBB", "CCC"}
    assert all(0 <= w <= 0.2 + 1e-6 for w in weights.values())
    world.server.models[("w.universal", 1)] = outputs((0.6, 0.3, 0.1), expected=-0.01)
    predictor_cache_miss = client.get("/v1/portfolio").json()["weights"]
    assert predictor_cache_miss == weights  # the same version's answer for the same window is kept


def test_stream_with_one_event_gives_all_answers(door: Door) -> None:
    _, client, _ = door
    with client.stream("GET", "/v1/stream", params={"once": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    assert "event: predictions" in text
    data = next(line for line in text.splitlines() if line.startswith("data: "))
    assert [a["symbol"] for a in json.loads(data[6:])] == ["AAA", "BBB", "CCC"]


def test_log_of_requests_never_holds_the_key(
    door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client, _ = door
    key = client.headers["Authorization"].removeprefix("Bearer ")
    logs.configure("debug")
    monkeypatch.setattr(middleware, "_log", logs.get("gateway"))
    try:
        client.get("/v1/predictions/AAA", params={"explain": True})
        client.get("/v1/predictions/AAA", headers={"Authorization": f"Bearer {key}x"})
        client.post("/v1/feedback", content=b"{" + key.encode())
    finally:
        logs.configure()
    written = capsys.readouterr()
    assert "request" in written.err
    assert key not in written.err + written.out
    assert key.split(".")[2] not in written.err + written.out


def test_answer_with_error_inside_shows_no_details(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    world, client, _ = door
    (world.workspace.state / "account.json").write_text("{")
    answer = client.get("/v1/account")
    assert answer.status_code == 503
    assert "damaged" in answer.json()["detail"]


@pytest.mark.filterwarnings("ignore")  # schemathesis and its parts warn about their own future
def test_gateway_with_generated_requests_never_fails(door: Door) -> None:
    _fuzz(door, 5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_gateway_with_many_generated_requests_never_fails(door: Door) -> None:
    _fuzz(door, 300)


def _fuzz(door: Door, examples: int) -> None:
    """Requests made from the OpenAPI schema (valid and not): no server error, and answers as the schema says."""
    import schemathesis
    from hypothesis import HealthCheck, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance

    world = door[0]
    gate = world.config.gateway.model_copy(
        update={"burst": 1_000_000, "requests_per_minute": 1_000_000, "require_keys": False}
    )
    world.config = world.config.model_copy(update={"gateway": gate})
    app = create_app(world.predictor(), PredictionLog(world.workspace.logs / "fuzz.db"))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app).exclude(path=["/v1/stream"])

    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def once(case: Any) -> None:
            response = case.call(timeout=300)
            case.validate_response(response, checks=(not_a_server_error, response_schema_conformance))

        from hypothesis import given

        given(operation.as_strategy())(once)()

"""The console over HTTP: who may enter, what a forged request gets, what the pages say."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import kfp_double
import pytest

from barcast.adapters import kubeflow_cluster
from barcast.config import load
from barcast.console import Access
from barcast.console.access import MAX_FAILURES, Session
from barcast.console.app import Console
from barcast.errors import ConfigError
from barcast.registry import Registry


@pytest.fixture
def outside(console: SimpleNamespace) -> httpx.Client:
    return httpx.Client(base_url=console.url)


@pytest.fixture
def inside(console: SimpleNamespace) -> httpx.Client:
    client = httpx.Client(base_url=console.url)
    answer = client.post("/login", data={"token": console.token, "name": "ana"})
    assert answer.status_code == 303
    return client


def csrf(client: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


@pytest.mark.parametrize(
    "path", ["/", "/history", "/models/AAPL", "/models/AAPL/versions/1", "/models/AAPL/versions/1/report"]
)
def test_every_page_without_session_leads_to_the_login(outside: httpx.Client, path: str) -> None:
    answer = outside.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(
    "path", ["/decide/approve/AAPL", "/decide/reject/AAPL", "/decide/rollback/AAPL", "/logout"]
)
def test_every_form_without_session_changes_nothing(
    outside: httpx.Client, console: SimpleNamespace, path: str
) -> None:
    lines = len(console.registry.ledger.read())
    answer = outside.post(path, data={"version": "3", "champion": "2", "reason": "x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert len(console.registry.ledger.read()) == lines


def test_a_probe_by_address_is_answered_and_a_page_by_that_name_is_not(outside: httpx.Client) -> None:
    by_address = {"host": "10.244.1.17:8601"}
    answer = outside.get("/healthz", headers=by_address)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert outside.get("/login", headers=by_address).status_code == 421


def test_wrong_token_and_missing_name_stay_outside_and_guessing_is_braked(
    outside: httpx.Client, console: SimpleNamespace
) -> None:
    assert outside.post("/login", data={"token": console.token, "name": " "}).status_code == 401
    for _ in range(MAX_FAILURES - 1):
        assert outside.post("/login", data={"token": "wrong", "name": "ana"}).status_code == 401
    assert outside.post("/login", data={"token": console.token, "name": "ana"}).status_code == 429


def test_login_sets_a_strict_cookie_and_headers_are_safe(
    outside: httpx.Client, console: SimpleNamespace
) -> None:
    answer = outside.post("/login", data={"token": console.token, "name": "ana"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    for path in ("/", "/login", "/nothing", "/static/console.css"):
        headers = outside.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "script-src" not in headers["content-security-policy"]  # so scripts fall under 'none'
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"csrf": ""}, {}),
        ({"csrf": "other"}, {}),
        ({}, {"origin": "https://evil.example"}),
        ({}, {"origin": "null"}),
        ({}, {"sec-fetch-site": "cross-site"}),
        ({}, {"content-type": "text/plain"}),
    ],
)
def test_forged_form_is_refused(
    inside: httpx.Client, console: SimpleNamespace, fields: dict[str, str], headers: dict[str, str]
) -> None:
    lines = len(console.registry.ledger.read())
    data = {"csrf": csrf(inside), "version": "3", "champion": "2", "reason": "x", **fields}
    answer = inside.post("/decide/approve/AAPL", data=data, headers=headers)
    assert answer.status_code == 403
    assert "did not come from this console" in answer.text
    assert len(console.registry.ledger.read()) == lines


def test_oversized_form_is_refused(inside: httpx.Client) -> None:
    data = {"csrf": csrf(inside), "version": "3", "reason": "x" * 100_000}
    assert inside.post("/decide/reject/AAPL", data=data).status_code == 403


def test_other_host_name_is_refused(inside: httpx.Client) -> None:
    assert inside.get("/", headers={"host": "rebound.example"}).status_code == 421
    assert inside.get("/", headers={"host": "[::1"}).status_code == 421  # no name at all
    assert inside.post("/logout", headers={"origin": "http://[::1"}, data={"csrf": "x"}).status_code == 403


def test_approval_serves_the_version_in_the_persons_name(
    inside: httpx.Client, console: SimpleNamespace
) -> None:
    data = {"csrf": csrf(inside), "version": "3", "champion": "2", "reason": "clear gain <b>"}
    answer = inside.post("/decide/approve/AAPL", data=data)
    assert (answer.status_code, answer.headers["location"]) == (303, "/models/AAPL")
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 3
    last = console.registry.history("AAPL")[-1]
    assert (last["action"], last["by"], last["reason"]) == ("promoted", "ana", "clear gain <b>")
    page = inside.get("/models/AAPL").text
    assert "Version 3 is live" in page
    assert "clear gain &lt;b&gt;" in page  # what people write is text, never markup


def test_on_a_cluster_an_approval_submits_the_promotion_and_serves_nothing_itself(
    scene: Registry, access: Access
) -> None:
    config = load(None, root=scene.workspace.base)
    with kfp_double.serve() as pipelines:
        submit = partial(kubeflow_cluster.promote, config, host=pipelines.url)
        console = Console(scene, access, "127.0.0.1:1", submit)
        session = Session("ana", "x", 0.0)
        form = {"version": "3", "champion": "2", "reason": "clear gain"}
        assert console.decide(session, "AAPL", "approve", form).status_code == 303
        (run,) = pipelines.runs.values()
    assert run.service_account == "promotion"
    assert session.messages == [("ok", f"Version 3 is approved; run {run.run_id} puts it live.")]
    assert scene.live.read()["daily.AAPL"]["stable"] == 2
    assert scene.history("AAPL")[-1]["action"] == "approved"


def test_on_a_cluster_a_rollback_is_the_promotion_pipelines_work(scene: Registry, access: Access) -> None:
    config = load(None, root=scene.workspace.base)
    with kfp_double.serve() as pipelines:
        submit = partial(kubeflow_cluster.promote, config, host=pipelines.url)
        console = Console(scene, access, "127.0.0.1:1", submit)
        session = Session("ana", "x", 0.0)
        form = {"version": "1", "reason": "losing"}
        assert console.decide(session, "AAPL", "rollback", form).status_code == 303
        (run,) = pipelines.runs.values()
    asked = run.runtime_config["parameters"]
    assert {k: asked[k] for k in ("rollback", "to", "by", "reason")} == {
        "rollback": "AAPL", "to": 1, "by": "ana", "reason": "losing"
    }  # fmt: skip
    assert session.messages == [("ok", f"Run {run.run_id} puts version 1 live again.")]
    assert scene.live.read()["daily.AAPL"]["stable"] == 2


def test_model_card_is_read_as_markdown_and_its_markup_is_text(
    inside: httpx.Client, console: SimpleNamespace, kit: SimpleNamespace, tmp_path: Path
) -> None:
    folder = kit.model_folder(tmp_path / "export", 78)
    limits = ("Only <script>alert(1)</script> days.", "![pixel](http://elsewhere.example/p.png)")
    version = console.registry.register(folder, "IBM", kit.metadata(limits=limits), recorded=kit.recorded())
    text = inside.get(f"/models/IBM/versions/{version}").text
    card = text[text.index('class="panel card-text"') :]
    assert "<h2>Intended use</h2>" in card
    assert "<li>Only &lt;script&gt;alert(1)&lt;/script&gt; days.</li>" in card
    assert "<img" not in card


@pytest.mark.parametrize(
    ("action", "fields", "status", "said"),
    [
        ("approve", {"champion": "1"}, 409, "champion changed while the page was open"),
        ("approve", {"version": "2"}, 409, "not waiting for a decision"),
        ("approve", {"reason": " "}, 409, "needs a reason"),
        ("reject", {"version": "x"}, 400, "not complete"),
        ("rollback", {"version": "3"}, 409, "never served"),
    ],
)
def test_decision_on_another_state_is_refused_with_words(
    inside: httpx.Client,
    console: SimpleNamespace,
    action: str,
    fields: dict[str, str],
    status: int,
    said: str,
) -> None:
    data = {"csrf": csrf(inside), "version": "3", "champion": "2", "reason": "x", **fields}
    answer = inside.post(f"/decide/{action}/AAPL", data=data)
    assert answer.status_code == status
    assert said in answer.text
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 2


def test_rollback_and_reject(inside: httpx.Client, console: SimpleNamespace) -> None:
    data = {"csrf": csrf(inside), "version": "3", "reason": "regime break"}
    assert inside.post("/decide/reject/AAPL", data=data).status_code == 303
    assert inside.post("/decide/rollback/AAPL", data={**data, "version": "1"}).status_code == 303
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 1


def test_pages_say_what_waits_and_why(inside: httpx.Client) -> None:
    overview = inside.get("/").text
    assert "1 decision waits for you" in overview
    assert "Challenger earns 4.2 bps more" in overview
    assert "Nothing listens at 127.0.0.1:1" in overview
    page = inside.get("/models/AAPL").text
    for words in (
        "Approve version 3",
        "43.7%",
        "41.9%",
        "daily.universal:1",
        "What answered when",
        "Roll back as ana",
    ):
        assert words in page
    assert inside.get("/models/universal").status_code == 200
    assert inside.get("/models/_linear").status_code == 200
    assert "d" * 64 in inside.get("/models/AAPL/versions/3").text


def test_unknown_model_and_version_are_clear_pages(inside: httpx.Client) -> None:
    answer = inside.get("/models/AAPLE")
    assert answer.status_code == 404
    assert "Did you mean &#39;AAPL&#39;" in answer.text
    assert inside.get("/models/AAPL/versions/99").status_code == 404
    assert "carries no report" in inside.get("/models/AAPL/versions/3/report").text


def test_history_of_a_day(inside: httpx.Client) -> None:
    today = inside.get("/history").text.split('<td class="nowrap">')[1][:10]
    assert "daily.AAPL" in inside.get("/history", params={"symbol": "AAPL", "day": today}).text
    assert "Nothing answered" in inside.get("/history", params={"symbol": "AAPL", "day": "2001-01-01"}).text
    assert "is no date" in inside.get("/history", params={"symbol": "AAPL", "day": "x"}).text


def test_tampered_ledger_is_shown_and_stops_decisions(inside: httpx.Client, console: SimpleNamespace) -> None:
    token = csrf(inside)
    path = console.registry.ledger.path
    path.write_text(path.read_text().replace('"ana"', '"eve"', 1))
    answer = inside.post(
        "/decide/approve/AAPL", data={"csrf": token, "version": "3", "champion": "2", "reason": "x"}
    )
    assert answer.status_code in (404, 409)
    assert "tampered with or damaged" in answer.text


def test_leaving_ends_the_session(inside: httpx.Client) -> None:
    assert inside.post("/logout", data={"csrf": csrf(inside)}).headers["location"] == "/login"
    assert inside.get("/").status_code == 303


def test_persons_tokens_name_who_decides(console: SimpleNamespace) -> None:
    token = console.access.add_person("Bo Berg")
    access = Access(console.access.persons_file, 60)
    assert not access.asks_name
    assert token not in console.access.persons_file.read_text()
    identity = access.enter(token, "somebody else")
    session = access.session(identity)
    assert session is not None
    assert session.person == "Bo Berg"
    assert access.enter(console.token, "ana") is None
    with pytest.raises(ConfigError, match="is no name"):
        access.add_person(" ")


def test_session_ends_after_its_time(console: SimpleNamespace) -> None:
    access = Access(console.access.persons_file, 0)
    assert access.session(access.enter(access.start_token, "ana")) is None


def test_visits_that_nobody_comes_back_to_do_not_stay_in_memory(console: SimpleNamespace) -> None:
    access = Access(console.access.persons_file, 0)
    for _ in range(5):
        assert access.enter(access.start_token, "ana")
    assert len(access._sessions) == 1

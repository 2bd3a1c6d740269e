"""The health page: what monitoring kept, in words, tables and plots; safe against what it shows."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from barcast.console.watched import line
from barcast.operations.monitoring import Action, History, ModelReport, Reading, Report
from barcast.serving import state

START = datetime(2026, 1, 5, tzinfo=UTC)


def keep(history: History, hour: int) -> None:
    """One look of a life in which AAPL's model grows harmful."""
    at = START + timedelta(hours=hour)
    level = max(0.0, 0.4 * (hour - 20) + math.sin(hour))
    harm = Reading(
        name="harm",
        value=level,
        bound=8.3,
        alert="ModelHarmful" if level > 8.3 else "",
        text="class <shares> gain",
    )
    accuracy = Reading(name="accuracy", value=0.45 - 0.002 * hour, text="evaluated 0.460")
    model = ModelReport(
        model="daily.AAPL", version=2, word="AAPL", kind="network", since=START, answers=1200 + hour, outcomes=1100,
        readings=(accuracy, harm),
    )  # fmt: skip
    raised = {("ModelHarmful", "AAPL"): harm.text} if harm.alert else {}
    actions = (
        (Action(at=at, kind="rollback", subject="AAPL", text="version 2 rolled back"),) if hour == 47 else ()
    )
    whole = (Reading(name="free_gb", value=70 - hour / 10, bound=2.0, text="GB free"),)
    report = Report(
        workspace="daily", at=at, as_of=at, models=(model,), whole=whole,
        alerts=history.raise_alerts(raised, at), actions=actions,
    )  # fmt: skip
    history.add(report, {}, 90)


@pytest.fixture
def watched(console: SimpleNamespace) -> SimpleNamespace:
    history = History(console.registry.workspace.state / "monitoring.db")
    for hour in range(48):
        keep(history, hour)
    return console


def enter(console: SimpleNamespace) -> httpx.Client:
    client = httpx.Client(base_url=console.url)
    assert client.post("/login", data={"token": console.token, "name": "ana"}).status_code == 303
    return client


def test_the_page_shows_alerts_actions_readings_and_plots(watched: SimpleNamespace) -> None:
    assert httpx.get(f"{watched.url}/health").headers["location"] == "/login"
    text = enter(watched).get("/health").text
    assert "1 alert is open" in text
    assert "ModelHarmful" in text
    assert "A model is surely worse than constant class shares." in text
    assert "version 2 rolled back" in text
    assert "class &lt;shares&gt; gain" in text
    assert text.count('class="trend"') == 3
    assert 'aria-label="free_gb from 2026-01-05 00:00: 70 to 65.3"' in text


def test_before_the_first_look_the_page_says_how_to_look(console: SimpleNamespace) -> None:
    assert "Monitoring has not looked yet" in enter(console).get("/health").text


def test_an_active_stop_stands_at_the_top_of_every_page_until_it_is_lifted(console: SimpleNamespace) -> None:
    client, workspace = enter(console), console.registry.workspace
    pages = ("/health", "/", "/history", "/models/AAPL")
    assert not [page for page in pages if "STOPPED" in client.get(page).text]
    state.pull(workspace, "ana", "flash <crash>")
    for page in pages:
        _, _, main = client.get(page).text.partition("<main>")
        assert main.lstrip().startswith('<p class="message bad stopped" role="alert"><b>STOPPED</b>'), page
        assert "flash &lt;crash&gt; (pulled by ana, 20" in main
    assert "STOPPED" not in httpx.get(f"{console.url}/login").text
    state.lift(workspace, "ana", "found")
    assert not [page for page in pages if "STOPPED" in client.get(page).text]


def test_a_line_needs_two_points_and_bears_a_constant_one() -> None:
    moments = [START, START + timedelta(hours=1)]
    assert line([(START, 1.0)], None, "x") == ""
    assert "nan" not in line([(t, 2.0) for t in moments], None, "x")
    assert 'class="limit"' in line([(t, 2.0) for t in moments], 5.0, "x")


@pytest.mark.browser
def test_a_person_finds_the_page(browser_page: Any, watched: SimpleNamespace) -> None:
    page = browser_page
    page.goto(watched.url)
    page.get_by_label("Your name").fill("ana")
    page.get_by_label("Token").fill(watched.token)
    page.get_by_role("button", name="Enter").click()
    page.get_by_role("link", name="Health").click()
    page.get_by_text("1 alert is open").wait_for()
    assert page.locator("svg.trend").count() == 3
    if folder := os.environ.get("BARCAST_PICTURES"):
        page.screenshot(path=str(Path(folder) / "health.png"), full_page=True)
    assert page.problems == []

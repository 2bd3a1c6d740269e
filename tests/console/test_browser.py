"""A person with a browser: enters, looks, approves, rejects, rolls back. Real clicks in headless Chromium."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def enter(page: Any, console: SimpleNamespace) -> None:
    page.goto(console.url)
    page.get_by_label("Your name").fill("ana")
    page.get_by_label("Token").fill(console.token)
    page.get_by_role("button", name="Enter").click()
    page.get_by_text("1 decision waits for you").wait_for()


def picture(page: Any, name: str) -> None:
    """Keep a picture where BARCAST_PICTURES names a folder, for people to look at."""
    folder = os.environ.get("BARCAST_PICTURES")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_approve_with_clicks(browser_page: Any, console: SimpleNamespace) -> None:
    page = browser_page
    page.goto(console.url)
    picture(page, "login")
    enter(page, console)
    picture(page, "overview")
    page.get_by_text("Look and decide").click()
    page.get_by_text("Approve version 3").wait_for()
    picture(page, "model")
    approve = page.locator("form[action='/decide/approve/AAPL']")
    approve.get_by_role("button").click()  # without a reason the browser itself says no
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 2
    approve.get_by_label("Why").fill("Better in both halves; I looked at the drawdown.")
    approve.get_by_role("button").click()
    page.get_by_text("Version 3 is live").wait_for()
    picture(page, "approved")
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 3
    assert console.registry.history("AAPL")[-1]["by"] == "ana"

    page.get_by_label("To version").select_option("1")
    page.locator("form[action='/decide/rollback/AAPL']").get_by_label("Why").fill("drawdown")
    page.get_by_role("button", name="Roll back as ana").click()
    page.get_by_text("Version 1 is live again").wait_for()
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 1
    assert page.problems == []


def test_reject_with_clicks(browser_page: Any, console: SimpleNamespace) -> None:
    page = browser_page
    enter(page, console)
    page.get_by_text("Look and decide").click()
    form = page.locator("form[action='/decide/reject/AAPL']")
    form.get_by_label("Why").fill("The gain is one week in March.")
    form.get_by_role("button").click()
    page.get_by_text("Version 3 is rejected").wait_for()
    assert page.get_by_text("No challenger waits").is_visible()
    page.get_by_role("link", name="History").click()
    page.get_by_text("The gain is one week in March.").wait_for()
    picture(page, "history")
    assert console.registry.live.read()["daily.AAPL"]["stable"] == 2
    assert page.problems == []


def test_report_is_shown_without_its_scripts(
    browser_page: Any, console: SimpleNamespace, kit: SimpleNamespace, tmp_path: Path
) -> None:
    hostile = (
        "<style>h1 { color: green }</style><h1>Report of the run</h1>"
        "<script>document.querySelector('h1').textContent = 'script ran'</script>"
        "<img src='http://elsewhere.example/pixel.png'>"
    )
    folder = kit.model_folder(tmp_path / "export", 77)
    version = console.registry.register(
        folder, "IBM", kit.metadata(), {"report.html": hostile}, kit.recorded()
    )
    page = browser_page
    enter(page, console)
    page.goto(f"{console.url}/models/IBM/versions/{version}")
    page.frame_locator("iframe.report").get_by_role("heading").wait_for()
    picture(page, "version")
    heading = page.frame_locator("iframe.report").get_by_role("heading")
    assert heading.text_content() == "Report of the run"
    assert not [p for p in page.problems if p.startswith("http")]  # nothing was fetched from elsewhere


def test_phone_and_dark_have_no_sideways_scroll(browser_page: Any, console: SimpleNamespace) -> None:
    page = browser_page
    enter(page, console)
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", "/models/AAPL", "/models/AAPL/versions/3", "/history", "/health"):
        page.goto(console.url + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, path
        picture(page, f"phone{path.replace('/', '-')}")

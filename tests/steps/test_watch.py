"""The step that watches: readings as JSON and as a page, and which models need only a new calibration."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from barcast import steps
from barcast.config import load
from barcast.operations.monitoring import Action, Alert, ModelReport, Reading, Report
from barcast.steps.watch import _page

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_look_at_an_empty_workspace_is_kept_and_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(run))
    config = load(None, root=tmp_path)
    config.open_workspace().state.mkdir(parents=True)
    findings, page = tmp_path / "findings.json", tmp_path / "page.html"
    counts, models = steps.monitor(config.model_dump_json(), "monitoring-1", str(findings), str(page))
    assert models == []
    assert not any(name.startswith("actions") for name in counts)
    assert json.loads(findings.read_text())["workspace"] == "daily"
    assert page.read_text() == (run / "monitoring.html").read_text()
    assert "State:" in page.read_text()


def test_the_page_shows_alerts_actions_and_readings_as_text() -> None:
    reading = Reading(name="harm", value=0.51234, bound=0.5, alert="ModelHarmful", text="<b>worse</b>")
    model = ModelReport(
        model="w.AAPL", version=3, word="AAPL", kind="network", since=NOW, answers=9, outcomes=9,
        readings=(reading, Reading(name="accuracy", value=None, text="too few")),
    )  # fmt: skip
    report = Report(
        workspace="w",
        at=NOW,
        as_of=NOW,
        models=(model,),
        whole=(),
        alerts=(Alert(name="ModelHarmful", severity="critical", subject="AAPL", text="worse", since=NOW),),
        actions=(Action(at=NOW, kind="rollback", subject="AAPL", text="version 2 answers again"),),
    )
    page = _page(report)
    assert "State: critical" in page
    assert "version 2 answers again" in page
    assert "0.5123" in page
    assert "&lt;b&gt;worse&lt;/b&gt;" in page
    assert "<td>–</td>" in page

"""An active emergency stop is the first thing that `status` and `monitor` say; what is said is said once."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
import yaml
from monitoring_world import config
from typer.testing import CliRunner

from barcast.cli.monitor import monitor
from barcast.cli.status import status
from barcast.serving import state


def test_status_and_monitor_say_who_stopped_when_and_why_until_it_is_lifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude={"storage"})))
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    app = typer.Typer()
    app.command()(status)
    app.command()(monitor)

    def said(*words: str) -> list[str]:
        result = CliRunner().invoke(app, [*words, "--config", str(path)])
        assert result.exit_code == 0, result.output
        return [line for line in result.stdout.splitlines() if line.startswith("STOPPED")]

    def everywhere() -> list[list[str]]:
        return [said("status"), said("monitor", "--no-act"), said("monitor")]

    assert everywhere() == [[], [], []]
    state.pull(settings.open_workspace(), "ana", "flash crash")
    for lines in everywhere():
        (line,) = lines
        assert "flash crash (pulled by ana, 20" in line
    state.lift(settings.open_workspace(), "ana", "found")
    assert everywhere() == [[], [], []]


def test_monitor_says_an_alert_once_and_in_no_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, monitoring={"min_free_gb": 1e9})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude={"storage"})))
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    app = typer.Typer()
    app.command()(monitor)
    result = CliRunner().invoke(app, ["--no-act", "--config", str(path)])
    assert result.exit_code == 0, result.output
    assert "DiskLow" in result.stdout
    assert result.stderr == ""

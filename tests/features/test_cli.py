"""`barcast features …` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from feature_bars import make_bars
from typer.testing import CliRunner

from barcast.bars.calendar import Calendar
from barcast.bars.ingest import open_store
from barcast.cli.features import app
from barcast.config import load
from barcast.errors import ConfigError, DataError
from barcast.features import compute, feature_names

RUN = CliRunner()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path / ".barcast"))
    monkeypatch.delenv("BARCAST_CONFIG", raising=False)
    path = tmp_path / "barcast.yaml"
    path.write_text("workspace: mine\ninterval: 1h\nuniverse: {calendar: 24/7}\n")
    return path


def test_list_as_json_describes_every_feature(workspace: Path) -> None:
    done = RUN.invoke(app, ["list", "--config", str(workspace), "--interval", "5m", "--json"])
    assert done.exit_code == 0, done.output
    entries = json.loads(done.output)
    assert [entry["name"] for entry in entries] == list(feature_names("5m"))
    assert {"name", "category", "formula", "lookback_bars", "unit", "source", "cross_symbol"} <= set(
        entries[0]
    )


def test_list_for_people_counts_categories(workspace: Path) -> None:
    done = RUN.invoke(app, ["list", "--config", str(workspace)])
    assert "technical" in done.output
    assert f"{len(feature_names('1h'))} in all" in done.output.replace("\n", " ")


def test_unknown_feature_and_category_suggest_the_nearest(workspace: Path) -> None:
    done = RUN.invoke(app, ["show", "rsi14", "--config", str(workspace)])
    assert isinstance(done.exception, DataError)
    assert "rsi_14" in str(done.exception)
    done = RUN.invoke(app, ["list", "--category", "tecnical", "--config", str(workspace)])
    assert isinstance(done.exception, ConfigError)
    assert "technical" in str(done.exception)
    assert "Wilder" in RUN.invoke(app, ["show", "rsi_14", "--config", str(workspace)]).output


def test_compute_writes_the_features_and_counts_dropped_rows(workspace: Path, tmp_path: Path) -> None:
    settings = load(workspace, root=tmp_path / ".barcast")
    frame = make_bars(2, 200, "1h").with_columns(price_factor=pl.lit(1.0), volume_factor=pl.lit(1.0))
    open_store(settings, settings.open_workspace()).append(frame)
    out = tmp_path / "features.parquet"
    done = RUN.invoke(app, ["compute", "S1", "--config", str(workspace), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["dropped_warming_up"] == facts["warmup_bars"] - 1
    assert facts["rows"] == 200
    expected = compute(frame, interval="1h", calendar=Calendar.of("24/7")).filter(pl.col("symbol") == "S1")
    assert pl.read_parquet(out).equals(expected, null_equal=True)
    missing = RUN.invoke(app, ["compute", "S9", "--config", str(workspace)])
    assert isinstance(missing.exception, DataError)


def test_list_in_a_pipe_cuts_no_name_and_breaks_no_row(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = RUN.invoke(app, ["list", "--config", str(workspace)]).output.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(feature_names("1h"))
    assert "…" not in "".join(lines)

"""One way in: source → universe → table; twice is the same as once."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from barcast.bars.ingest import ingest, open_store
from barcast.cli import ingest as cli
from barcast.config import Config
from barcast.errors import DataError, QualityError


def config(tmp_path, **sections: object) -> Config:
    return Config.model_validate({"workspace": "w", "storage": {"root": str(tmp_path)}, **sections})


def test_sample_twice_adds_nothing_and_names_hindsight(tmp_path):
    settings = config(tmp_path)
    first = ingest(settings, settings.open_workspace())
    again = ingest(settings, settings.open_workspace())
    assert (first.added, again.added, again.unchanged) == (12154, 0, 12154)
    assert first.gaps.height == 0
    assert "hindsight" in first.notice
    assert first.store.content_hash() == again.store.content_hash()


def test_bad_file_stores_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "X.csv").write_text("date,open,high,low,close,volume\n2024-01-02,1,0.5,0.7,1,1\n")
    settings = config(tmp_path, source={"kind": "files", "files": {"path": str(tmp_path / "in")}})
    with pytest.raises(DataError, match="high_below_low"):
        ingest(settings, settings.open_workspace())
    assert not open_store(settings, settings.open_workspace()).exists


def test_renamed_symbol_comes_in_under_its_present_name(tmp_path):
    universe = tmp_path / "u.yaml"
    universe.write_text("chosen_on: 2000-01-01\nsymbols: {META: {former_names: {FB: 2022-06-09}}}\n")
    settings = config(tmp_path, universe={"path": str(universe)})
    done = ingest(settings, settings.open_workspace(), symbols=["FB"])
    assert done.store.symbols() == ["META"]
    assert done.notice == ""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The commands as mounted, on a workspace of their own."""
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    app = typer.Typer()
    app.command("ingest")(cli.ingest)
    app.add_typer(cli.app, name="bars")
    return lambda *words: CliRunner().invoke(app, list(words))


def test_commands_ingest_check_split_and_show(run):
    done = json.loads(run("ingest", "FB", "MSFT", "--json").output)
    assert (done["added"], done["missing_bars"]) == (3466, 0)
    assert run("bars", "gaps").output.strip() == "none"
    assert run("bars", "check").exit_code == 0
    split = json.loads(run("bars", "split", "FB", "2", "2013-03-02", "--json").output)
    assert split["replaced"] == 196
    assert len(json.loads(run("bars", "corrections", "FB", "--json").output)) == 196
    history = json.loads(run("bars", "history", "--json").output)
    assert [h["origin"] for h in history] == ["split 2:1 of FB", "sample"]


def test_check_command_fails_on_a_critical_breach(run, tmp_path):
    run("ingest", "IBM", "--end", "2000-06-01")
    run("ingest", "IBM", "--start", "2012-01-01")
    outcome = run("bars", "check", "--report", str(tmp_path / "r"))
    assert isinstance(outcome.exception, QualityError)
    assert "gap_share" in str(outcome.exception)
    assert (tmp_path / "r" / "bars-quality.html").exists()

"""`barcast backtest --symbols` restricts what is measured, not what features and models are made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from barcast.cli.backtest import app
from barcast.errors import DataError

SETTINGS = {
    "workspace": "replayed",
    "interval": "1h",
    "horizon_bars": 3,
    "lookback_bars": 5,
    "source": {"kind": "simulator", "simulator": {"num_symbols": 3, "num_bars": 500}},
    "universe": {"calendar": "24/7"},
    "features": {"categories": ["price_action", "cross_symbol"]},
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SETTINGS))


def _run(tmp_path: Path, *words: str) -> Any:
    return CliRunner().invoke(
        app, ["--config", str(tmp_path / "c.yaml"), "--every-days", "6", "--json", *words]
    )


def test_of_the_symbols_named_only_the_answers_are_chosen(tmp_path: Path) -> None:
    every, one = (_run(tmp_path, *words) for words in ((), ("--symbols", "SIM0001")))
    assert (every.exit_code, one.exit_code) == (0, 0), (every.output, one.output)
    every, one = json.loads(every.stdout), json.loads(one.stdout)
    assert one["log"] == every["log"]  # the same trainings with the same verdicts
    assert len(one["log"]) > 1
    rows = {name: found["evaluation"]["rows"] for name, found in (("every", every), ("one", one))}
    assert rows["every"] == 3 * rows["one"] > 0


def test_a_symbol_without_bars_is_refused_with_its_neighbour(tmp_path: Path) -> None:
    done = _run(tmp_path, "--symbols", "SIM0001,SIM01")
    assert isinstance(done.exception, DataError)
    assert "no bars of 'SIM01'" in done.exception.message

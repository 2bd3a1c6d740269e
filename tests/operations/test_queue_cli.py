"""`barcast queue` on simulated bars, with real worker processes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import queue_marks
import yaml
from typer.testing import CliRunner

from barcast.bars.ingest import open_store
from barcast.bars.sources.simulator import simulate
from barcast.cli.queue import app
from barcast.config import Config, load
from barcast.errors import BarcastError
from barcast.operations import queue_facts


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    path = tmp_path / "barcast.yaml"
    raw = {
        "workspace": "queued",
        "universe": {"calendar": "24/7"},
        "training": {"min_symbol_rows": 200},
        "operations": {
            "queue": {"job": "queue_marks:quick", "poll_seconds": 0.1, "shares": {"S": 0.5}},
        },
    }
    path.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("BARCAST_CONFIG", str(path))
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv(queue_marks.FOLDER, str(tmp_path))
    settings = load(path, root=tmp_path / "root")
    bars = simulate(3, 300, "1d", 7, calendar="24/7")
    open_store(settings, settings.open_workspace()).append(bars)
    return settings


def call(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=True)
    if isinstance(result.exception, BarcastError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_symbols_are_asked_for_worked_off_and_shown(config: Config, tmp_path: Path) -> None:
    rows = json.loads(call("request", "--uncovered", "--json"))
    assert len(rows) == 3
    assert {row["reason"] for row in rows} == {"answered by the universal model"}
    assert all(0 < row["priority"] < 100 for row in rows)
    assert len({row["priority"] for row in rows}) == 3
    assert json.loads(call("status", "--json"))["due"] == 3
    call("work", "--once", "--workers", "2")
    listed = json.loads(call("list", "--json"))
    assert [row["state"] for row in listed] == ["done"] * 3
    assert len([word for word, *_ in queue_marks.marks(tmp_path) if word == "start"]) == 3
    symbol = rows[0]["symbol"]
    assert "done" in call("status", symbol)
    assert "No job was given up." in call("dead")


def test_bad_requests_are_refused_with_what_to_do(config: Config) -> None:
    with pytest.raises(BarcastError, match="no bars of 'NOSUCH'"):
        call("request", "NOSUCH")
    with pytest.raises(BarcastError, match="No symbol is named"):
        call("request")
    with pytest.raises(BarcastError, match="no dead letter"):
        call("retry", "A")
    assert "The queue is empty." in call("list")


def test_facts_hold_the_known_volatility_and_value(config: Config) -> None:
    bars = open_store(config, config.open_workspace()).read()
    facts = queue_facts.gather(config, drift={bars["symbol"][0]: 0.3})
    symbol = bars["symbol"][0]
    own = bars.filter(bars["symbol"] == symbol).sort("event_timestamp")
    adjusted = own["close"] * own["price_factor"]
    deviation = adjusted.log().diff().std()
    assert isinstance(deviation, float)
    assert facts[symbol].volatility == pytest.approx(deviation * math.sqrt(365.25), rel=1e-2)
    assert facts[symbol].traded_value == pytest.approx((own["close"] * own["volume"]).mean(), rel=1e-9)
    assert facts[symbol].model_age_days == math.inf
    assert facts[symbol].drift == 0.3

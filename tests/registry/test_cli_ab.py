"""`barcast models traffic` and `barcast ab report` on a real prediction log and bar table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from barcast.bars.sources.simulator import simulate
from barcast.bars.store import BarStore
from barcast.cli.ab import _outcomes
from barcast.cli.ab import app as ab_app
from barcast.cli.models import app as models_app
from barcast.config import Config
from barcast.errors import RegistryError
from barcast.registry import Registry
from barcast.serving.prediction_log import PredictionLog

MODEL = "daily.SIM0000"


@pytest.fixture
def run(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    monkeypatch.setenv("BARCAST_ROOT", str(registry.workspace.base))

    def call(app: Callable[..., None], *words: str) -> str:
        capsys.readouterr()
        app(list(words), standalone_mode=False)
        return capsys.readouterr().out

    return call


def served(registry: Registry, version: int, arm: str, follow: float) -> None:
    """Answers of a version for every bar of SIM0000: right with the chance `follow`, written as the engine
    does."""
    bars = BarStore(registry.workspace.bars, "1d").read().sort("event_timestamp")
    opens = bars["open"].to_numpy()
    rng = np.random.default_rng(version)
    path = registry.workspace.logs / "predictions.db"
    PredictionLog(path).close()  # makes the table
    with sqlite3.connect(path) as log:
        for i, at in enumerate(bars["event_timestamp"].dt.epoch("us").to_list()[:-6]):
            up = opens[i + 6] > opens[i + 1]
            right = 2 if up else 0
            p = [0.2, 0.2, 0.2]
            p[right if rng.random() < follow else int(rng.integers(0, 3))] = 0.6
            log.execute(
                "INSERT INTO predictions (prediction_id, symbol, feature_us, answered_us, model, version, "
                "kind, arm, "
                "link, p_sell, p_hold, p_buy, confidence, uncertainty, expected_return, expected_volatility) "
                "VALUES (?, 'SIM0000', ?, ?, ?, ?, 'network', ?, '', ?, ?, ?, 0.6, 0.1, 0, 0.02)",
                (f"{version}-{i}", at, at, MODEL, version, arm, *p),
            )


def test_shadow_run_is_reported_and_ended(
    run: Callable[..., str], registry: Registry, kit: SimpleNamespace, tmp_path: Path
) -> None:
    BarStore(registry.workspace.bars, "1d").append(simulate(1, 400, "1d"))
    for salt in (1, 2):
        folder = kit.model_folder(tmp_path / f"export-{salt}", salt)
        limits = {"info": {"thresholds": {"lower": -0.3, "upper": 0.3}}}
        (folder / "assets.extra" / "model.json").write_text(json.dumps(limits))
        registry.register(folder, "SIM0000", kit.metadata(), recorded=kit.recorded(salt))
        registry.judge("SIM0000", salt, kit.PROMOTE)
        registry.set_challenger("SIM0000", salt)
        if salt == 1:
            registry.approve("SIM0000", by="ana", reason="first")
            registry.promote("SIM0000")
    with pytest.raises(RegistryError, match="no challenger that gets requests"):
        run(ab_app, "report", "SIM0000")

    before = json.loads(run(models_app, "list", "--json"))
    decide = ("SIM0000", "--by", "bo", "--reason", "look", "--endpoint", "127.0.0.1:1")
    assert "version 2 gets a copy of all requests" in run(models_app, "traffic", *decide)
    assert json.loads((registry.workspace.models / "traffic.json").read_text()) == {
        MODEL: {"mode": "shadow", "share": 1.0, "version": 2}
    }
    (row,) = json.loads(run(models_app, "list", "--json"))
    assert (row["since"], row["by"]) == (before[0]["since"], "ana")  # of the champion, not of its traffic
    assert "2 (shadow)" in run(models_app, "list")
    served(registry, 1, "champion", 0.0)
    served(registry, 2, "shadow", 0.6)
    found = json.loads(run(ab_app, "report", "SIM0000", "--json"))
    assert found["paired"]
    assert found["champion"]["version"] == 1
    assert found["challenger"]["answers"] == 394
    assert found["challenger"]["accuracy"] > found["champion"]["accuracy"] + 0.2
    assert found["outcome"] == "better"
    assert "challenger v2 against champion v1: better" in run(ab_app, "report", "SIM0000")

    run(models_app, "traffic", *decide, "--mode", "off")
    assert registry.live.read() == {MODEL: {"stable": 1}}
    assert json.loads((registry.workspace.models / "traffic.json").read_text()) == {}


def test_outcomes_are_those_of_training_nights_included(registry: Registry, tmp_path: Path) -> None:
    settings = Config.model_validate(
        {
            "workspace": "daily",
            "interval": "1h",
            "universe": {"calendar": "XNYS"},
            "source": {"kind": "simulator"},
        }
    )
    bars = simulate(1, 140, "1h", calendar="XNYS")
    BarStore(registry.workspace.bars, "1h").append(bars)
    (tmp_path / "assets.extra").mkdir()
    limits = {"info": {"thresholds": {"lower": -0.3, "upper": 0.3}}}
    (tmp_path / "assets.extra" / "model.json").write_text(json.dumps(limits))
    found = _outcomes(settings, registry.workspace, tmp_path)
    # 20 rows before the volatility is known; the last 6 wait for the open five bars after the next one
    assert found.height == 140 - 20 - 6

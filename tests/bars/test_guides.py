"""The commands and files of this room's guides work as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from barcast import labels
from barcast.bars.sources import open_source
from barcast.bars.sources.simulator import simulate
from barcast.bars.universe import Universe
from barcast.config import load
from barcast.errors import DataError
from barcast.features import feature_names

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
BLOCK = re.compile(r"^ *```(\w+)(?: file=(\S+))?\n(.*?)```", re.S | re.M)


def play(name: str, folder: Path) -> str:
    """Write the guide's files and run its shell blocks, in their order; what was printed."""
    said = ""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, file, indented in BLOCK.findall((GUIDES / name).read_text()):
        text = textwrap.dedent(indented)
        if file:
            (folder / file).write_text(text)
        elif kind == "sh":
            done = subprocess.run(
                ["bash", "-e", "-c", text],
                cwd=folder,
                env={**os.environ, "PATH": path, "BARCAST_ROOT": str(folder / "state")},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            said += done.stdout
    return said


def test_add_a_source_guide_works(tmp_path):
    said = play("add-a-source.md", tmp_path)
    assert re.search(r"added +500", said)
    assert "passed: high_below_low" in said


def test_add_a_feature_guide_works(tmp_path, monkeypatch):
    said = play("add-a-feature.md", tmp_path)
    assert "my_surprise" in said
    assert f"{len(feature_names('1d')) + 1} in all" in said.replace("\n", " ")
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path / "labels.yaml")
    found = labels.make(simulate(1, 300, "1d", 3), horizon_bars=config.horizon_bars, config=config.labels)
    assert set(found.filter("valid")["touch"]) == {-1, 0, 1}


def test_live_feed_guide_works(tmp_path):
    said = play("live-feed.md", tmp_path)
    assert said.count("live 2 bars") == 3
    assert re.search(r"replaced +57[0-9]", said)
    assert '"price_factor": 1.0' in said


def test_your_own_data_guide_works(tmp_path):
    said = play("your-own-data.md", tmp_path)
    assert re.search(r"added +4000", said)
    assert (tmp_path / "quality" / "bars-quality.html").exists()
    assert "live 2 bars" in said
    assert Universe.load(tmp_path / "universe.yaml").symbols["META"].former_names
    exchange = load(tmp_path / "exchange.yaml")
    assert open_source(exchange.source, interval="5m", calendar="24/7").symbols() == ["BTC/USDT", "ETH/USDT"]
    broker = load(tmp_path / "broker.yaml")
    peer = broker.source.model_copy(update={"ib": broker.source.ib.model_copy(update={"port": 1})})
    with pytest.raises(DataError, match="does not answer"):
        open_source(peer, interval="5m").fetch()

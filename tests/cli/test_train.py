"""`barcast train` from bars to an exported model, and what it says to bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

SYMBOLS = ("AAA", "BBB")
SETTINGS: dict[str, Any] = {
    "workspace": "tiny",
    "interval": "1d",
    "horizon_bars": 3,
    "lookback_bars": 10,
    "universe": {"calendar": "24/7"},
    "model": {"lstm_units": [6], "attention_heads": 1, "attention_key_dim": 4, "dense_units": [4]},
    "training": {"max_epochs": 1, "transfer_epochs": 1, "transfer_mode": "head", "min_rows": 50},
}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class World:
    folder: Path
    run: Callable[..., Said]

    def config(self, name: str, **sections: Any) -> Path:
        """A configuration of the same workspace with other sections."""
        merged = {**SETTINGS, "source": {"kind": "files", "files": {"path": str(self.folder / "bars")}}}
        for section, values in sections.items():
            merged[section] = {**merged.get(section, {}), **values} if isinstance(values, dict) else values
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(merged))
        return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from barcast.cli import main

    folder = tmp_path_factory.mktemp("train")
    (folder / "bars").mkdir()
    rng = np.random.default_rng(0)
    for symbol in SYMBOLS:
        close = 100 * np.exp(np.cumsum(rng.normal(size=800) * 0.01))
        open_ = close * np.exp(rng.normal(size=800) * 0.002)
        pl.DataFrame(
            {
                "timestamp": [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(800)],
                "open": open_,
                "high": np.maximum(open_, close) * 1.003,
                "low": np.minimum(open_, close) * 0.997,
                "close": close,
                "volume": rng.lognormal(8, 1, 800),
            }
        ).write_parquet(folder / "bars" / f"{symbol}.parquet")
    patch = pytest.MonkeyPatch()
    patch.setenv("BARCAST_ROOT", str(folder / "state"))

    def run(*arguments: str) -> Said:
        import contextlib
        import io

        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "argv", ["barcast", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Said(code, out.getvalue(), err.getvalue())

    found = World(folder, run)
    done = run("ingest", "-c", str(found.config("whole")))
    assert done.code == 0, done.err
    yield found
    patch.undo()


def test_universal_then_symbol_are_trained_exported_and_compared(world: World) -> None:
    config = str(world.folder / "whole.yaml")
    first = world.run("train", "universal", "-c", config, "--out", str(world.folder / "universal"))
    assert first.code == 0, first.err
    assert "log loss" in first.out
    parent = str(world.folder / "universal")
    own = world.run(
        "train", "AAA", "-c", config, "--parent", parent, "--out", str(world.folder / "own"), "--json"
    )
    assert own.code == 0, own.err
    import json

    said = json.loads(own.out)
    assert set(said["scores"]) == {"new", "parent"}
    assert (world.folder / "own" / "saved_model.pb").is_file()

    unknown = world.run("train", "AAB", "-c", config, "--parent", parent)
    assert unknown.code != 0
    assert "no bars of 'AAB'" in unknown.err
    assert "AAA" in unknown.err

    absent = world.run("train", "AAA", "-c", config, "--parent", str(world.folder / "nothing"))
    assert absent.code != 0
    assert "No model in" in absent.err

    broken = world.folder / "broken" / "assets.extra"
    broken.mkdir(parents=True)
    for file in (world.folder / "universal" / "assets.extra").iterdir():
        (broken / file.name).write_bytes(
            file.read_bytes()[:100] if file.suffix == ".npz" else file.read_bytes()
        )
    torn = world.run("train", "AAA", "-c", config, "--parent", str(broken.parent))
    assert torn.code != 0
    assert "corrupted" in torn.err
    assert "untouched" in torn.err

    other = broken / "model.json"
    other.write_text(other.read_text().replace('"feature_names": [', '"feature_names": ["another", ', 1))
    for file in (world.folder / "universal" / "assets.extra").glob("*.npz"):
        (broken / file.name).write_bytes(file.read_bytes())
    swapped = world.run("train", "AAA", "-c", config, "--parent", str(broken.parent))
    assert swapped.code != 0
    assert "position 0" in swapped.err
    assert "Traceback" not in unknown.err + absent.err + torn.err + swapped.err


def test_too_few_rows_and_no_universal_model_are_refused(world: World) -> None:
    many = world.config("many", training={"min_rows": 100_000})
    few = world.run("train", "universal", "-c", str(many))
    assert few.code != 0
    assert "fewer than training.min_rows = 100000" in few.err
    alone = world.run("train", "AAA", "-c", str(world.folder / "whole.yaml"))
    assert alone.code != 0
    assert "no live universal model" in alone.err
    assert "barcast run" in alone.err
    stranger = world.run("train", "ZZZZ", "-c", str(world.folder / "whole.yaml"))
    assert "no bars of 'ZZZZ'" in stranger.err
    assert "universal" not in stranger.err
    crowd = world.config("crowd", model={"symbol_capacity": 2})
    full = world.run("train", "universal", "-c", str(crowd))
    assert full.code != 0
    assert "symbol_capacity = 2" in full.err

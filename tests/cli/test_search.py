"""`barcast tune` and `barcast experiment compare` as a person types them, on a small market."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

SMALL: dict[str, Any] = {
    "workspace": "small",
    "universe": {"calendar": "24/7"},
    "lookback_bars": 10,
    "horizon_bars": 3,
    "features": {"categories": ["ohlcv"]},
    "splits": {"tuning_folds": 2},
    "model": {"lstm_units": [8], "attention_heads": 1, "attention_key_dim": 4, "dense_units": [6]},
    "training": {"max_epochs": 1, "batch_size": 64, "transfer_epochs": 1},
    "tuning": {"trials": 2, "space": {"learning_rate": {"low": 1e-3, "high": 1e-2}, "dropout": [0.1, 0.2]}},
}


def barcast(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from barcast.cli import main; main()", *arguments],
        env={**os.environ, "BARCAST_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=400,
    )


def write(folder: Path, name: str, **changes: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return str(path)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace of two symbols' daily bars."""
    from barcast.bars.ingest import open_store
    from barcast.config import Config

    folder = tmp_path_factory.mktemp("market")
    config = Config(**SMALL, storage={"root": str(folder)})
    random = np.random.default_rng(1)
    parts = []
    for symbol in ("AAA", "BBB"):
        close = 100 * np.exp(np.cumsum(random.normal(size=700) * 0.01))
        times = [datetime(2020, 1, 2, tzinfo=UTC) + timedelta(days=i) for i in range(700)]
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * 700,
                    "event_timestamp": times,
                    "created_timestamp": times,
                    "open": close,
                    "high": close * 1.01,
                    "low": close * 0.99,
                    "close": close,
                    "volume": random.lognormal(8, 1, 700),
                    "price_factor": np.ones(700),
                    "volume_factor": np.ones(700),
                }
            ).with_columns(pl.col("^.*timestamp$").cast(pl.Datetime("us", "UTC")))
        )
    open_store(config, config.open_workspace()).append(pl.concat(parts))
    return folder


def test_bad_searches_end_with_a_message_before_any_work(market: Path, tmp_path: Path) -> None:
    space = {"trials": 1, "space": {"colour": ["red"]}}
    wrong = barcast("tune", "--config", write(tmp_path, "wrong", tuning=space), root=market)
    assert wrong.returncode == 2
    assert "'colour' is no axis of a search" in wrong.stderr
    other = barcast(
        "experiment", "compare", write(tmp_path, "a"), write(tmp_path, "b", horizon_bars=5), root=market
    )
    assert other.returncode == 2
    assert "b differs in horizon_bars" in other.stderr
    assert "Traceback" not in wrong.stderr + other.stderr


@pytest.mark.slow
def test_tune_goes_on_with_its_study_and_compare_takes_its_best(market: Path, tmp_path: Path) -> None:
    config = write(tmp_path, "plain")
    first = barcast("tune", "--config", config, root=market)
    assert first.returncode == 0, first.stderr
    assert "Study network: 2 trials" in first.stdout
    assert "The gate counts 2 trials" in first.stdout
    assert first.stderr.count("trial ") == 2
    again = barcast("tune", "--config", config, "--trials", "1", "--json", root=market)
    found = json.loads(again.stdout)
    assert found["num_trials"] == found["counted"] == 3
    assert all(Path(plot).stat().st_size > 5000 for plot in found["plots"])
    other = write(tmp_path, "other", tuning={"space": {"dropout": [0.1]}})
    refused = barcast("tune", "--config", other, root=market)
    assert refused.returncode == 5
    assert "searched another space: dropout was [0.1, 0.2], now [0.1]" in refused.stderr
    compared = barcast("experiment", "compare", config, found["config"], "--symbols", root=market)
    assert compared.returncode == 0, compared.stderr
    lines = compared.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "linear",
        "plain",
        "plain, own models",
        "best",
        "best, own models",
    ]
    from barcast.registry import Registry
    from barcast.workspace import Workspace

    # Both compared configurations were looked at on test rows: two trials more.
    assert Registry(Workspace("small", market)).num_trials(None) == 5

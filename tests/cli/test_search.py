"""`barcast tune` and `barcast experiment compare` as a person types them, on a small market."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from barcast.errors import ConfigError, DataError, ModelError
from barcast.registry import Registry
from barcast.workspace import Workspace

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


@pytest.fixture
def barcast(market: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in this process, on the market's workspace."""
    from barcast.cli import app

    monkeypatch.setenv("BARCAST_ROOT", str(market))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


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


def test_bad_searches_end_with_a_message_before_any_work(
    barcast: Callable[..., Result], tmp_path: Path
) -> None:
    space = {"trials": 1, "space": {"colour": ["red"]}}
    wrong = barcast("tune", "--config", write(tmp_path, "wrong", tuning=space)).exception
    assert isinstance(wrong, ConfigError)
    assert "'colour' is no axis of a search" in wrong.message
    other = barcast(
        "experiment", "compare", write(tmp_path, "a"), write(tmp_path, "b", horizon_bars=5)
    ).exception
    assert isinstance(other, ConfigError)
    assert "b differs in horizon_bars" in other.message


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tune_goes_on_with_its_study_and_compare_takes_its_best(
    barcast: Callable[..., Result], market: Path, tmp_path: Path
) -> None:
    config = write(tmp_path, "plain")
    first = barcast("tune", "--config", config)
    assert first.exit_code == 0, first.output
    assert "Study network: 2 trials" in first.stdout
    assert "The gate counts 2 trials" in first.stdout
    assert first.stderr.count("trial ") == 2
    again = barcast("tune", "--config", config, "--trials", "1", "--json")
    found = json.loads(again.stdout)
    assert found["num_trials"] == found["counted"] == 3
    assert all(Path(plot).stat().st_size > 5000 for plot in found["plots"])
    other = write(tmp_path, "other", tuning={"space": {"dropout": [0.1]}})
    refused = barcast("tune", "--config", other).exception
    assert isinstance(refused, ModelError)
    assert "searched another space: dropout was [0.1, 0.2], now [0.1]" in refused.message
    compared = barcast("experiment", "compare", config, found["config"], "--symbols")
    assert compared.exit_code == 0, compared.output
    lines = compared.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "linear",
        "plain",
        "plain, own models",
        "best",
        "best, own models",
    ]
    # Both compared configurations were looked at on test rows: two trials more.
    assert Registry(Workspace("small", market)).num_trials(None) == 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_goes_on_with_the_bars_that_came_since(
    barcast: Callable[..., Result], tmp_path: Path
) -> None:
    # The first model learned from half the bars; the second goes on with the rest.
    half = write(tmp_path, "half", splits={"test_share": 0.5})
    model = tmp_path / "first"
    assert barcast("train", "universal", "--config", half, "--out", str(model)).exit_code == 0
    whole = write(tmp_path, "whole")
    asked = ("train", "universal", "--continue", "--config", whole, "--parent", str(model))
    done = barcast(*asked, "--out", str(tmp_path / "second"), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found["scores"]) == {"new", "before", "new, old bars", "before, old bars"}
    # Nothing came since the second one learned.
    again = barcast(
        "train", "universal", "--continue", "--config", whole, "--parent", str(tmp_path / "second")
    )
    assert isinstance(again.exception, DataError)
    assert "0 new rows" in again.exception.message
    nothing_live = barcast("train", "AAA", "--config", whole).exception
    assert isinstance(nothing_live, ModelError)
    assert "no live universal model" in nothing_live.message

"""Making live models anew by the pipeline's step, on a data set that numbers its symbols otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from barcast import datasets, names, steps
from barcast.config import Config
from barcast.training import TrainedModel

KNOWN = ("S0", "S1", "S2")


def test_a_symbol_that_joined_since_does_not_stop_the_renewal_of_the_others(
    universal: Any,
    linear: Any,
    market: pl.DataFrame,
    tools: Any,
    small: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    joined = market.filter(pl.col("symbol") == "S0").with_columns(symbol=pl.lit("A"))
    dataset = tools.dataset(pl.concat([joined, market]))
    assert dataset.symbols == ("A", *KNOWN)  # before all that the models know
    datasets.save(dataset, tmp_path / "dataset")
    live = [
        str(model.export(tmp_path / name)) for name, model in (("linear", linear), ("network", universal))
    ]
    sections = {name: getattr(small, name).model_dump() for name in ("labels", "splits", "model", "training")}
    config = Config(
        **sections,
        horizon_bars=small.horizon_bars,
        lookback_bars=small.lookback_bars,
        storage={"root": str(tmp_path / "state")},
    ).model_dump_json()

    def renew(mode: str, *words: str) -> Path:
        out = tmp_path / mode
        done = steps.renew_models(
            config, "run", json.dumps(words), mode, str(tmp_path / "dataset"), *live, str(tmp_path / "own"), str(out)
        )  # fmt: skip
        assert done == {"made": json.dumps(words), "failed": "{}"}
        return out

    assert TrainedModel.load(renew("recalibrate", names.UNIVERSAL) / names.UNIVERSAL).info.symbols == KNOWN
    made = renew("anew", "S1", "A", names.ENSEMBLE)
    for word in ("S1", "A", names.ENSEMBLE):
        assert TrainedModel.load(made / word).info.symbols == (*KNOWN, "A")

"""What answers now, scored by the models themselves: the live ones that a run makes no new version of, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from barcast import names
from barcast.config import Config
from barcast.registry import Registry, manifest
from barcast.steps import candidates, incumbents
from barcast.steps._record import Run


def test_the_own_champion_of_a_symbol_that_the_run_does_not_renew_answers_for_it(
    dataset: Any, fold: Any, linear: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    config = Config(storage={"root": str(tmp_path / "state")})
    run = Run(config, config.open_workspace(), "run", "evaluate")
    exported = linear.export(tmp_path / "1")
    registry = Registry(run.workspace, config)
    monkeypatch.setattr(registry.tracking, "fetch", lambda *_: exported)
    digest = manifest.digest(manifest.hash_files(exported))
    for word in (names.UNIVERSAL, "S1"):
        line = {"model": registry.model_name(word), "version": 1, "by": "ana"}
        registry.ledger.append("registered", **line, details={"kind": "linear", "digest": digest})
        registry.ledger.append("promoted", **line, details={"labels": {"stable": 1}})
    thresholds = linear.info.thresholds
    incumbents.score(run, registry, names.UNIVERSAL, dataset, fold.test, thresholds, tmp_path)
    incumbents.score_the_rest(
        run, registry, {names.UNIVERSAL, names.LINEAR, "S0"}, dataset, fold.test, thresholds, tmp_path
    )
    assert candidates.results_file(tmp_path, "S1", champion=True).exists()
    like = dataset.rows[fold.test].select("symbol", "event_timestamp")
    found = incumbents.answering_now(tmp_path, like)
    assert found is not None
    who = dict(found.group_by("symbol").agg(pl.col("model").unique()).iter_rows())
    assert who == {"S0": ["champion universal"], "S1": ["champion S1"], "S2": ["champion universal"]}

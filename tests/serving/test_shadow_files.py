"""The shadow's folder: one program at a time, and judgements that stay pairs whenever a program is killed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast.config import Config
from barcast.errors import RefusedError
from barcast.serving import learn
from barcast.serving.online import Update
from barcast.steps.offer import offer

FACTS = pl.DataFrame({"symbol": ["A", "B"], "forward_log_return": [0.1, -0.1]})


def _judged(start: int) -> tuple[Any, Any, Any]:
    mine = np.full((2, 3), float(start))
    facts = FACTS.with_columns(number=pl.Series([start, start + 1]))
    return Update("updated", "", np.arange(2), judged=(mine, mine + 0.5)), facts, np.array([0, 2])


def test_a_kill_between_the_two_writes_leaves_no_outcome_judged_by_one_alone(tmp_path: Path) -> None:
    shadow: Any = SimpleNamespace(folder=tmp_path)
    learn._keep_judged(shadow, *_judged(0))
    before = (tmp_path / learn.CHAMPION).read_bytes()
    learn._keep_judged(shadow, *_judged(2))
    (tmp_path / learn.CHAMPION).write_bytes(before)  # as a kill after the first of the two leaves it
    assert [rows.height for rows in learn.read_judged(tmp_path)] == [2, 2]
    learn._keep_judged(shadow, *_judged(4))
    mine, theirs = learn.read_judged(tmp_path)
    assert mine["number"].to_list() == theirs["number"].to_list() == [0, 1, 4, 5]
    assert (
        pl.read_parquet(tmp_path / learn.SHADOW).height == pl.read_parquet(tmp_path / learn.CHAMPION).height
    )
    (tmp_path / learn.SHADOW).unlink()  # as a kill between the removals leaves them
    assert [rows.height for rows in learn.read_judged(tmp_path)] == [0, 0]


def _hold(config: Config, held: Any, let_go: Any) -> None:
    with learn.shadow_alone(config.open_workspace()):
        held.set()
        let_go.wait(120)


def test_while_one_program_learns_another_is_refused_in_words(tmp_path: Path) -> None:
    config = Config(workspace="w", interval="1h", storage={"root": str(tmp_path)})
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(config, held, let_go))
    other.start()
    try:
        assert held.wait(120)
        log: Any = None
        with pytest.raises(RefusedError, match=rf"feedback learn.* runs already \(process {other.pid}\)"):
            learn.learn(config.open_workspace(), config, log, pl.DataFrame())
        with pytest.raises(RefusedError, match=rf"runs already \(process {other.pid}\)"):
            offer(config)
    finally:
        let_go.set()
        other.join(60)
    with pytest.raises(RefusedError, match="has not answered an outcome"):
        offer(config)

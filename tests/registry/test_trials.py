"""Trials are counted in the ledger, once each, and every version and its judge know how many there were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barcast.errors import RegistryError
from barcast.registry import Registry


def test_trials_of_all_studies_are_added_whoever_ran_them(registry: Registry) -> None:
    assert registry.num_trials(None) == 0
    for number in (0, 1, 1):  # the same trial, told twice, is one trial
        registry.count_trial("network@a", number)
    registry.count_trial("other@b", 4)  # workers elsewhere ran 0 to 3
    assert registry.num_trials(None) == 2 + 5
    assert registry.num_trials("AAPL") == 7
    assert registry.num_trials("_linear") == 0
    assert registry.state().models == {}


def test_a_removed_trial_is_noticed(registry: Registry) -> None:
    for number in range(3):
        registry.count_trial("network@a", number)
    lines = registry.ledger.path.read_bytes().splitlines(keepends=True)
    registry.ledger.path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RegistryError, match="tampered"):
        registry.num_trials(None)


def test_a_version_carries_the_number_of_trials_before_it(
    registry: Registry, register: Callable[..., int], tmp_path: Path
) -> None:
    version = register("AAPL", num_trials=12)
    entry: Any = registry.ledger.read()[-1]
    assert entry.details["num_trials"] == 12
    folder = registry.evidence("AAPL", version, tmp_path / "evidence")
    assert json.loads((folder / "metadata.json").read_text())["num_trials"] == 12
    assert "| configurations tried before it | 12 |" in registry.card("AAPL", version)


def test_life_holds_every_verdict_of_the_model_and_the_tries_behind_it(registry, register, kit):
    assert registry.life("AAPL").num_trials == 1
    for number in range(20):
        registry.count_trial("network", number)
    register("AAPL", {**kit.PROMOTE, "spent": 0.01, "numbers": {"candidate_sharpe_per_block": 0.4}})
    register("AAPL", {**kit.KEEP, "spent": 0.02})
    register("MSFT", kit.KEEP)
    life = registry.life("AAPL")
    assert life.num_trials == 20
    assert [(a.outcome, a.spent, a.sharpe_per_block) for a in life.attempts] == [
        ("promote", 0.01, 0.4),
        ("keep", 0.02, None),
    ]
    assert life.spent(life.attempts[-1].at) == pytest.approx(0.03)
    assert registry.life("_linear").num_trials == 1

"""The shadow learns from outcomes within its bound, goes back when it is worse, and never touches the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast.config.decisions import LearningConfig
from barcast.serving.online import Samples, Shadow, _decision_variables, weights_of

T, F = 4, 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network as training saves it."""
    from barcast.config.models import ModelConfig
    from barcast.labels import Thresholds
    from barcast.models.network import Network
    from barcast.models.presets import architecture
    from barcast.training import ModelInfo, TrainedModel

    shape = architecture(ModelConfig(preset="laptop"), num_features=F, lookback_bars=T)
    network = Network(shape, seed=1).build_once()
    info = ModelInfo(
        "network", None, ("a", "b", "c"), (), T, 5, Thresholds(-0.5, 0.5), 1, "2020-01-01T00:00:00"
    )
    return TrainedModel(network, info, {"mean": np.zeros(F), "scale": np.ones(F)}).save(
        tmp_path_factory.mktemp("champion")
    )


def load(path: Path) -> Any:
    from barcast.training import TrainedModel

    return TrainedModel.load(path)


def samples(count: int, label: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    windows = rng.standard_normal((count, T, F)).astype(np.float32)
    return Samples(windows, np.zeros(count, np.int32), np.full(count, label), np.ones(count))


def keys(*runs: tuple[str, int]) -> pl.Series:
    """Names of outcomes: of each run its letter and a number."""
    return pl.Series("key", [f"{letter} {i}" for letter, count in runs for i in range(count)], dtype=pl.Utf8)


def both(left: Samples, right: Samples) -> Samples:
    names = ("windows", "symbol_ids", "labels", "weights")
    return Samples(*(np.concatenate([getattr(left, n), getattr(right, n)]) for n in names))


def test_learn_with_outcomes_follows_schedule_bound_and_state(saved: Path, tmp_path: Path) -> None:
    config = LearningConfig(learning_rate=5e-3, drift_bound=0.05, replay_share=0.2)
    shadow = Shadow(tmp_path, "w.universal/1", lambda: load(saved), config)
    nothing = samples(0, 0)
    assert shadow.learn(samples(99, 2), keys(("a", 99)), nothing).done == "waiting"
    before = shadow.probabilities(samples(20, 2, seed=9))
    first = shadow.learn(samples(100, 2), keys(("a", 100)), samples(50, 2, seed=5))
    assert first.done == "updated"
    after = shadow.probabilities(samples(20, 2, seed=9))
    assert (after[:, 2] > before[:, 2]).all()  # it learnt what happened
    np.testing.assert_allclose(shadow.probabilities(samples(20, 2, seed=9), of_champion=True), before)

    theirs = [np.asarray(v, dtype=np.float64) for v in _decision_variables(shadow.champion.network)]
    ours = [np.asarray(v, dtype=np.float64) for v in _decision_variables(shadow.model.network)]
    distance = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(ours, theirs, strict=True)))
    assert distance / np.sqrt(sum((b**2).sum() for b in theirs)) <= 0.05 + 1e-6

    again = Shadow(tmp_path, "w.universal/1", lambda: load(saved), config)  # a restart goes on where it was
    assert (again.state.updates, again.state.trades_seen) == (1, 100)
    np.testing.assert_allclose(again.probabilities(samples(20, 2, seed=9)), after, atol=1e-6)
    assert Shadow(tmp_path, "w.universal/2", lambda: load(saved), config).state.updates == 0  # a new champion


def test_learn_with_the_opposite_coming_goes_back_to_the_champion(saved: Path, tmp_path: Path) -> None:
    config = LearningConfig(learning_rate=2e-2, drift_bound=1.0, revert_margin=0.05, replay_share=0.0)
    shadow = Shadow(tmp_path, "w.universal/1", lambda: load(saved), config)
    seen = samples(100, 2)
    assert shadow.learn(seen, keys(("a", 100)), samples(0, 0)).done == "updated"
    update = shadow.learn(both(seen, samples(50, 0, seed=3)), keys(("a", 100), ("b", 50)), samples(0, 0))
    assert update.done == "reverted"
    assert shadow.state.reverts == 1
    probe = samples(10, 0, seed=8)
    np.testing.assert_allclose(
        shadow.probabilities(probe), shadow.probabilities(probe, of_champion=True), atol=1e-7
    )


def test_outcomes_that_become_known_late_are_learnt_once_and_take_nobodys_place(
    saved: Path, tmp_path: Path
) -> None:
    config = LearningConfig(learning_rate=1e-3, revert_margin=10.0, replay_share=0.0)
    shadow = Shadow(tmp_path, "w.universal/1", lambda: load(saved), config)
    first, nothing = samples(100, 2), samples(0, 0)
    assert shadow.learn(first, keys(("a", 100)), nothing).done == "updated"
    # a feed was away: 10 older outcomes come between those known already, and 40 new ones
    late = both(both(samples(10, 1, seed=4), first), samples(40, 2, seed=5))
    names = keys(("late", 10), ("a", 100), ("b", 40))
    again = Shadow(tmp_path, "w.universal/1", lambda: load(saved), config)
    update = again.learn(late, names, nothing)
    assert (update.done, update.reason) == ("updated", "50 outcomes, update 2")
    assert update.fresh.tolist() == [*range(10), *range(110, 150)]
    assert update.judged is not None
    assert len(update.judged[0]) == 50
    assert again.state.trades_seen == 150
    assert again.learn(late, names, nothing).reason == "0 new outcomes, 150 in all"


def test_outcomes_of_an_earlier_champion_are_forgotten(saved: Path, tmp_path: Path) -> None:
    config = LearningConfig(learning_rate=1e-3, replay_share=0.0)
    former = Shadow(tmp_path, "w.universal/1", lambda: load(saved), config)
    former.learn(samples(100, 2), keys(("a", 100)), samples(0, 0))
    now = Shadow(tmp_path, "w.universal/2", lambda: load(saved), config)
    assert now.learn(samples(100, 2), keys(("a", 100)), samples(0, 0)).reason == "100 outcomes, update 1"
    assert now.state.trades_seen == 100


def test_weights_with_rewards_grow_with_their_size() -> None:
    np.testing.assert_allclose(
        weights_of(np.array([0.0, 1.0, -2.5, 9.0, np.nan])), [1.0, 1.5, 2.25, 3.0, 1.0]
    )

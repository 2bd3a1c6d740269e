"""Noise between seeds: further networks trained beside the first, compared on rows that are not the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from barcast import datasets
from barcast.config import Config
from barcast.evaluation import gate
from barcast.training import fit_inputs, seeds, train_linear, train_universal


def _config(small: Any, noise_seeds: int) -> Config:
    training = small.training.model_copy(update={"noise_seeds": noise_seeds, "max_epochs": 1})
    return Config(
        seed=small.seed,
        horizon_bars=small.horizon_bars,
        model=small.model,
        training=training,
        labels=small.labels,
        splits=small.splits,
    )


@pytest.mark.slow
def test_noise_is_the_spread_between_this_and_other_seeds(
    dataset: Any, fold: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(small, 1)
    stored = datasets.save(dataset, tmp_path / "dataset")
    inputs = fit_inputs(dataset, fold.train, config)
    linear = train_linear(dataset, fold, config, tmp_path / "linear", inputs=inputs)

    def trained(seed: int) -> Any:
        other = config.model_copy(update={"seed": seed})
        return train_universal(dataset, fold, other, tmp_path / f"own-{seed}", inputs=inputs, linear=linear)

    with seeds.beside(stored, fold, config, tmp_path, inputs=inputs, linear=tmp_path / "linear") as noise:
        first = trained(config.seed)
        found = noise(first)
    frames = [seeds.predictions(model, dataset, fold) for model in (first, trained(config.seed + 1))]
    expected = gate.seed_noise(frames, config.costs, horizon_bars=config.horizon_bars)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found["log_loss"] > 0
    rows = {*fold.validation.tolist(), *fold.calibration.tolist()}
    assert frames[0].height == len(rows)
    assert not rows & set(fold.test.tolist())


def test_without_further_seeds_the_noise_is_unknown(
    dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    config = _config(small, 0)
    with seeds.beside(
        tmp_path / "none",
        fold,
        config,
        tmp_path,
        inputs=fit_inputs(dataset, fold.train, config),
        linear=tmp_path,
    ) as noise:
        assert noise(None) == {}  # type: ignore[arg-type]

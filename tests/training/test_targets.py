"""Weights and statistics of training rows, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast import labels
from barcast.config.models import LabelsConfig, LossConfig
from barcast.datasets import Dataset
from barcast.errors import DataError
from barcast.labels import Thresholds
from barcast.training import common, targets


def chain_of(durations: list[int], outcomes: list[float], regimes: list[int] | None = None) -> Dataset:
    """One symbol whose rows are decided at successive bars and live as long as told."""
    n = len(durations)
    rows = pl.DataFrame(
        {
            "symbol": ["A"] * n,
            "duration_bars": durations,
            "forward_log_return": outcomes,
            "volatility": [0.01] * n,
            "regime": pl.Series(regimes or [0] * n, dtype=pl.Int8),
            "volatility_regime": pl.Series([1] * n, dtype=pl.Int8),
            "trend_strength": [0.5] * n,
        }
    )
    features = np.arange(3 * (n + 1), dtype=np.float32).reshape(n + 1, 3)
    return Dataset(features, ("a", "b", "c"), 2, np.arange(1, n + 1), np.ones(n, np.int32), ("A",), rows)


LIMITS = Thresholds(upper=0.5, lower=-0.5)


def made(dataset: Dataset, small: Any, **loss: Any) -> targets.Targets:
    config = small.training.model_copy(update={"min_rows": 1, "loss": LossConfig(**loss)})
    return targets.make(dataset, np.arange(len(dataset)), LIMITS, config, LabelsConfig())


def test_weights_balance_classes_and_regimes_and_keep_their_mean(small: Any) -> None:
    # Labels that do not overlap: only the balance speaks.
    dataset = chain_of([1, 1, 1, 1], [0.01, 0.01, 0.01, -0.01], [0, 0, 1, 1])
    plain = made(dataset, small, balance_classes=False)
    np.testing.assert_allclose(plain.arrays["weight"], 1.0)
    assert plain.effective_rows == pytest.approx(4.0)
    assert plain.expected_duration_bars == 1.0
    assert plain.class_shares == (0.25, 0.0, 0.75)
    classes = made(dataset, small).arrays["weight"]
    assert classes[:3].sum() == pytest.approx(classes[3])
    assert classes.mean() == pytest.approx(1.0)
    uneven = replace(dataset, rows=dataset.rows.with_columns(regime=pl.Series([0, 0, 0, 1], dtype=pl.Int8)))
    regimes = made(uneven, small, balance_classes=False, balance_regimes=True).arrays["weight"]
    assert regimes[:3].sum() == pytest.approx(regimes[3])


def test_a_window_with_nan_is_refused_and_one_before_it_is_not(small: Any) -> None:
    dataset = chain_of([1, 1, 1, 1], [0.01, -0.01, 0.01, -0.01])
    dataset.features[3, 1] = np.nan
    # Windows of two bars: the rows at bars 3 and 4 read it.
    assert dataset.broken(np.arange(4)).tolist() == [2, 3]
    with pytest.raises(DataError, match="2 of 4 training windows hold NaN"):
        made(dataset, small)
    config = small.training.model_copy(update={"min_rows": 1})
    targets.make(dataset, np.arange(2), LIMITS, config, LabelsConfig())


def test_triple_barriers_give_the_expected_duration_as_horizon(tools: Any, small: Any) -> None:
    market = tools.bars()
    outcomes = labels.make(
        market, horizon_bars=8, config=LabelsConfig(scheme="triple_barrier", barrier_width=0.7)
    )
    from barcast import datasets

    dataset = datasets.build(tools.features(market), outcomes, lookback_bars=12)
    rows = np.arange(len(dataset))
    found = targets.make(dataset, rows, Thresholds(0.1, -0.1), small.training, small.labels)
    durations = dataset.column("duration_bars")
    assert found.expected_duration_bars == pytest.approx(durations.mean())
    assert 1 < found.expected_duration_bars < 8
    fold = type("F", (), {"describe": lambda self: {}})()
    assert common.facts_of(found, fold, ())["expected_duration_bars"] == round(durations.mean(), 3)


def test_statistics_read_training_windows_only_and_name_the_constant_feature() -> None:
    dataset = chain_of([1] * 6, [0.01] * 6)
    dataset.features[:, 1] = 4.0
    dataset.features[4:, 0] = 1e6  # bars after the last training window
    mean, scale, selected, constant = targets.feature_statistics(dataset, np.arange(3))
    seen = dataset.features[:4]
    np.testing.assert_allclose(mean, seen.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale[[0, 2]], seen.std(axis=0)[[0, 2]], rtol=1e-5)
    assert selected == (0, 2)
    assert constant == ("b",)

"""Targets and weights of every row, as arrays the trainer's steps gather from.

A dataset and thresholds go in; out come (n,) arrays over the dataset's rows. Weights of training rows join
average uniqueness, class balance and regime balance, and have mean 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from barcast.config.models import LabelsConfig, TrainingConfig
from barcast.datasets import Dataset, uniqueness
from barcast.errors import DataError
from barcast.labels import CLASSES, Thresholds


@dataclass(frozen=True)
class Targets:
    """Arrays over all rows of a dataset.

    Attributes:
        arrays: `label, regime, volatility_regime` int32 (-1 unknown), `weight, forward_log_return,
            volatility, trend_strength` (negative unknown), `run_start` float32.
        effective_rows: sum of the training rows' uniqueness.
        class_shares: share of SELL, HOLD, BUY in the training rows.
        expected_duration_bars: mean bars from entry to exit in the training rows: under triple barriers the time
            horizon of an answer, which the fixed horizon only bounds.
    """

    arrays: dict[str, np.ndarray]
    effective_rows: float
    class_shares: tuple[float, ...]
    expected_duration_bars: float = 0.0


def make(
    dataset: Dataset,
    train: np.ndarray,
    thresholds: Thresholds,
    config: TrainingConfig,
    labels: LabelsConfig,
) -> Targets:
    """Targets of all rows; weights other than 1 on `train` only.

    Raises:
        DataError: too few training rows, one class only, or an unknown value in a window.
    """
    if len(train) < config.min_rows:
        raise DataError(
            f"{len(train)} training rows are fewer than training.min_rows = {config.min_rows}.",
            hint="Use a longer history; a short symbol is answered by the universal model.",
        )
    label = dataset.classes(thresholds).astype(np.int32)
    shares = np.bincount(label[train], minlength=3) / len(train)
    if (shares > 0).sum() < 2:
        only = CLASSES[int(shares.argmax())]
        raise DataError(
            f"All {len(train)} training rows are {only}: there is nothing to learn.",
            hint="Use a longer history, another horizon or another hold_share.",
        )
    broken = dataset.broken(train)
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(train)} training windows hold NaN or infinite values, "
            f"the first of {dataset.rows['symbol'][int(broken[0])]}.",
            hint="Build the dataset with datasets.build, which drops and counts them.",
        )
    unique = uniqueness(dataset, train)
    weight = unique.copy() if labels.weighting == "uniqueness" else np.ones(len(train))
    if config.loss.balance_classes:
        weight = weight / np.maximum(shares, 0.02)[label[train]]
    regime = _codes(dataset, "regime")
    if config.loss.balance_regimes:
        known = np.bincount(regime[train] + 1, minlength=4) / len(train)
        weight = weight / np.maximum(known, 0.05)[regime[train] + 1]
    weights = np.ones(len(dataset), dtype=np.float32)
    weights[train] = weight / weight.mean()
    columns = dataset.rows.columns
    trend = (
        dataset.rows["trend_strength"].fill_null(-1.0).fill_nan(-1.0) if "trend_strength" in columns else None
    )
    arrays = {
        "label": label,
        "weight": weights,
        "forward_log_return": np.nan_to_num(dataset.column("forward_log_return")).astype(np.float32),
        "volatility": np.nan_to_num(dataset.column("volatility"), nan=1.0).astype(np.float32),
        "regime": regime,
        "volatility_regime": _codes(dataset, "volatility_regime"),
        "trend_strength": np.full(len(dataset), -1, np.float32)
        if trend is None
        else trend.to_numpy().astype(np.float32),
        "run_start": np.ones(len(dataset), np.float32),
    }
    return Targets(
        arrays,
        float(unique.sum()),
        tuple(float(s) for s in shares),
        float(dataset.column("duration_bars")[train].mean()),
    )


def _codes(dataset: Dataset, name: str) -> np.ndarray:
    if name not in dataset.rows.columns:
        return np.full(len(dataset), -1, dtype=np.int32)
    codes: np.ndarray = dataset.rows[name].fill_null(-1).to_numpy().astype(np.int32)
    return codes


def feature_statistics(
    dataset: Dataset, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], tuple[str, ...]]:
    """Mean and scale (F,) of the training rows, positions of usable features, names of constant ones.

    Statistics read every bar that a training window reads and nothing later.

    Raises:
        DataError: every feature is constant.
    """
    ends = dataset.window_end[train]
    used = np.zeros(len(dataset.features) + 1, dtype=np.int64)
    np.add.at(used, ends - dataset.lookback_bars + 1, 1)
    np.add.at(used, ends + 1, -1)
    bars = np.flatnonzero(np.cumsum(used[:-1]) > 0)
    # In pieces: a copy of the rows would double the memory of a long history.
    pieces = [bars[start : start + 16384] for start in range(0, len(bars), 16384)]
    mean = sum(dataset.features[p].sum(axis=0, dtype=np.float64) for p in pieces) / len(bars)
    square = sum(np.square(dataset.features[p] - mean).sum(axis=0) for p in pieces) / len(bars)
    scale = np.sqrt(square)
    constant = scale <= 1e-7 * np.maximum(1.0, np.abs(mean))
    if constant.all():
        raise DataError(
            f"All {len(constant)} features are constant in the training rows.", hint="Check the bars' prices."
        )
    names = tuple(name for name, dead in zip(dataset.feature_names, constant, strict=True) if dead)
    return mean, np.where(constant, 1.0, scale), tuple(int(i) for i in np.flatnonzero(~constant)), names

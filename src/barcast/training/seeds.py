"""How far two trainings of the same thing lie apart: the floor under every gain that a gate may believe.

A trained network and its dataset in; the same configuration trained with other seeds; spread of the mean net return and
log loss between all of them out. Test rows are not looked at: validation and calibration rows serve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from barcast.datasets import Dataset
from barcast.evaluation import gate
from barcast.splits import Fold
from barcast.training.trained import TrainedModel


def noise(
    model: TrainedModel,
    train: Callable[[Any], TrainedModel],
    dataset: Dataset,
    fold: Fold,
    config: Any,
    *,
    num_seeds: int = 1,
) -> dict[str, float]:
    """Standard deviation between equal models of `net_return` (mean per row) and `log_loss`, for `gate.Scored`.

    Args:
        model: the first of them.
        train: configuration with another seed -> model.
        config: `barcast.config.Config` that `model` was trained with.
        num_seeds: further trainings.
    """
    rows = np.concatenate([fold.validation, fold.calibration])
    others = [train(config.model_copy(update={"seed": config.seed + 1 + k})) for k in range(num_seeds)]
    frames = [m.predictions(dataset, rows, thresholds=model.info.thresholds) for m in (model, *others)]
    return gate.seed_noise(frames, config.costs, horizon_bars=config.horizon_bars)

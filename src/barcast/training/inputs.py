"""What a fit reads of its features: normalisation and selection (B8), from the training rows only.

A dataset and the fold's training rows go in; mean, scale and the positions that the network reads come out. The
positions live in the model's architecture and so inside its SavedModel, which takes the whole FeatureService.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barcast.datasets import Dataset
from barcast.labels import Thresholds, fit_thresholds
from barcast.splits import purged_folds
from barcast.training import targets as target_rows
from barcast.training.settings import Settings


@dataclass(frozen=True)
class Inputs:
    """Features as a fit reads them.

    Attributes:
        mean, scale: (F,) of all features over the bars that training windows read.
        selected: positions that the model reads, ascending.
        constant: names of features that do not vary in the training rows.
        facts: for the model's description: how many were kept, why each other one was not.
    """

    mean: np.ndarray
    scale: np.ndarray
    selected: tuple[int, ...]
    constant: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def fit_inputs(
    dataset: Dataset, train: np.ndarray, settings: Settings, *, thresholds: Thresholds | None = None
) -> Inputs:
    """Normalisation and selection of the rows `train`.

    Args:
        train: row numbers; nothing of any other row is read.
        thresholds: class limits; fitted on these rows when None, as training does.

    Raises:
        DataError: every feature is constant, or too few rows for the purged folds.
    """
    mean, scale, varying, constant = target_rows.feature_statistics(dataset, train)
    config = settings.training.selection
    if not config.enabled or len(varying) <= config.min_features:
        return Inputs(mean, scale, varying, constant)
    from barcast.features.selection import select

    thresholds = thresholds or fit_thresholds(dataset.rows[train], settings.labels)
    at = np.array(varying)
    found = select(
        dataset.features[dataset.window_end[train]][:, at],
        dataset.classes(thresholds)[train],
        purged_folds(dataset.rows[train], config.folds, embargo_bars=settings.splits.embargo_bars),
        names=[dataset.feature_names[k] for k in varying],
        most_correlation=config.max_correlation,
        least_stability=config.min_stability,
        min_features=config.min_features,
        max_features=config.max_features,
        sample_rows=config.sample_rows,
        seed=settings.seed,
    )
    selected = tuple(int(k) for k in at[list(found.indices)])
    dropped = {
        name: reason.removeprefix("dropped: ")
        for name, reason in zip(found.names, found.reasons, strict=True)
        if reason.startswith("dropped")
    }
    facts = {
        "kept": len(selected),
        "of": dataset.num_features,
        "folds": config.folds,
        "reasons": dict(Counter(reason.split(" ")[0] for reason in dropped.values())),
        "dropped": dropped,
    }
    return Inputs(mean, scale, selected, constant, {"selection": facts})

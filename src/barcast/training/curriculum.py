"""Curriculum learning: clear outcomes first, unclear ones later (Bengio et al., 2009).

Targets of a dataset go in; out come the rows of each epoch, for the trainer's `epoch_rows`. An outcome is clear when it
lies far from the limits between the classes. Each class gives the same share of its rows: none is missing early.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from barcast.labels import Thresholds
from barcast.training.targets import Targets

# The first epoch draws this share of the training rows, the clearest.
FIRST_SHARE = 0.5


def curriculum_rows(
    train: np.ndarray, targets: Targets, thresholds: Thresholds, epochs: int
) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Rows of each epoch: the clearest half first, evenly growing, all of them from epoch `epochs` on.

    Args:
        train: row numbers.
        epochs: epochs until every row is drawn, at least 1.
    """
    z = targets.arrays["forward_log_return"][train] / np.maximum(targets.arrays["volatility"][train], 1e-12)
    distance = np.minimum(np.abs(z - thresholds.lower), np.abs(z - thresholds.upper))
    label = targets.arrays["label"][train]
    # Rank within the class, 0 clearest, below 1.
    rank = np.zeros(len(train))
    for code in np.unique(label):
        mine = np.flatnonzero(label == code)
        rank[mine[np.argsort(-distance[mine], kind="stable")]] = np.arange(len(mine)) / len(mine)

    def rows(epoch: int, random: np.random.Generator) -> np.ndarray:
        share = FIRST_SHARE + (1 - FIRST_SHARE) * min(1.0, epoch / epochs)
        return random.permutation(train[rank < share])

    return rows

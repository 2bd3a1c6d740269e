"""Alarms for leaks: a feature that alone tells the outcome better than any honest one could.

A labelled dataset goes in; suspicious features come out. Honest features of returns have rank correlations
of a few hundredths with the outcome; a planted future shows ten times that.
"""

from __future__ import annotations

import numpy as np

from barcast.datasets import Dataset

# Honest single features stay far below this rank correlation with the scaled outcome.
LIMIT = 0.4

# Enough rows for a correlation known to a hundredth.
MOST_ROWS = 20_000


def leaking_features(dataset: Dataset, *, limit: float = LIMIT) -> list[tuple[str, float]]:
    """Features whose value at t is rank-correlated with the scaled outcome after t beyond `limit`.

    Returns:
        (name, Spearman correlation), strongest first; empty when nothing looks like the future.
    """
    from scipy.stats import rankdata

    outcome = dataset.column("forward_log_return") / np.maximum(dataset.column("volatility"), 1e-12)
    known = np.flatnonzero(np.isfinite(outcome))
    known = known[:: max(1, len(known) // MOST_ROWS)]
    target = rankdata(outcome[known])
    x = dataset.features[dataset.window_end[known]]
    found = []
    for at, name in enumerate(dataset.feature_names):
        if x[:, at].std() <= 1e-9:
            continue
        correlation = float(np.corrcoef(rankdata(x[:, at]), target)[0, 1])
        if abs(correlation) > limit:
            found.append((name, correlation))
    return sorted(found, key=lambda pair: -abs(pair[1]))

"""Features: one definition each, computed by the same compiled code in batch and in stream.

Bars (adjusted) go in at `compute` (a table) or `StreamEngine.update` (the bars of one moment); rows of features come
out, null until their look-back is filled. A category module describes and computes its features; nothing else does.
"""

from __future__ import annotations

from barcast.features.batch import compute, correlations
from barcast.features.plan import catalogue, feature_names, require, warmup_bars
from barcast.features.selection import Selection, select
from barcast.features.spec import WARMUP_BUDGET_BARS, FeatureSpec
from barcast.features.stream import StreamEngine

__all__ = [
    "WARMUP_BUDGET_BARS",
    "FeatureSpec",
    "Selection",
    "StreamEngine",
    "catalogue",
    "compute",
    "correlations",
    "feature_names",
    "require",
    "select",
    "warmup_bars",
]

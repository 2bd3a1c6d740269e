"""Features: one definition each, computed by the same compiled code in batch and in stream.

Bars (adjusted) go in at `compute` (a table) or `StreamEngine.update` (the bars of one moment); rows of features come
out, null until their look-back is filled. A category module describes and computes its features; nothing else does.
"""

from __future__ import annotations

from barcast.features.batch import compute
from barcast.features.plan import catalogue, feature_names, require, warmup_bars
from barcast.features.spec import FeatureSpec

__all__ = ["FeatureSpec", "catalogue", "compute", "feature_names", "require", "warmup_bars"]

"""B1: the bar itself, normalised by rolling statistics of the symbol's own last bars.

Nothing here depends on the price level or on how volume is counted, so a split changes nothing.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.kernels import TINY, highest, lowest, mean, rank, sum_squares, zscore
from barcast.features.series import C, H, L, O, V
from barcast.features.spec import Category

ohlcv = Category("ohlcv")

_PRICE = (
    "{} less the mean of the last 50 closes, divided by their standard deviation; 0 where they are constant"
)


@ohlcv.group(
    ("open_zscore_50", _PRICE.format("open"), 50, "standard deviations", "rolling standardisation"),
    ("high_zscore_50", _PRICE.format("high"), 50, "standard deviations", "rolling standardisation"),
    ("low_zscore_50", _PRICE.format("low"), 50, "standard deviations", "rolling standardisation"),
    ("close_zscore_50", _PRICE.format("close"), 50, "standard deviations", "rolling standardisation"),
    ("volume_zscore_50", "volume less its mean over 50 bars, by its standard deviation; 0 where it is constant", 50, "standard deviations", "rolling standardisation"),
    ("close_range_position_50", "place of the close between the lowest low and the highest high of 50 bars; 0.5 where they meet", 50, "share", "rolling min-max scaling"),
    ("close_rank_100", "share of the last 100 closes below this one, equal ones counted half", 100, "share", "rolling rank scaling"),
    ("volume_rank_100", "share of the last 100 volumes below this one, equal ones counted half", 100, "share", "rolling rank scaling"),
)  # fmt: skip
def normalised(x, t, n, s, out):
    if n < 50:
        return
    m = mean(x, C, t, 50)
    sd = math.sqrt(sum_squares(x, C, t, 50, m) / 50)
    flat = sd <= TINY * m
    for i, row in enumerate((O, H, L, C)):
        out[i] = 0.0 if flat else (x[row, t] - m) / sd
    out[4] = zscore(x, V, t, 50, x[V, t])
    top, bottom = highest(x, H, t, 50), lowest(x, L, t, 50)
    out[5] = (x[C, t] - bottom) / (top - bottom) if top - bottom > TINY * top else 0.5
    if n >= 100:
        out[6] = rank(x, C, t, 100)
        out[7] = rank(x, V, t, 100)

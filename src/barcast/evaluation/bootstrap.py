"""Tests and intervals from blocks of calendar time, all symbols together.

Rows of one moment share the market's move, and labels of neighbouring bars overlap: single rows are no
independent draws. So rows are summed in blocks of calendar time, at least a few label spans long, and blocks
are resampled. Rows in, one `Paired` (or an interval) out; the gate and the report read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

_DAY_US = 86_400_000_000
SPANS_PER_BLOCK = 3  # sums of blocks this long share little of their labels with the next block


@dataclass(frozen=True)
class Paired:
    """A paired comparison of per-row values.

    Attributes:
        mean: mean difference per row.
        standard_error: of the mean, from blocks.
        low, high: 95% interval (bootstrap-t).
        p_better, p_worse: one-sided p-values against "no better" and "no worse". Each is the larger of a
            bootstrap-t and Student's t with num_blocks - 1 degrees of freedom, so that few blocks cannot
            promise too much.
        num_blocks, num_rows: sizes.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    p_better: float
    p_worse: float
    num_blocks: int
    num_rows: int


def block_length_days(rows: pl.DataFrame, least_days: float) -> float:
    """Length of a block in days: `least_days`, but at least three times the longest label span of `rows`."""
    span = rows.select(
        (pl.col("label_end_timestamp") - pl.col("event_timestamp")).max().dt.total_microseconds()
    ).item()
    return max(least_days, SPANS_PER_BLOCK * int(span) / _DAY_US)


def block_sums(values: np.ndarray, times: np.ndarray, block_days: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums of `values` (n, k) and row counts per block of `block_days` from the first time on, empty blocks
    left out.

    Args:
        times: (n,) int64 microseconds or datetime64.

    Returns:
        (K, k) sums and (K,) counts, in time order. A last block shorter than half is joined to the one before
        it.
    """
    stamps = (
        times.astype("datetime64[us]").astype(np.int64) if times.dtype.kind == "M" else times.astype(np.int64)
    )
    length = int(block_days * _DAY_US)
    start, end = int(stamps.min()), int(stamps.max())
    last = max(0, (end - start) // length)
    if last > 0 and (end - start) - last * length < length / 2:
        last -= 1
    block = np.minimum((stamps - start) // length, last)
    _, index = np.unique(block, return_inverse=True)
    count = np.bincount(index).astype(np.float64)
    table = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(index, weights=table[:, j]) for j in range(table.shape[1])], axis=1)
    return sums, count


def paired(
    difference: np.ndarray, times: np.ndarray, *, block_days: float, num_samples: int = 5000, seed: int = 0
) -> Paired:
    """Test whether the mean of per-row differences (candidate minus incumbent, larger is better) is above 0.

    The statistic is the ratio mean (sum over blocks / rows over blocks) over its linearised standard error;
    blocks are resampled with replacement and the statistic studentised (Hall 1992). No difference at all is a
    tie: both p are 1.
    """
    from scipy import stats

    sums, count = block_sums(difference, times, block_days)
    total, blocks, rows = sums[:, 0], len(count), len(difference)
    mean = float(total.sum() / count.sum())
    if blocks < 2 or not np.any(difference):
        return Paired(mean, math.nan, math.nan, math.nan, 1.0, 1.0, blocks, rows)
    residual = (total - mean * count) / count.mean()
    error = float(np.sqrt(np.sum(residual**2) / (blocks * (blocks - 1))))
    if error <= 1e-15 * max(1.0, abs(mean)):
        return Paired(mean, 0.0, mean, mean, float(mean <= 0), float(mean >= 0), blocks, rows)
    observed = mean / error
    student = float(stats.t.sf(observed, blocks - 1))
    if 0.02 < student < 0.98:
        # far from any decision (p is never below Student's): fewer resamples say enough
        num_samples = min(num_samples, 2000)
    draws = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1.0 / blocks), size=num_samples)
    drawn_count = draws @ count
    drawn_mean = (draws @ total) / drawn_count
    # sum of squared residuals of each resample, expanded so that it is three matrix products
    squares = (
        draws @ (total**2) - 2 * drawn_mean * (draws @ (total * count)) + drawn_mean**2 * (draws @ (count**2))
    )
    drawn_error = np.sqrt(np.maximum(squares, 0.0) / (blocks * (blocks - 1))) / (drawn_count / blocks)
    t = (drawn_mean - mean) / np.maximum(drawn_error, 1e-3 * error)
    low, high = mean - error * np.quantile(t, 0.975), mean - error * np.quantile(t, 0.025)
    p_better = (1 + np.sum(t >= observed)) / (num_samples + 1)
    p_worse = (1 + np.sum(t <= observed)) / (num_samples + 1)
    return Paired(
        mean,
        error,
        float(low),
        float(high),
        float(max(p_better, student)),
        float(max(p_worse, 1 - student)),
        blocks,
        rows,
    )


def interval(
    values: np.ndarray, times: np.ndarray, *, block_days: float, num_samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the mean of per-row values, from blocks; (NaN, NaN) with fewer than two blocks."""
    result = paired(values, times, block_days=block_days, num_samples=num_samples, seed=seed)
    return result.low, result.high


def sharpe_interval(
    returns: np.ndarray,
    times: np.ndarray,
    *,
    bars_per_year: float,
    block_days: float,
    num_samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of the annual Sharpe ratio of a per-bar series, blocks resampled; NaN when
    undefined.
    """
    sums, count = block_sums(np.stack([returns, returns**2], axis=1), times, block_days)
    if len(count) < 3 or not np.any(returns):
        return math.nan, math.nan
    draws = np.random.default_rng(seed).multinomial(
        len(count), np.full(len(count), 1 / len(count)), size=num_samples
    )
    n = draws @ count
    mean = (draws @ sums[:, 0]) / n
    variance = np.maximum((draws @ sums[:, 1]) / n - mean**2, 0.0)
    sharpe = mean / np.sqrt(np.where(variance > 0, variance, np.inf)) * math.sqrt(bars_per_year)
    low, high = np.quantile(sharpe, [0.025, 0.975])
    return float(low), float(high)

"""One splitter for everything: spans of time common to all symbols, purged by the labels' own ends.

Rows go in as a frame with `event_timestamp` and `label_end_timestamp`; index arrays into those rows come out.
Between two neighbouring spans, rows of the earlier one whose label ends at or after the later one's first
time are purged, and the first `embargo_bars` times of the later one are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations, pairwise

import numpy as np
import polars as pl

from barcast.config.models import SplitsConfig
from barcast.errors import DataError

SPANS = ("train", "validation", "calibration", "test")


@dataclass(frozen=True)
class Fold:
    """Row indices of each span, in the order of time: train < validation < calibration < test.

    Attributes:
        index: number of the fold, from 0.
        train, validation, calibration, test: (n,) int64 positions in the frame that was split.
        cutoff: first event_timestamp of the test span; nothing fitted may know anything at or after it.
        purged: rows dropped by purge or embargo.
    """

    index: int
    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray
    test: np.ndarray
    cutoff: datetime | None = None
    purged: int = 0
    bounds: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """Counts and first/last times of each span, ready for JSON."""
        return {
            "fold": self.index,
            "purged": self.purged,
            **{name: len(getattr(self, name)) for name in SPANS},
            "bounds": {k: [t.isoformat() for t in v] for k, v in self.bounds.items()},
        }


def _micros(rows: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    if rows.is_empty():
        raise DataError("There are no labelled rows to split.", hint="Use a longer history.")
    if rows["label_end_timestamp"].null_count():
        raise DataError("A row to split has no label end.", hint="Keep rows with valid labels only.")
    start = rows["event_timestamp"].dt.timestamp("us").to_numpy()
    end = rows["label_end_timestamp"].dt.timestamp("us").to_numpy()
    return start, end


def _cut(
    start: np.ndarray, end: np.ndarray, times: np.ndarray, limits: list[int], embargo: int
) -> list[np.ndarray]:
    """Rows of the spans `limits[i] <= time position < limits[i+1]`, purged and embargoed."""
    spans = []
    for number, (low, high) in enumerate(pairwise(limits)):
        first = low + (embargo if number else 0)
        inside = np.zeros(len(start), dtype=bool)
        if first < high:
            inside = (start >= times[first]) & (start <= times[high - 1])
            if high < len(times) and number < len(limits) - 2:
                inside &= end < times[high]
        spans.append(np.flatnonzero(inside))
    return spans


def _fold(
    index: int, start: np.ndarray, end: np.ndarray, times: np.ndarray, limits: list[int], config: SplitsConfig
) -> Fold:
    train, validation, calibration, test = _cut(start, end, times, limits, config.embargo_bars)
    if len(train) < config.min_train_rows:
        raise DataError(
            f"Fold {index} has {len(train)} training rows, fewer than {config.min_train_rows}.",
            hint="Use a longer history, or lower splits.min_train_rows.",
        )
    rows = dict(zip(SPANS, (train, validation, calibration, test), strict=True))
    for name, found in rows.items():
        if len(found) == 0:
            raise DataError(
                f"Fold {index} has no {name} rows after purge and embargo.",
                hint="Use a longer history, a shorter horizon or a larger share.",
            )
    reach = (start >= times[limits[0]]) & (start <= times[limits[-1] - 1])
    kept = sum(len(found) for found in rows.values())
    bounds = {name: (_time(start[found].min()), _time(start[found].max())) for name, found in rows.items()}
    return Fold(
        index, train, validation, calibration, test, _time(times[limits[3]]), int(reach.sum()) - kept, bounds
    )


def _time(micros: int) -> datetime:
    value: datetime = pl.Series([int(micros)]).cast(pl.Datetime("us", "UTC"))[0]
    return value


def _limits(first: int, test_from: int, test_to: int, config: SplitsConfig) -> list[int]:
    before = test_from - first
    calibration = round(before * config.calibration_share)
    validation = round(before * config.validation_share)
    return [first, test_from - calibration - validation, test_from - calibration, test_from, test_to]


def holdout(rows: pl.DataFrame, config: SplitsConfig | None = None) -> Fold:
    """One fold whose test span is the last `test_share` of the times.

    Raises:
        DataError: a span stays empty, or training rows are fewer than `min_train_rows`.
    """
    config = config or SplitsConfig()
    start, end = _micros(rows)
    times = np.unique(start)
    test_from = len(times) - round(len(times) * config.test_share)
    return _fold(0, start, end, times, _limits(0, test_from, len(times), config), config)


def walk_forward(rows: pl.DataFrame, config: SplitsConfig | None = None) -> list[Fold]:
    """Folds with an expanding training span and successive test spans that do not overlap.

    The test spans share the last `walk_forward_share` of the times equally.
    """
    config = config or SplitsConfig()
    start, end = _micros(rows)
    times = np.unique(start)
    first = len(times) - round(len(times) * config.walk_forward_share)
    edges = np.linspace(first, len(times), config.folds + 1).round().astype(int)
    return [
        _fold(i, start, end, times, _limits(0, int(low), int(high), config), config)
        for i, (low, high) in enumerate(pairwise(edges))
    ]


def purged_folds(
    rows: pl.DataFrame, num_folds: int, *, embargo_bars: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """K-fold over time: (train, test) rows; training rows whose label overlaps the test span are purged.

    Training rows may lie after the test span; then the first `embargo_bars` times after it are skipped
    (López de Prado, Advances in Financial Machine Learning, chapter 7).
    """
    return [pair[:2] for pair in combinatorial(rows, num_folds, 1, embargo_bars=embargo_bars)]


def combinatorial(
    rows: pl.DataFrame, num_groups: int, num_test_groups: int, *, embargo_bars: int = 0
) -> list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
    """Combinatorial purged cross-validation: (train, test, test groups) for every choice of test groups.

    Times are cut into `num_groups` equal groups (the groups and their choices agree with skfolio's
    CombinatorialPurgedCV); purging goes by each label's own span, which differs between rows.
    """
    start, end = _micros(rows)
    times = np.unique(start)
    if len(times) < num_groups or num_test_groups >= num_groups:
        raise DataError(
            f"{len(times)} times cannot make {num_groups} groups of which {num_test_groups} are tested.",
            hint="Use fewer groups or a longer history.",
        )
    edges = [int(part[0]) for part in np.array_split(np.arange(len(times)), num_groups)] + [len(times)]
    position = np.searchsorted(times, start)
    found = []
    for chosen in combinations(range(num_groups), num_test_groups):
        test, banned = np.zeros(len(start), dtype=bool), np.zeros(len(start), dtype=bool)
        for group in chosen:
            low, high = edges[group], edges[group + 1]
            here = (position >= low) & (position < high)
            test |= here
            # The test span's information reaches to its latest label end.
            last = max(int(times[high - 1]), int(end[here].max()))
            later = int(np.searchsorted(times, last, side="right")) + embargo_bars
            until = max(last, int(times[min(later, len(times)) - 1]))
            banned |= (start <= until) & (end >= times[low])
        found.append((np.flatnonzero(~test & ~banned), np.flatnonzero(test), chosen))
    return found

"""Splits against indices written by hand; purge, embargo, and no training label inside a later span."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast import splits
from barcast.config.models import SplitsConfig
from barcast.errors import DataError


def spans(durations: list[int], *, symbols: int = 1) -> pl.DataFrame:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return pl.concat(
        pl.DataFrame(
            {
                "symbol": [f"S{s}"] * len(durations),
                "event_timestamp": [start + timedelta(hours=i) for i in range(len(durations))],
                "label_end_timestamp": [start + timedelta(hours=i + d) for i, d in enumerate(durations)],
            }
        )
        for s in range(symbols)
    ).with_columns(pl.col("event_timestamp", "label_end_timestamp").cast(pl.Datetime("us", "UTC")))


def test_holdout_against_hand_written_indices() -> None:
    config = SplitsConfig(
        test_share=0.2, validation_share=0.25, calibration_share=0.125, embargo_bars=1, min_train_rows=1
    )
    fold = splits.holdout(spans([2] * 40), config)
    # 40 times: test from 32; before it 32: validation 8 (20..27), calibration 4 (28..31), training 0..19.
    assert fold.train.tolist() == list(range(18))
    assert fold.validation.tolist() == [21, 22, 23, 24, 25]
    assert fold.calibration.tolist() == [29]
    assert fold.test.tolist() == [33, 34, 35, 36, 37, 38, 39]
    assert fold.purged == 40 - 18 - 5 - 1 - 7


@pytest.mark.parametrize("symbols", [1, 3])
def test_walk_forward_test_spans_are_disjoint_and_successive(symbols: int) -> None:
    rows = spans([3] * 200, symbols=symbols)
    folds = splits.walk_forward(rows, SplitsConfig(folds=4, min_train_rows=10))
    times = rows["event_timestamp"].to_numpy()
    seen: set[int] = set()
    for fold in folds:
        assert not seen & set(fold.test.tolist())
        seen |= set(fold.test.tolist())
        assert times[fold.train].max() < times[fold.validation].min() < times[fold.calibration].min()
        assert times[fold.calibration].max() < times[fold.test].min()
    assert len(folds[0].train) < len(folds[-1].train)


@given(
    durations=st.lists(st.integers(1, 30), min_size=150, max_size=250),
    embargo=st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_no_label_reaches_a_later_span(durations: list[int], embargo: int) -> None:
    rows = spans(durations, symbols=2)
    config = SplitsConfig(embargo_bars=embargo, min_train_rows=1, calibration_share=0.3, validation_share=0.3)
    try:
        fold = splits.holdout(rows, config)
    except DataError:
        return
    start, end = rows["event_timestamp"].to_numpy(), rows["label_end_timestamp"].to_numpy()
    order = [fold.train, fold.validation, fold.calibration, fold.test]
    for earlier, later in pairwise(order):
        assert end[earlier].max() < start[later].min()
    assert sum(map(len, order)) + fold.purged == rows.height


def test_spans_are_common_to_symbols_of_different_length() -> None:
    long, short = spans([2] * 300), spans([2] * 300)[250:].with_columns(pl.lit("B").alias("symbol"))
    rows = pl.concat([long, short])
    fold = splits.holdout(rows, SplitsConfig(min_train_rows=1))
    times = rows["event_timestamp"].to_numpy()
    assert times[fold.train].max() < times[fold.test].min()
    assert (rows["symbol"][fold.train] == "B").sum() == 0


def test_groups_agree_with_skfolio() -> None:
    from skfolio.model_selection import CombinatorialPurgedCV

    rows = spans([1] * 60)
    ours = splits.combinatorial(rows, 6, 2)
    theirs = CombinatorialPurgedCV(n_folds=6, n_test_folds=2, purged_size=0, embargo_size=0)
    # skfolio gives the tested groups apart.
    expected = [np.sort(np.concatenate(tests)).tolist() for _, tests in theirs.split(np.zeros((60, 1)))]
    assert sorted(pair[1].tolist() for pair in ours) == sorted(expected)


def test_purged_folds_against_hand_written_indices() -> None:
    found = splits.purged_folds(spans([2] * 12), 3, embargo_bars=1)
    # The middle group is 4..7 and labels live 2 bars: 2, 3 reach into it, 8, 9 overlap its labels, 10 is
    # embargoed.
    assert found[1][1].tolist() == [4, 5, 6, 7]
    assert found[1][0].tolist() == [0, 1, 11]


def test_too_short_history_is_refused() -> None:
    with pytest.raises(DataError, match="fewer than 200"):
        splits.holdout(spans([2] * 100))
    with pytest.raises(DataError, match="groups"):
        splits.combinatorial(spans([1] * 3), 6, 2)

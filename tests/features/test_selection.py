"""Selection keeps what informs, drops copies, noise and constants, and sees training rows only."""

from __future__ import annotations

import json

import numpy as np
import pytest

from barcast.errors import DataError
from barcast.features import select

NAMES = ["signal", "copy", "nonlinear", "constant", *(f"noise_{k}" for k in range(12))]


def rows(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, len(NAMES)))
    x[:, 1] = x[:, 0] * 5 + 1e-4 * x[:, 1]
    x[:, 3] = 2.5
    score = x[:, 0] + 1.5 * (np.abs(x[:, 2]) - 0.8) + random.normal(0, 0.8, n)
    return x.astype(np.float32), np.digitize(score, [-0.5, 0.5]).astype(np.int8)


def folds() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.arange(0, end), np.arange(end + 20, end + 600)) for end in (1000, 1500, 2000)]


def test_signal_stays_and_copy_noise_and_constant_go() -> None:
    x, y = rows()
    found = select(x, y, folds(), names=NAMES, min_features=2)
    chosen = [NAMES[k] for k in found.indices]
    assert "nonlinear" in chosen
    assert ("signal" in chosen) != ("copy" in chosen)
    assert "constant" not in chosen
    assert len(chosen) <= 4
    assert "does not vary" in found.reasons[3]
    assert "rank correlation" in found.reasons[0] + found.reasons[1]
    assert all(found.reasons)


def test_bounds_on_the_number_are_kept() -> None:
    x, y = rows()
    assert len(select(x, y, folds(), min_features=6).indices) >= 6
    assert len(select(x, y, folds(), min_features=1, max_features=1).indices) == 1


def test_result_is_repeatable_and_plain_json() -> None:
    x, y = rows()
    one, two = (select(x, y, folds(), names=NAMES, min_features=2) for _ in range(2))
    assert one.to_json() == two.to_json()
    assert json.loads(one.to_json())["indices"] == list(one.indices)


def test_rows_outside_the_folds_change_nothing() -> None:
    x, y = rows()
    used = np.unique(np.concatenate([np.concatenate(pair) for pair in folds()]))
    other = np.setdiff1d(np.arange(len(x)), used)
    assert len(other) > 100
    before = select(x, y, folds(), min_features=2)
    x[other], y[other] = 1e6, 0
    assert select(x, y, folds(), min_features=2).to_json() == before.to_json()


def test_nulls_and_empty_folds_are_refused() -> None:
    x, y = rows(500)
    with pytest.raises(DataError, match="folds"):
        select(x, y, [])
    x[3, 3] = np.nan
    with pytest.raises(DataError, match="nulls"):
        select(x, y, [(np.arange(300), np.arange(300, 400))])

"""B8: which of the features a model reads, decided on training rows only.

Four sieves in turn: variance, redundancy, mutual information with the label, and permutation importance that must hold
across purged folds. The answer is a list of columns; the FeatureService stays whole and the model version stores it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.errors import DataError

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """The result of `select`.

    Attributes:
        indices: chosen columns, ascending.
        names: of all columns, where given.
        reasons: for each column why it stayed or went.
        mutual_information: (F,) nats; importance: (F,) mean fall of the score when shuffled; stability: (F,)
        share of folds
            where that fall was positive. NaN where an earlier sieve had already dropped the column.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    reasons: tuple[str, ...]
    mutual_information: F8
    importance: F8
    stability: F8

    def to_json(self) -> str:
        """What the model version stores."""
        lists = {
            k: [None if np.isnan(v) else float(v) for v in getattr(self, k)]
            for k in ("mutual_information", "importance", "stability")
        }
        return json.dumps({"indices": self.indices, "names": self.names, "reasons": self.reasons, **lists})


def select(
    features: npt.NDArray[Any],
    label: npt.NDArray[Any],
    folds: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    *,
    names: Sequence[str] = (),
    least_deviation: float = 1e-9,
    most_correlation: float = 0.98,
    least_information: float = 0.0,
    least_stability: float = 0.5,
    max_features: int | None = None,
    min_features: int = 20,
    most_candidates: int = 120,
    sample_rows: int = 20_000,
    seed: int = 0,
) -> Selection:
    """Choose features on training rows.

    Args:
        features: (n, F) training rows without nulls. label: (n,) classes.
        folds: (fit, score) row indices within the training rows, purged and embargoed by the caller.
        least_deviation: columns whose deviation over their mean magnitude is smaller go.
        most_correlation: of two columns with a higher absolute rank correlation the one with less information goes.
        least_information: columns with less mutual information than shuffled labels give plus this (nats) go.
        least_stability: least share of folds in which shuffling the column must hurt.
        max_features, min_features: bounds on the number chosen; the best by information fill up to the minimum.
        most_candidates: how many of the best by information are tried for importance, which costs most.
        sample_rows: rows used at most (evenly spaced), for speed.

    Raises:
        DataError: a null, no fold, or a fold without rows.
    """
    x = np.asarray(features, dtype=np.float64)
    y = np.asarray(label).astype(np.int64)
    num = x.shape[1]
    if not np.isfinite(x).all():
        raise DataError(
            "The training rows hold nulls.", hint="Drop rows inside the warm-up before selecting."
        )
    if not folds or any(len(fit) == 0 or len(score) == 0 for fit, score in folds):
        raise DataError(
            "Selection needs folds with rows to fit and rows to score.",
            hint="Use more history or fewer folds.",
        )
    titles = tuple(names) if names else tuple(str(k) for k in range(num))
    reasons = [""] * num
    used = np.unique(np.concatenate([np.concatenate([fit, score]) for fit, score in folds]))
    rows = used[np.linspace(0, len(used) - 1, min(len(used), sample_rows)).astype(np.int64)]
    sample, target = x[rows], y[rows]
    random = np.random.default_rng(seed)

    spread = sample.std(axis=0)
    alive = spread > least_deviation * np.maximum(np.abs(sample).mean(axis=0), 1e-12)
    for k in np.flatnonzero(~alive).tolist():
        reasons[k] = "dropped: it does not vary"

    information = np.full(num, np.nan)
    noise = []
    for k in np.flatnonzero(alive).tolist():
        codes = _bins(sample[:, k])
        information[k] = _mutual_information(codes, target)
        noise.append(_mutual_information(codes, random.permutation(target)))
    floor = (float(np.quantile(noise, 0.95)) if noise else 0.0) + least_information

    ranks = np.full((len(rows), num), 0.0)
    for k in np.flatnonzero(alive).tolist():
        ranks[:, k] = np.argsort(np.argsort(sample[:, k], kind="stable"), kind="stable")
    kept: list[int] = []
    standard = (ranks - ranks.mean(axis=0)) / np.maximum(ranks.std(axis=0), 1e-12)
    for k in sorted(np.flatnonzero(alive).tolist(), key=lambda j: (-information[j], j)):
        if kept:
            alike = np.abs(standard[:, kept].T @ standard[:, k]) / len(rows)
            worst = int(np.argmax(alike))
            if alike[worst] > most_correlation:
                reasons[k] = f"dropped: rank correlation {alike[worst]:.3f} with {titles[kept[worst]]}"
                continue
        kept.append(k)
    informed = [k for k in kept if information[k] > floor][: max(most_candidates, min_features)]
    if len(informed) < min_features:
        informed = kept[:min_features]
    for k in kept:
        if k not in informed and information[k] > floor:
            reasons[k] = f"dropped: information {information[k]:.5f} is not among the best {len(informed)}"
        elif k not in informed:
            reasons[k] = f"dropped: information {information[k]:.5f} is no more than chance ({floor:.5f})"

    importance, stability = np.full(num, np.nan), np.full(num, np.nan)
    falls = _importances(x, y, folds, informed, sample_rows, random)
    importance[informed], stability[informed] = falls.mean(axis=0), (falls > 0).mean(axis=0)
    chosen = [k for k in informed if stability[k] >= least_stability and importance[k] > 0]
    order = sorted(informed, key=lambda j: (-importance[j], -information[j], j))
    if len(chosen) < min_features:
        chosen = order[:min_features]
    if max_features is not None and len(chosen) > max_features:
        chosen = [k for k in order if k in set(chosen)][:max_features]
    for k in informed:
        if k in chosen:
            reasons[k] = f"kept: importance {importance[k]:.5f}, positive in {stability[k]:.0%} of the folds"
        else:
            reasons[k] = (
                f"dropped: importance {importance[k]:.5f}, positive in {stability[k]:.0%} of the folds"
            )
    return Selection(
        tuple(sorted(int(k) for k in chosen)), titles, tuple(reasons), information, importance, stability
    )


def _bins(values: F8, num: int = 8) -> npt.NDArray[np.int64]:
    """Codes of equally filled bins."""
    edges: F8 = np.unique(np.quantile(values, np.linspace(0, 1, num + 1)[1:-1]))
    return np.asarray(np.searchsorted(edges, values, side="right"), dtype=np.int64)


def _mutual_information(codes: npt.NDArray[np.int64], label: npt.NDArray[np.int64]) -> float:
    """Plug-in estimate in nats."""
    joint = np.zeros((codes.max() + 1, label.max() + 1))
    np.add.at(joint, (codes, label), 1.0)
    joint /= joint.sum()
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / outer[some])).sum())


def _importances(
    x: F8, y: npt.NDArray[np.int64], folds: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]], columns: list[int],
    sample_rows: int, random: np.random.Generator,
) -> F8:  # fmt: skip
    """(folds, columns) rise of the log loss on the scored rows when a column is shuffled."""
    import lightgbm as lgb

    classes = int(y.max()) + 1
    settings = {
        "objective": "multiclass", "num_class": classes, "num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20,
        "seed": 0, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
    }  # fmt: skip

    def falls_of(fold: tuple[npt.NDArray[Any], npt.NDArray[Any]], random: np.random.Generator) -> F8:
        fit, score = fold
        fit = fit[np.linspace(0, len(fit) - 1, min(len(fit), sample_rows)).astype(np.int64)]
        score = score[np.linspace(0, len(score) - 1, min(len(score), sample_rows // 10)).astype(np.int64)]
        model = lgb.train(settings, lgb.Dataset(x[fit][:, columns], label=y[fit]), num_boost_round=40)
        known = np.isin(y[score], np.unique(y[fit]))
        table, truth = x[score][:, columns][known], y[score][known]

        def loss(values: F8) -> float:
            p = np.asarray(model.predict(values, num_threads=1))[np.arange(len(truth)), truth]
            return float(-np.log(np.clip(p, 1e-15, None)).mean())

        base, falls = loss(table), np.zeros(len(columns))
        # a column in no split changes nothing
        for k in np.flatnonzero(model.feature_importance("split")).tolist():
            shuffled = table.copy()
            shuffled[:, k] = random.permutation(shuffled[:, k])
            falls[k] = loss(shuffled) - base
        return falls

    # A fold a thread: threads inside such small work would wait for one another.
    with ThreadPoolExecutor(min(len(folds), len(os.sched_getaffinity(0)))) as pool:
        return np.array(list(pool.map(falls_of, folds, random.spawn(len(folds)))))

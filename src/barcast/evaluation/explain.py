"""What a model looks at, and whether that is the same in every fold.

Permutation importance of any predict function, SHAP values of trees, integrated gradients of a network (given
by its `explain` signature); importances of several folds in, one table with its stability out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from barcast.evaluation import metrics_ml


def permutation_importance(
    predict: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    labels: np.ndarray,
    feature_names: Sequence[str],
    *,
    only: Sequence[str] = (),
    blocks: np.ndarray | None = None,
    num_repeats: int = 3,
    seed: int = 0,
) -> pl.DataFrame:
    """Rise of log loss when one feature is shuffled over the rows (Breiman 2001): feature, importance,
    spread.

    Args:
        predict: inputs -> (n, 3) probabilities.
        inputs: (n, F) rows, or (n, T, F) windows (a feature's whole window moves together).
        only: these features alone, where given.
        blocks: (n,) group of each row; shuffling stays inside a group (a day, say), which keeps the market's
            level.
    """
    rng = np.random.default_rng(seed)
    base = float(np.mean(metrics_ml.log_loss_rows(labels, predict(inputs))))
    out = []
    for f, name in enumerate(feature_names):
        if only and name not in only:
            continue
        rises = []
        for _ in range(num_repeats):
            changed = inputs.copy()
            changed[..., f] = inputs[_shuffled(len(inputs), blocks, rng)][..., f]
            rises.append(float(np.mean(metrics_ml.log_loss_rows(labels, predict(changed)))) - base)
        out.append({"feature": name, "importance": float(np.mean(rises)), "spread": float(np.std(rises))})
    return pl.DataFrame(out)


def _shuffled(n: int, blocks: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    if blocks is None:
        return rng.permutation(n)
    order = np.lexsort((rng.random(n), blocks))
    home = np.argsort(blocks, kind="stable")
    index = np.empty(n, dtype=np.int64)
    index[home] = order
    return index


def shap_importance(booster: Any, inputs: np.ndarray, feature_names: Sequence[str]) -> pl.DataFrame:
    """Mean absolute SHAP value of each feature over rows and classes (Lundberg 2018): feature, importance.

    Args:
        booster: a LightGBM booster (`baselines.fit_lightgbm`).
        inputs: (n, F).
    """
    import shap

    values = np.asarray(shap.TreeExplainer(booster).shap_values(inputs))
    # (n, F, classes), or (classes, n, F) from older versions
    axis = next(a for a, size in enumerate(values.shape) if size == len(feature_names) and a > 0)
    mean = np.abs(np.moveaxis(values, axis, -1)).reshape(-1, len(feature_names)).mean(axis=0)
    return pl.DataFrame({"feature": list(feature_names), "importance": mean})


def gradient_importance(attributions: np.ndarray, feature_names: Sequence[str]) -> pl.DataFrame:
    """Mean over rows of the absolute integrated gradient summed over the window: feature, importance.

    Args:
        attributions: (n, T, F), as the `explain` signature answers.
    """
    mean = np.abs(attributions.sum(axis=1)).mean(axis=0)
    return pl.DataFrame({"feature": list(feature_names), "importance": mean.astype(np.float64)})


def gradients_over_spans(
    attributions: np.ndarray, feature_names: Sequence[str], *, num_spans: int = 3
) -> tuple[pl.DataFrame, dict[str, float]]:
    """One model's integrated gradients over spans of time: the table of `over_folds` and the figures of
    `stability`.

    Args:
        attributions: (n, T, F) in the order of time; cut into `num_spans` equal spans.
    """
    spans = {
        str(k): gradient_importance(part, feature_names)
        for k, part in enumerate(np.array_split(attributions, num_spans))
        if len(part)
    }
    return over_folds(spans), stability(spans)


def permutation_over_spans(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
    windows: np.ndarray,
    symbol_ids: np.ndarray,
    labels: np.ndarray,
    feature_names: Sequence[str],
    *,
    only: Sequence[str],
    num_spans: int = 3,
    num_repeats: int = 2,
    seed: int = 0,
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Permutation importance of the features `only` over spans of time: the table of `over_folds` and `stability`.

    Args:
        predict: (windows, symbol ids) -> (n, 3) probabilities.
        windows: (n, T, F) in the order of time, cut into `num_spans` equal spans.
    """
    spans = {}
    for k, part in enumerate(np.array_split(np.arange(len(windows)), num_spans)):
        spans[str(k)] = permutation_importance(
            lambda changed, ids=symbol_ids[part]: predict(changed, ids),  # type: ignore[misc]
            windows[part],
            labels[part],
            feature_names,
            only=only,
            num_repeats=num_repeats,
            seed=seed + k,
        )
    return over_folds(spans), stability(spans)


def over_folds(by_fold: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Importances of several folds joined: feature, importance (mean share), spread (standard deviation of
    the share), sign_agreement (share of folds in which it helps).

    Each fold's importances are divided by the sum of their absolute values, so that folds count alike.
    """
    parts = []
    for fold, table in by_fold.items():
        total = float(table["importance"].abs().sum()) or 1.0
        parts.append(
            table.select("feature", (pl.col("importance") / total).alias("share"), pl.lit(fold).alias("fold"))
        )
    return (
        pl.concat(parts)
        .group_by("feature", maintain_order=True)
        .agg(
            pl.col("share").mean().alias("importance"),
            pl.col("share").std().fill_null(0.0).alias("spread"),
            (pl.col("share") > 0).mean().alias("sign_agreement"),
        )
        .sort("importance", descending=True)
    )


def stability(by_fold: Mapping[str, pl.DataFrame], *, top: int = 20) -> dict[str, float]:
    """How alike the folds' importances are: `rank_correlation` (mean Spearman over pairs of folds) and
    `top_overlap` (mean Jaccard index of the `top` features, of half of them where there are fewer than twice as many).
    Both 1 with one fold.
    """
    from scipy import stats

    tables = [t.sort("feature") for t in by_fold.values()]
    top = min([top, *(max(1, t.height // 2) for t in tables)])
    if len(tables) < 2:
        return {"rank_correlation": 1.0, "top_overlap": 1.0}
    ranks, overlaps = [], []
    for i, a in enumerate(tables):
        for b in tables[i + 1 :]:
            x, y = a["importance"].to_numpy(), b["importance"].to_numpy()
            ranks.append(float(stats.spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0)
            first = set(a.sort("importance", descending=True)["feature"].head(top))
            second = set(b.sort("importance", descending=True)["feature"].head(top))
            overlaps.append(len(first & second) / len(first | second))
    return {"rank_correlation": float(np.mean(ranks)), "top_overlap": float(np.mean(overlaps))}

"""Classification metrics (D1) of labels and probabilities; scikit-learn does the counting.

Undefined cases never raise; they have these values: precision, recall and F1 of a class never predicted or
never present are 0; AUC-ROC and AUC-PR with fewer than two classes present are NaN (shown as a dash); kappa
and MCC with one class are 0; rank IC with constant scores or returns is 0.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from barcast.evaluation.frames import CLASSES

_EPSILON = 1e-12


def log_loss_rows(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(n,) negative log of the probability given to the true class, probabilities clipped at 1e-12. In
    nats.
    """
    picked = probabilities[np.arange(len(labels)), labels.astype(np.int64)]
    return np.asarray(-np.log(np.clip(picked, _EPSILON, 1.0)))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, *, num_bands: int = 10) -> float:
    """Expected calibration error with equal-width bands of [0, 1] (Naeini, Cooper and Hauskrecht 2015).

    Sum over bands of (share of rows) x |mean correct - mean confidence|. 0 for no rows.
    """
    return float(
        sum(
            b["share"] * abs(b["accuracy"] - b["confidence"])
            for b in reliability_bands(confidence, correct, num_bands=num_bands)
        )
    )


def calibration_parts(confidence: np.ndarray, correct: np.ndarray, *, num_bands: int = 10) -> np.ndarray:
    """(n,) each row's part of the expected calibration error, which is their mean: correct - confidence, turned so
    that its band's sum is positive.
    """
    band = np.clip((confidence * num_bands).astype(np.int64), 0, num_bands - 1)
    gap = correct.astype(np.float64) - confidence
    return np.asarray(gap * np.sign(np.bincount(band, weights=gap, minlength=num_bands))[band])


def reliability_bands(
    confidence: np.ndarray, correct: np.ndarray, *, num_bands: int = 10
) -> list[dict[str, float]]:
    """Non-empty bands of confidence: low, high, rows, share, confidence (mean), accuracy."""
    if len(confidence) == 0:
        return []
    band = np.clip((confidence * num_bands).astype(np.int64), 0, num_bands - 1)
    count = np.bincount(band, minlength=num_bands)
    means = np.bincount(band, weights=confidence, minlength=num_bands)
    rights = np.bincount(band, weights=correct.astype(np.float64), minlength=num_bands)
    return [
        {
            "low": k / num_bands,
            "high": (k + 1) / num_bands,
            "rows": float(count[k]),
            "share": float(count[k] / len(confidence)),
            "confidence": float(means[k] / count[k]),
            "accuracy": float(rights[k] / count[k]),
        }
        for k in range(num_bands)
        if count[k]
    ]


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Multi-class Brier score, sum over the three classes (0 best, 2 worst)."""
    truth = np.eye(probabilities.shape[1])[labels.astype(np.int64)]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))


def rank_ic(score: np.ndarray, forward_return: np.ndarray) -> float:
    """Spearman rank correlation of a score with the forward return; 0 where either is constant."""
    from scipy import stats

    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(forward_return) == 0:
        return 0.0
    return float(stats.spearmanr(score, forward_return).statistic)


def rank_products(score: np.ndarray, forward_return: np.ndarray) -> np.ndarray:
    """(n,) what each row adds to `rank_ic`, which is their mean; neither input may be constant."""
    from scipy import stats

    ranks = np.stack([stats.rankdata(score), stats.rankdata(forward_return)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= ranks.std(axis=1, keepdims=True)
    products: np.ndarray = ranks[0] * ranks[1]
    return products


def metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    forward_return: np.ndarray | None = None,
    num_bands: int = 10,
) -> dict[str, float]:
    """All classification metrics of one set of rows.

    Args:
        labels: (n,) int in 0 SELL, 1 HOLD, 2 BUY.
        probabilities: (n, 3), rows sum to 1.
        confidence: (n,) calibrated confidence of the answered class; the largest probability where absent.
        forward_return: (n,) outcome, for `hit_rate` (share of BUY/SELL rows whose return had the asked sign;
            NaN without any) and `rank_ic`.
    """
    from sklearn import metrics as sk

    n = len(labels)
    predicted = np.argmax(probabilities, axis=1)
    confidence = np.max(probabilities, axis=1) if confidence is None else confidence
    correct = predicted == labels
    present = np.unique(labels)
    three = [0, 1, 2]
    with warnings.catch_warnings():
        # scikit-learn warns on each undefined case; the values it is told to take are documented above
        warnings.simplefilter("ignore")
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            labels, predicted, labels=three, zero_division=0
        )
        kappa = sk.cohen_kappa_score(labels, predicted, labels=three)
        mcc = sk.matthews_corrcoef(labels, predicted)
        auc = {c: _auc(labels == k, probabilities[:, k]) for k, c in enumerate(CLASSES)}
    prior = np.bincount(labels.astype(np.int64), minlength=3) / n
    base = -float(np.sum(prior[prior > 0] * np.log(prior[prior > 0])))
    loss = float(np.mean(log_loss_rows(labels, probabilities)))
    result = {
        "rows": float(n),
        "accuracy": float(np.mean(correct)),
        "majority_accuracy": float(prior.max()),
        "balanced_accuracy": float(np.mean(recall[present.astype(np.int64)])),
        "precision_macro": float(np.mean(precision)),
        "recall_macro": float(np.mean(recall)),
        "f1_macro": float(np.mean(f1)),
        "auc_roc_macro": _nan_mean([v[0] for v in auc.values()]),
        "auc_pr_macro": _nan_mean([v[1] for v in auc.values()]),
        "cohen_kappa": 0.0 if math.isnan(kappa) else float(kappa),
        "mcc": float(mcc),
        "log_loss": loss,
        "log_loss_prior": base,
        "skill": 1.0 - loss / base if base > 0 else 0.0,
        "brier": brier(labels, probabilities),
        "ece": expected_calibration_error(confidence, correct, num_bands=num_bands),
        "mean_confidence": float(np.mean(confidence)),
        "mean_entropy": float(
            np.mean(-np.sum(probabilities * np.log(np.clip(probabilities, _EPSILON, 1)), axis=1))
        ),
        "acted_share": float(np.mean(predicted != 1)),
    }
    for k, c in enumerate(CLASSES):
        name = c.lower()
        result |= {
            f"precision_{name}": float(precision[k]),
            f"recall_{name}": float(recall[k]),
            f"f1_{name}": float(f1[k]),
            f"auc_roc_{name}": auc[c][0],
            f"auc_pr_{name}": auc[c][1],
        }
    if forward_return is not None:
        acted = predicted != 1
        agree = np.sign(predicted[acted] - 1.0) == np.sign(forward_return[acted])
        result["hit_rate"] = float(np.mean(agree)) if acted.any() else math.nan
        result["rank_ic"] = rank_ic(probabilities[:, 2] - probabilities[:, 0], forward_return)
    return result


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(3, 3) int64 counts: row = what happened, column = what was answered, in the order SELL, HOLD, BUY."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(labels, np.argmax(probabilities, axis=1), labels=[0, 1, 2]))


def _auc(truth: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    from sklearn import metrics as sk

    if truth.all() or not truth.any():
        return math.nan, math.nan
    return float(sk.roc_auc_score(truth, score)), float(sk.average_precision_score(truth, score))


def _nan_mean(values: list[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan

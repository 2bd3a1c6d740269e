"""What every fit shares: seeds, training statistics, calibration, the reference that predictions need."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from barcast import logs
from barcast.datasets import Dataset
from barcast.labels import Thresholds, fit_thresholds
from barcast.models import calibration
from barcast.models.presets import PRESETS, WIDE
from barcast.splits import SPANS, Fold
from barcast.training.answering import one_thread_an_operation
from barcast.training.canaries import leaking_features
from barcast.training.settings import Settings
from barcast.training.targets import Targets

log = logs.get("training")

# Rows kept for similar historical windows, and for the distances that tell an unusual window.
NEIGHBOURS = 2000
# Rows, evenly spread, that settle the few numbers of a calibration.
CALIBRATION_ROWS = 20_000
# Arrays of a linear fit that answers without TensorFlow.
FALLBACK = ("linear_coef", "linear_intercept", "return_coef", "return_intercept")


def begin(settings: Settings) -> None:
    """Before a fit: seed Python, NumPy and the backend, and ask TensorFlow for operations that repeat bit by bit."""
    if max(settings.model.lstm_units or PRESETS[settings.model.preset].lstm_units) < WIDE:
        one_thread_an_operation()
    import keras

    keras.utils.set_random_seed(settings.seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def thresholds_of(dataset: Dataset, fold: Fold, settings: Settings) -> Thresholds:
    """Class limits fitted on the fold's training rows of all symbols."""
    return fit_thresholds(dataset.rows[fold.train], settings.labels)


def of_symbol(dataset: Dataset, fold: Fold, symbol: str) -> Fold:
    """The same spans of time with one symbol's rows only."""
    mine = np.zeros(len(dataset), dtype=bool)
    mine[dataset.of_symbol(symbol)] = True
    return _spans(fold, lambda rows: rows[mine[rows]])


def alone(dataset: Dataset, fold: Fold, symbol: str) -> tuple[Dataset, Fold]:
    """One symbol's rows over its own bars only, and the same spans of time over them."""
    found, rows = dataset.only(symbol)
    here = np.full(len(dataset), -1, dtype=np.int64)
    here[rows] = np.arange(len(rows))
    return found, _spans(fold, lambda rows: here[rows][here[rows] >= 0])


def _spans(fold: Fold, change: Callable[[np.ndarray], np.ndarray]) -> Fold:
    spans = {name: change(getattr(fold, name)) for name in SPANS}
    return Fold(index=fold.index, cutoff=fold.cutoff, purged=fold.purged, bounds=fold.bounds, **spans)


def calibrate(network: Any, dataset: Dataset, rows: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Fit temperature and confidence on `rows` and store them in the network.

    Gives the fitted numbers and the log loss of the slice before and after. Fewer than 30 rows leave the
    network as it is.
    """
    import tensorflow as tf

    if len(rows) < 30:
        return {"calibration_rows": float(len(rows))}
    rows = spread(rows, CALIBRATION_ROWS)
    sampled = _sampled_logits(network, dataset)
    logits, confidence = [], []
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        found = sampled(tf.constant(dataset.windows(part)), tf.constant(dataset.symbol_id[part]))
        logits.append(found[0].numpy())
        confidence.append(found[1].numpy())
    stacked, confidence_logit = np.concatenate(logits, axis=1).astype(np.float64), np.concatenate(confidence)
    truth = label[rows].astype(int)
    fitted = calibration.fit(stacked, confidence_logit.astype(np.float64), truth)
    statistics = network.statistics
    for name, value in vars(fitted).items():
        getattr(statistics, name).assign(value)

    def log_loss(temperature: float) -> float:
        p = calibration.mean_softmax(stacked, temperature)[np.arange(len(truth)), truth]
        return float(-np.log(np.clip(p, 1e-12, None)).mean())

    return {
        **vars(fitted),
        "calibration_rows": float(len(rows)),
        "calibration_log_loss_before": log_loss(1.0),
        "calibration_log_loss_after": log_loss(fitted.temperature),
    }


def _sampled_logits(network: Any, dataset: Dataset) -> Any:
    """A compiled function giving the logits of each saved mask (N, B, 3) and the confidence logit (B,)."""
    import tensorflow as tf

    shape = [None, dataset.lookback_bars, dataset.num_features]

    @tf.function(
        input_signature=[tf.TensorSpec(shape, tf.float32), tf.TensorSpec([None], tf.int32)], autograph=False
    )
    def run(window: Any, symbol_id: Any) -> Any:
        if not hasattr(network, "encode"):
            raw = network(window, symbol_id)
            return raw["logits"][None], tf.zeros_like(raw["expected_return"])
        heads = network.sampled_heads(network.encode(window, symbol_id))
        return heads["logits"], tf.reduce_mean(heads["confidence_logit"], axis=0)

    return run


def reference(
    dataset: Dataset, train: np.ndarray, mean: np.ndarray, scale: np.ndarray, fallback: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Arrays of `reference.npz`: what predictions need to judge and to replace a model without TensorFlow."""
    from barcast.decisions.sanity import window_distance

    sample = spread(train, NEIGHBOURS)
    found = [
        window_distance(dataset.windows(sample[start : start + 256]), mean, scale)
        for start in range(0, len(sample), 256)
    ]
    return {"mean": mean, "scale": scale, "distance": np.sort(np.concatenate(found)), **fallback}


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    sample: np.ndarray = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return sample


def neighbours(model: Any, dataset: Dataset, train: np.ndarray, label: np.ndarray) -> bytes:
    """Content of `neighbours.npz`: embeddings of training rows with what followed them."""
    sample = spread(train, NEIGHBOURS)
    rows = dataset.rows[sample]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        embeddings=model.answers(dataset, sample)["embedding"].astype(np.float32),
        symbols=rows["symbol"].to_numpy().astype(str),
        event_timestamps=rows["event_timestamp"].dt.timestamp("us").to_numpy(),
        forward_log_returns=rows["forward_log_return"].to_numpy(),
        labels=label[sample].astype(np.int8),
    )
    return buffer.getvalue()


def fallback_arrays(fit: Any, selected: tuple[int, ...], num_features: int) -> dict[str, np.ndarray]:
    """A linear fit over the selected features, widened to all features of the generation."""
    at = list(selected)

    def wide(coefficients: np.ndarray) -> np.ndarray:
        full = np.zeros((*coefficients.shape[:-1], num_features))
        full[..., at] = coefficients
        return full

    return {
        "linear_coef": wide(fit.classes[0]),
        "linear_intercept": fit.classes[1],
        "return_coef": wide(fit.mean_return[0]),
        "return_intercept": np.array(fit.mean_return[1]),
        "volatility_coef": wide(fit.log_volatility[0]),
        "volatility_intercept": np.array(fit.log_volatility[1]),
    }


def suspicious(dataset: Dataset, train: np.ndarray) -> list[str]:
    """Names of features that look like the future (see canaries), told in the log too."""
    found = leaking_features(dataset.take(train))
    for name, correlation in found:
        log.warning("a feature looks like the future", feature=name, rank_correlation=round(correlation, 3))
    return [name for name, _ in found]


def facts_of(targets: Targets, fold: Fold, constant: tuple[str, ...]) -> dict[str, Any]:
    """What a model card tells about the rows of a fit."""
    return {
        "rows": fold.describe(),
        "effective_train_rows": round(targets.effective_rows, 1),
        "expected_duration_bars": round(targets.expected_duration_bars, 3),
        "class_shares": [round(s, 4) for s in targets.class_shares],
        "constant_features": list(constant),
    }

"""Adversarial training: the answer should hold when a window is moved a little in the worst direction.

Deviations of the features go in; a `Term` for the trainer comes out. Each feature is moved by a share of its own
deviation, by the sign of the loss's gradient (Goodfellow et al., 2015, the fast gradient sign method).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from barcast.models import losses
from barcast.training.steps import Term


def attacked(network: Any, window: Any, symbol_id: Any, label: Any, size: Any) -> Any:
    """The window (B, T, F) moved by `size` (F,) in the direction that raises the class loss most."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(window)
        logits = network(window, symbol_id, training=False)["logits"]
        loss = tf.reduce_sum(losses.cross_entropy(logits, label))
    return tf.stop_gradient(window + size * tf.sign(tape.gradient(loss, window)))


def adversarial_term(scale: np.ndarray, *, size: float, weight: float = 0.5) -> Term:
    """The class loss of attacked windows.

    Args:
        scale: (F,) deviation of each feature of the generation over the training rows.
        size: how far a feature is moved, in deviations.
        weight: of this loss beside that of the windows as they are.
    """
    import tensorflow as tf

    step = tf.constant(size * scale, tf.float32)

    def term(
        network: Any, window: Any, symbol_id: Any, outputs: Any, batch: dict[str, Any], rows: Any
    ) -> Any:
        moved = attacked(network, window, symbol_id, batch["label"], step)
        logits = network(moved, symbol_id, training=True)["logits"]
        return weight * losses.weighted_mean(losses.cross_entropy(logits, batch["label"]), batch["weight"])

    return term

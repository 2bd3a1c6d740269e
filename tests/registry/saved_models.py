"""Run as a script: writes small SavedModels with barcast's signature and their in-process answers.

Arguments: a folder, then one number a model (its weight). TensorFlow stays out of the test process, which
forks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


class Tiny(tf.Module):
    """Probabilities from the last bar's first feature times a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = tf.Variable(weight, dtype=tf.float32)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 4, 2), tf.float32, name="window"),
            tf.TensorSpec((None,), tf.int32, name="symbol_id"),
        ]
    )
    def serve(self, window: tf.Tensor, symbol_id: tf.Tensor) -> dict[str, tf.Tensor]:
        score = window[:, -1, 0] * self.weight + tf.cast(symbol_id, tf.float32)
        logits = tf.stack([-score, tf.zeros_like(score), score], axis=1)
        probabilities = tf.nn.softmax(logits)
        return {
            "probabilities": probabilities,
            "confidence": tf.reduce_max(probabilities, axis=1),
            "expected_return": tf.tanh(score),
            "position_size": tf.sigmoid(score),
        }


def main() -> None:
    folder = Path(sys.argv[1])
    window = np.random.default_rng(3).normal(size=(2, 4, 2)).astype(np.float32)
    symbol_id = np.array([0, 1], np.int32)
    for weight in sys.argv[2:]:
        model = Tiny(float(weight))
        tf.saved_model.save(model, str(folder / weight), signatures={"serving_default": model.serve})
        answer = {k: v.numpy() for k, v in model.serve(tf.constant(window), tf.constant(symbol_id)).items()}
        np.savez(folder / f"{weight}.npz", window=window, symbol_id=symbol_id, **answer)


if __name__ == "__main__":
    main()

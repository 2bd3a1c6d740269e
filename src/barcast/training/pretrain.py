"""Self-supervised pre-training: the encoder learns to restore masked bars before it learns outcomes.

A built network and a dataset go in; the network's recurrent layers come out with weights that know the features'
structure. Only training rows are read and no label is (Devlin et al., 2019, for time series).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from barcast.config.models import TrainingConfig
from barcast.datasets import Dataset
from barcast.training.optimiser import JoinedUpdate, adamw, learning_rate


def pretrain(
    network: Any,
    dataset: Dataset,
    rows: np.ndarray,
    config: TrainingConfig,
    *,
    batch_size: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> list[float]:
    """Train the encoder for `pretrain_epochs`; gives the mean squared error of masked bars of each epoch.

    Whole bars are hidden (set to the mean, 0 after normalisation) with chance `pretrain_mask_share`; a linear
    reading of the last layer's states must restore them.
    """
    import keras
    import tensorflow as tf

    shape = network.architecture
    restore = keras.layers.Dense(
        len(shape.selected), kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name="restore"
    )
    restore.build((None, shape.lookback_bars, shape.lstm_units[-1]))
    variables = [v for layer in network.recurrent for v in layer.trainable_variables]
    variables += restore.trainable_variables
    optimiser = adamw(config)
    update = JoinedUpdate(optimiser, variables)
    seeds = keras.random.SeedGenerator(seed)
    share = config.pretrain_mask_share
    spec = tf.TensorSpec([None, dataset.lookback_bars, dataset.num_features], tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def step(window: Any) -> Any:
        truth = network.normalise(window)
        draw = keras.random.uniform((tf.shape(truth)[0], shape.lookback_bars, 1), seed=seeds)
        hidden = tf.cast(draw < share, tf.float32)
        with tf.GradientTape() as tape:
            states = network.states(truth * (1 - hidden), True)
            error = tf.reduce_mean(tf.square(restore(states) - truth), axis=-1, keepdims=True)
            loss = tf.reduce_sum(error * hidden) / (tf.reduce_sum(hidden) + 1e-9)
        update.apply(tape.gradient(loss, variables))
        return loss

    found = []
    size = min(batch_size, len(rows))
    batches = max(1, len(rows) // size)
    for epoch in range(config.pretrain_epochs):
        order = np.random.default_rng([seed, 1000 + epoch]).permutation(rows)
        total = 0.0
        for number in range(batches):
            rate = learning_rate(
                epoch * batches + number,
                config.pretrain_epochs * batches,
                peak=config.learning_rate,
                warmup_share=config.warmup_share,
                last_share=config.min_learning_rate_share,
            )
            optimiser.learning_rate.assign(rate)
            total += float(step(tf.constant(dataset.windows(order[number * size : (number + 1) * size]))))
        found.append(total / batches)
        if progress is not None:
            progress(f"pre-training {epoch + 1}/{config.pretrain_epochs}: masked error {found[-1]:.4f}")
    return found

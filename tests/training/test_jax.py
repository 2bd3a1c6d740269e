"""The same network and loss on JAX, in a process of its own; skipped where JAX is not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np, polars as pl
from barcast.config.models import LossConfig, ModelConfig, TrainingConfig
from barcast.datasets import Dataset
from barcast.models.network import Network
from barcast.models.presets import architecture
from barcast.training.optimiser import adamw
from barcast.training.targets import Targets
from barcast.training.steps_jax import JaxSteps
import keras
assert keras.backend.backend() == "jax"
rng = np.random.default_rng(0)
n, lookback = 64, 8
x = rng.normal(size=(n + lookback, 5)).astype("float32")
ends, ids = np.arange(lookback, n + lookback), np.ones(n, "int32")
data = Dataset(x, tuple("abcde"), lookback, ends, ids, ("S",), pl.DataFrame())
arrays = {
    "label": rng.integers(0, 3, n).astype("int32"), "regime": np.zeros(n, "int32"),
    "volatility_regime": np.zeros(n, "int32"), "weight": np.ones(n, "float32"),
    "forward_log_return": rng.normal(size=n).astype("float32") * 0.01, "volatility": np.full(n, 0.01, "float32"),
    "trend_strength": np.full(n, 0.5, "float32"), "run_start": np.ones(n, "float32"),
}
config = ModelConfig(lstm_units=(6,), attention_heads=2, attention_key_dim=4, dense_units=(6,), recurrent_dropout=0.1)
network = Network(architecture(config, num_features=5, lookback_bars=lookback), seed=1).build_once()
optimiser = adamw(TrainingConfig())
optimiser.build(network.trainable_variables)
steps = JaxSteps(network, data, Targets(arrays, 1.0, (0.3, 0.3, 0.4)), LossConfig())
steps.begin(optimiser)
rows = np.arange(n)
before = steps.evaluate(rows)["loss"]
steps.epoch(np.tile(rows, (30, 1)), np.full(30, 1e-3))
after = steps.evaluate(rows)["loss"]
assert np.isfinite(after) and after < before, (before, after)
answer = network.answer(data.windows(rows[:4]), data.symbol_id[:4])
np.testing.assert_allclose(np.asarray(answer["probabilities"]).sum(axis=1), 1, atol=1e-5)
print("trained", before, after)
"""


def test_network_trains_on_jax_if_installed() -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs jax")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained" in done.stdout

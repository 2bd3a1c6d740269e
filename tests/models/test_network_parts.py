"""The network's parts against known answers: LSTM paths, loss by hand, calibration, presets, regimes."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast.config.models import LossConfig, ModelConfig
from barcast.errors import ModelError
from barcast.models import calibration, regime
from barcast.models.presets import Architecture, architecture


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 9, 5)).astype("float32")


def test_fused_unrolled_and_keras_lstm_give_the_same_numbers(x: np.ndarray) -> None:
    import keras

    from barcast.models.layers import Recurrent

    fused, unrolled = Recurrent(6, fused=True, seed=1), Recurrent(6, fused=False, seed=1)
    a, b = np.asarray(fused(x)), np.asarray(unrolled(x))
    np.testing.assert_allclose(a, b, atol=1e-6)
    theirs = keras.layers.LSTM(6, return_sequences=True, unit_forget_bias=False)
    theirs.build(x.shape)
    # Keras orders the gates i, f, g, o and keeps the forget bias in the variable.
    order = np.concatenate([np.arange(0, 6), np.arange(12, 18), np.arange(6, 12), np.arange(18, 24)])
    kernel, recurrent, bias = (np.asarray(w) for w in unrolled.get_weights())
    bias = bias + np.repeat([0.0, 0.0, 1.0, 0.0], 6)
    theirs.set_weights([kernel[:, order], recurrent[:, order], bias[order]])
    np.testing.assert_allclose(np.asarray(theirs(x)), b, atol=1e-6)


def test_recurrent_dropout_drops_weights_in_training_only(x: np.ndarray) -> None:
    from barcast.models.layers import Recurrent

    plain, dropping = (
        Recurrent(6, fused=True, seed=1),
        Recurrent(6, fused=True, seed=1, recurrent_dropout=0.4),
    )
    expected = np.asarray(plain(x))
    np.testing.assert_array_equal(np.asarray(dropping(x)), expected)
    first, second = (np.asarray(dropping(x, training=True)) for _ in range(2))
    # The first state reads no recurrent weight; later ones differ, from call to call too.
    np.testing.assert_allclose(first[:, 0], expected[:, 0], atol=1e-6)
    assert np.abs(first[:, -1] - expected[:, -1]).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3


def test_lstm_in_mixed_precision_stays_near_float32() -> None:
    from barcast.models.layers import Recurrent

    x = np.random.default_rng(0).normal(size=(4, 9, 14)).astype("float32")
    exact = Recurrent(6, fused=True, seed=1)
    mixed = Recurrent(6, fused=True, seed=1, dtype="mixed_bfloat16")
    expected = np.asarray(exact(x))
    mixed(x)
    mixed.set_weights(exact.get_weights())
    for training in (True, False):
        found = mixed(x, training=training)
        assert found.dtype == "bfloat16"
        np.testing.assert_allclose(np.asarray(found).astype("float32"), expected, atol=0.03)


@pytest.mark.parametrize("training", [True, False])  # a gradient of its own, and BlockLSTM
def test_gradients_of_quick_and_plain_lstm_agree(x: np.ndarray, training: bool) -> None:
    import tensorflow as tf

    from barcast.models.layers import Recurrent

    window, found = tf.constant(x), []
    for fused in (True, False):
        layer = Recurrent(6, fused=fused, own_gradient=fused, seed=1)
        with tf.GradientTape() as tape:
            tape.watch(window)
            loss = tf.reduce_sum(tf.sin(3 * layer(window, training=training)))
        gradients = tape.gradient(loss, [window, *layer.trainable_variables])
        found.append([np.asarray(g) for g in gradients])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def outputs(logits: list[list[float]], size: list[float]) -> dict[str, Any]:
    import tensorflow as tf

    n = len(size)
    return {
        "logits": tf.constant(logits),
        "position_size": tf.constant(size),
        "expected_return": tf.zeros(n),
        "expected_volatility": tf.ones(n) * 0.02,
        "regime_logits": tf.zeros((n, 3)),
        "volatility_regime_logits": tf.zeros((n, 3)),
        "trend_strength": tf.ones(n) * 0.5,
        "confidence_logit": tf.zeros(n),
    }


def batch(log_return: list[float], **change: Any) -> dict[str, Any]:
    import tensorflow as tf

    n = len(log_return)
    start = {
        "label": tf.constant([2] * n),
        "weight": tf.ones(n),
        "forward_log_return": tf.constant(log_return),
        "volatility": tf.ones(n) * 0.02,
        "regime": tf.constant([0] * n),
        "volatility_regime": tf.constant([-1] * n),
        "trend_strength": tf.ones(n) * 1.0,
        "run_start": tf.ones(n),
    }
    return {**start, **change}


def test_net_profit_of_separate_trades_pays_both_sides() -> None:
    from barcast.models import losses

    found = np.asarray(
        losses.net_profit(np.float32([0.5, -1.0]), np.float32([0.01, 0.02]), np.ones(2, "float32"), 10)
    )
    expected = [
        0.5 * math.expm1(0.01) - 2 * 0.5 * 0.001,
        -1.0 * math.expm1(0.02) - 2 * 1.0 * 0.001,
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_turnover_of_a_run_counts_changes_and_the_last_exit() -> None:
    from barcast.models import losses

    held, start = np.float32([0.5, 0.5, -0.5, 1.0]), np.float32([1, 0, 0, 1])
    # In 0.5, hold, turn by 1 and out 0.5; then in 1 and out 1.
    np.testing.assert_allclose(np.asarray(losses.turnover(held, start)), [0.5, 0.0, 1.5, 2.0], atol=1e-5)


def test_loss_parts_equal_hand_computed_values() -> None:
    from barcast.models import losses

    config = LossConfig(cost_bps=0.0, label_smoothing=0.0)
    found = {
        name: float(value)
        for name, value in losses.parts(outputs([[0.0, 0.0, 0.0]], [1.0]), batch([0.01]), config).items()
    }
    assert found["class"] == pytest.approx(math.log(3), abs=1e-5)
    assert found["profit"] == pytest.approx(0.0, abs=1e-6)
    assert found["return"] == pytest.approx(0.5 * 0.5**2, abs=1e-5)
    # Standardised: deviation 1, error 0.5.
    assert found["volatility"] == pytest.approx(0.5 * 0.5**2, abs=1e-5)
    assert found["regime"] == pytest.approx(math.log(3) + 0.25, abs=1e-5)
    # Equal logits choose SELL; the label is BUY, so the confidence's target is 0.
    assert found["confidence"] == pytest.approx(math.log(2), abs=1e-5)
    config = LossConfig(class_weight=2.0, profit_weight=0.0, return_weight=0.0, volatility_weight=0.0)
    total = float(losses.combine({"class": 1.5, "profit": 9.0, "return": 9.0, "volatility": 9.0}, config))
    assert total == pytest.approx(3.0)


def test_profit_part_prefers_the_profitable_side() -> None:
    from barcast.models import losses

    config = LossConfig(cost_bps=2.0)
    right, wrong = (
        float(losses.parts(outputs([logits], [1.0]), batch([0.02]), config)["profit"])
        for logits in ([-3.0, 0.0, 3.0], [3.0, 0.0, -3.0])
    )
    p = np.exp([-3.0, 0.0, 3.0]) / np.exp([-3.0, 0.0, 3.0]).sum()
    held = p[2] - p[0]
    assert right == pytest.approx(-(held * math.expm1(0.02) - 2 * held * 2e-4) / 0.02, abs=1e-4)
    assert right < 0 < wrong


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 80.0])
def test_gradient_is_finite_at_extremes(scale: float) -> None:
    import tensorflow as tf

    from barcast.models import losses

    rng = np.random.default_rng(0)
    variables = {
        name: tf.Variable((rng.normal(size=shape) * scale).astype("float32"))
        for name, shape in {"logits": (6, 3), "r": (6,), "v": (6,), "c": (6,)}.items()
    }
    with tf.GradientTape() as tape:
        found = outputs([[0.0] * 3] * 6, [1.0] * 6) | {
            "logits": variables["logits"],
            "expected_return": tf.tanh(variables["r"]),
            "expected_volatility": tf.nn.softplus(variables["v"]),
            "confidence_logit": variables["c"],
        }
        target = batch(
            [0.0, 0.5, -0.5, 1e-9, 0.1, -0.1], volatility=tf.constant([0.0, 1e-12, 0.02, 0.02, 1.0, 1.0])
        )
        total = losses.combine(losses.parts(found, target, LossConfig()), LossConfig())
    assert np.isfinite(float(total))
    for gradient in tape.gradient(total, list(variables.values())):
        assert np.isfinite(gradient.numpy()).all()


def test_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=(4000, 3))
    p = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
    label = np.array([rng.choice(3, p=row) for row in p])
    assert calibration.fit_temperature(3.0 * true_logits[None], label) == pytest.approx(3.0, rel=0.1)
    fitted = calibration.fit(3.0 * true_logits[None], np.zeros(4000), label)
    top = calibration.mean_softmax(3.0 * true_logits[None], fitted.temperature).max(axis=1)
    confidence = 1 / (
        1 + np.exp(-(fitted.confidence_slope * np.log(top / (1 - top)) + fitted.confidence_bias))
    )
    correct = true_logits.argmax(axis=1) == label
    assert confidence.mean() == pytest.approx(correct.mean(), abs=0.01)


def test_presets_have_the_documented_sizes() -> None:
    from barcast.training.trained import make_network

    standard = architecture(ModelConfig(preset="standard"), num_features=160, lookback_bars=60)
    assert (standard.lstm_units, standard.recurrent_dropout, standard.attention_heads) == (
        (128, 64, 32),
        0.1,
        8,
    )
    assert (standard.attention_key_dim, standard.dense_units, standard.dense_dropout) == (
        64,
        (64, 32, 16),
        0.3,
    )
    assert Architecture.from_dict(standard.to_dict()) == standard
    large = architecture(ModelConfig(preset="large"), num_features=160, lookback_bars=60)
    assert 2.3e6 < make_network("network", large, 0).count_params() < 2.7e6
    with pytest.raises(ModelError, match="not understood"):
        Architecture.from_dict({"units": 3})


def test_saved_masks_are_the_same_in_every_build_and_scaled() -> None:
    from barcast.models.layers import SavedMasks

    first, second = SavedMasks(0.3, 400, seed=4), SavedMasks(0.3, 400, seed=4)
    ones = np.ones((1, 2, 50), "float32")
    first(ones[0]), second(ones[0])
    np.testing.assert_array_equal(first.masks, second.masks)
    assert float(np.mean(first.sampled(ones))) == pytest.approx(1.0, abs=0.01)


def bars(prices: np.ndarray) -> pl.DataFrame:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "symbol": ["A"] * len(prices),
            "event_timestamp": [start + timedelta(hours=i) for i in range(len(prices))],
            "close": prices,
        }
    )


def test_rules_name_an_obvious_bull_and_bear_and_never_look_ahead() -> None:
    rng = np.random.default_rng(0)
    drift = np.concatenate([np.full(150, 0.01), np.full(150, -0.01)])
    prices = 100 * np.exp(np.cumsum(drift + rng.normal(size=300) * 0.002))
    full = regime.rules(bars(prices))
    assert full["regime"][120] == regime.REGIMES.index("bull")
    assert full["regime"][290] == regime.REGIMES.index("bear")
    part = regime.rules(bars(prices[:200]))
    assert part.equals(full[:200])


def test_known_regimes_are_those_that_the_features_state() -> None:
    frame = bars(np.linspace(100, 130, 4))
    stated = frame.select("symbol", "event_timestamp").with_columns(
        trend_score_50=pl.Series([None, 0.3, -6.0, 1.5]),
        trend_regime_bull=pl.Series([None, 0.0, 0.0, 1.0]),
        trend_regime_bear=pl.Series([None, 0.0, 1.0, 0.0]),
        trend_regime_sideways=pl.Series([None, 1.0, 0.0, 0.0]),
        volatility_regime_low=pl.Series([None, None, 1.0, 0.0]),
        volatility_regime_medium=pl.Series([None, None, 0.0, 0.0]),
        volatility_regime_high=pl.Series([None, None, 0.0, 1.0]),
    )
    found = regime.known(frame, stated)
    assert found["regime"].to_list() == [None, 2, 1, 0]
    assert found["volatility_regime"].to_list() == [None, None, 0, 2]
    assert found["trend_strength"].to_list() == [None, pytest.approx(0.1), 1.0, 0.5]
    without = regime.known(frame, stated.drop("trend_score_50"))
    assert without.equals(regime.rules(frame))

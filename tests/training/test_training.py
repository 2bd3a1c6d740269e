"""Training end to end on a small market: it learns, repeats, resumes, transfers, exports, and refuses bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from barcast import datasets, splits
from barcast.config.models import SplitsConfig
from barcast.errors import ModelError
from barcast.models import savedmodel
from barcast.training import TrainedModel, train_linear, train_symbol, train_universal

CONTRACT = {
    "probabilities": (3,),
    "confidence": (),
    "uncertainty": (),
    "entropy": (),
    "expected_return": (),
    "expected_volatility": (),
    "position_size": (),
    "regime": (3,),
    "volatility_regime": (3,),
    "trend_strength": (),
    "attention": (12,),
}


def change(settings: Any, **fields: Any) -> Any:
    return replace(settings, training=settings.training.model_copy(update=fields))


def weights_of(model: TrainedModel) -> list[np.ndarray]:
    return [np.asarray(w) for w in model.network.weights]


def assert_same(first: TrainedModel, second: TrainedModel) -> None:
    for a, b in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_array_equal(a, b)


def accuracy(model: TrainedModel, dataset: datasets.Dataset, rows: np.ndarray) -> float:
    answered = model.answers(dataset, rows)["probabilities"].argmax(axis=1)
    return float((answered == dataset.classes(model.info.thresholds)[rows]).mean())


def test_network_and_linear_learn_what_can_be_learned(
    universal: Any, linear: Any, dataset: Any, fold: Any
) -> None:
    assert accuracy(universal, dataset, fold.test) > 0.42
    assert accuracy(linear, dataset, fold.test) > 0.42
    epochs = universal.info.facts["epochs"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert universal.info.facts["constant_features"] == ["constant"]
    assert 0 < universal.info.facts["effective_train_rows"] < len(fold.train)


def test_training_twice_with_one_seed_gives_the_same_numbers(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    again = train_universal(dataset, fold, small, tmp_path)
    assert_same(universal, again)
    a, b = (model.answers(dataset, fold.test[:50]) for model in (universal, again))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_killed_training_resumes_to_the_same_numbers(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    class KillError(Exception):
        pass

    def kill(epoch: int, numbers: dict[str, float]) -> None:
        if epoch == 2:
            raise KillError

    with pytest.raises(KillError):
        train_universal(dataset, fold, small, tmp_path, on_epoch=kill)
    assert (tmp_path / "checkpoint.npz").is_file()
    assert not (tmp_path / "model.json").exists()
    resumed = train_universal(dataset, fold, small, tmp_path)
    assert resumed.info.facts["events"] == ["resumed at epoch 3"]
    assert_same(universal, resumed)
    assert not (tmp_path / "checkpoint.npz").exists()


@pytest.mark.slow
def test_checkpoint_of_another_architecture_is_refused(
    dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    def kill(epoch: int, numbers: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_universal(dataset, fold, small, tmp_path, on_epoch=kill)
    other = replace(small, model=small.model.model_copy(update={"lstm_units": (10, 8)}))
    with pytest.raises(ModelError, match="another architecture"):
        train_universal(dataset, fold, other, tmp_path)
    with pytest.raises(ModelError, match="other settings or other data"):
        train_universal(dataset, fold, change(small, learning_rate=1e-4), tmp_path)


@pytest.mark.parametrize("kind", ["network", "linear"])
def test_export_answers_as_in_process_and_keeps_the_contract(
    kind: str, universal: Any, linear: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    model = universal if kind == "network" else linear
    rows = fold.test[:9]
    path = model.export(tmp_path / "1")
    windows, ids = dataset.windows(rows), model.symbol_ids(dataset)[rows]
    served = savedmodel.predict(path, windows, ids)
    ours = model.answers(dataset, rows)
    assert set(served) == set(savedmodel.OUTPUTS)
    for name, shape in CONTRACT.items():
        assert served[name].shape == (9, *shape)
    for name, values in served.items():
        np.testing.assert_allclose(values, ours[name], atol=1e-5)
    np.testing.assert_allclose(served["probabilities"].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(served["attention"].sum(axis=1), 1, atol=1e-5)
    for name in ("confidence", "entropy", "position_size", "trend_strength"):
        assert ((served[name] >= 0) & (served[name] <= 1)).all()
    assert (served["expected_volatility"] > 0).all()
    # One at a time and in a batch: the saved masks make both the same.
    alone = savedmodel.predict(path, windows[3:4], ids[3:4])
    np.testing.assert_allclose(alone["probabilities"], served["probabilities"][3:4], atol=1e-6)


def test_explain_sums_to_the_change_of_probability(
    universal: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    path = universal.export(tmp_path / "1")
    rows = fold.test[::20]
    windows, ids = dataset.windows(rows), universal.symbol_ids(dataset)[rows]
    found = savedmodel.predict(path, windows, ids, signature="explain")
    assert found["attributions"].shape == windows.shape
    mean = np.broadcast_to(universal.reference["mean"].astype(np.float32), windows.shape)
    at, before = (savedmodel.predict(path, w, ids)["probabilities"] for w in (windows, mean))
    chosen = found["action"].astype(int)
    change_ = at[np.arange(len(rows)), chosen] - before[np.arange(len(rows)), chosen]
    # Sixteen points of a curved path: right on the whole, not to the last digit.
    error = found["attributions"].sum(axis=(1, 2)) - change_
    assert np.abs(error).mean() < 0.1 * np.abs(change_).max()
    assert np.corrcoef(found["attributions"].sum(axis=(1, 2)), change_)[0, 1] > 0.95
    dead = dataset.feature_names.index("constant")
    assert np.abs(found["attributions"][:, :, dead]).max() == 0


def test_score_examples_reads_serialized_examples(
    universal: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    path = universal.export(tmp_path / "1")
    rows = fold.test[:4]
    windows, ids = dataset.windows(rows), universal.symbol_ids(dataset)[rows]
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "window": tf.train.Feature(float_list=tf.train.FloatList(value=window.ravel())),
                    "symbol_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(number)])),
                }
            )
        ).SerializeToString()
        for window, number in zip(windows, ids, strict=True)
    ]
    found = savedmodel.load(path).signatures["score_examples"](examples=tf.constant(examples))
    expected = savedmodel.predict(path, windows, ids)
    np.testing.assert_allclose(found["probabilities"].numpy(), expected["probabilities"], atol=1e-6)


def test_export_loads_in_tensorflow_1_style_as_the_model_server_does(
    universal: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    path = universal.export(tmp_path / "1")
    windows = dataset.windows(fold.test[:2])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        signature = meta.signature_def["serving_default"]
        feed = {
            signature.inputs["window"].name: windows,
            signature.inputs["symbol_id"].name: np.array([1, 0], np.int32),
        }
        found = session.run(signature.outputs["probabilities"].name, feed)
    expected = savedmodel.predict(path, windows, np.array([1, 0]))["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_export_brings_a_warmup_request_that_the_model_answers(universal: Any, tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = universal.export(tmp_path / "1")
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    (raw,) = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(raw).predict_log.request
    inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
    served = savedmodel.predict(path, inputs["window"], inputs["symbol_id"])
    assert served["probabilities"].shape == (1, 3)
    assert np.isfinite(served["probabilities"]).all()


def test_save_load_and_export_load_give_the_same_answers(
    universal: Any, dataset: Any, fold: Any, tmp_path: Path
) -> None:
    universal.save(tmp_path / "plain")
    universal.export(tmp_path / "exported")
    expected = universal.answers(dataset, fold.test[:20])
    for folder in ("plain", "exported"):
        loaded = TrainedModel.load(tmp_path / folder)
        assert loaded.info == universal.info
        found = loaded.answers(dataset, fold.test[:20])
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_symbol_model_by_transfer_starts_from_its_parent_and_leaves_it_alone(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    before = weights_of(universal)
    own = train_symbol(universal, dataset, "S1", fold, small, tmp_path / "S1")
    for a, b in zip(before, weights_of(universal), strict=True):
        np.testing.assert_array_equal(a, b)
    assert own.info.symbol == "S1"
    assert own.info.thresholds == universal.info.thresholds
    assert len(own.info.facts["stages"]) == 3
    assert any(not np.array_equal(a, b) for a, b in zip(before, weights_of(own), strict=True))


@pytest.mark.slow
def test_symbol_training_twice_gives_the_same_numbers(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    own, again = (train_symbol(universal, dataset, "S1", fold, small, tmp_path / n) for n in "ab")
    assert_same(own, again)


def test_transfer_of_the_head_only_leaves_the_encoder_as_it_was(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    own = train_symbol(universal, dataset, "S0", fold, change(small, transfer_mode="head"), tmp_path)
    for ours, parent in zip(own.network.recurrent, universal.network.recurrent, strict=True):
        for a, b in zip(ours.get_weights(), parent.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_cold_start_answers_an_unseen_symbol_under_id_0(universal: Any, tools: Any) -> None:
    new = tools.dataset(tools.bars(4, 200, seed=9).filter(pl.col("symbol") == "S3"))
    assert set(universal.symbol_ids(new)) == {0}
    found = universal.answers(new, np.arange(5))
    assert np.isfinite(found["probabilities"]).all()


def test_predictions_frame_has_the_agreed_columns(universal: Any, dataset: Any, fold: Any) -> None:
    frame = universal.predictions(dataset, fold.test, fold=2)
    assert frame.columns == [
        "symbol",
        "event_timestamp",
        "label_end_timestamp",
        "model",
        "fold",
        "p_sell",
        "p_hold",
        "p_buy",
        "confidence",
        "uncertainty",
        "expected_return",
        "expected_volatility",
        "position_size",
        "label",
        "forward_log_return",
        "volatility",
        "regime",
        "volatility_regime",
    ]
    assert frame.height == len(fold.test)
    assert frame["fold"].unique().to_list() == [2]
    assert set(frame["regime"].unique()) <= {"bull", "bear", "sideways"}
    assert frame.null_count().sum_horizontal().sum() == 0


def test_shuffled_labels_score_chance(dataset: Any, small: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    order = random.permutation(len(dataset))
    shuffled = dataset.rows.with_columns(
        dataset.rows["forward_log_return"].gather(order), dataset.rows["volatility"].gather(order)
    )
    canary = replace(dataset, rows=shuffled)
    fold = splits.holdout(canary.rows, SplitsConfig(test_share=0.4))
    quick = change(small, max_epochs=3)
    for model in (train_universal(canary, fold, quick, tmp_path), train_linear(canary, fold, small)):
        assert accuracy(model, canary, fold.test) < 0.40


def test_planted_future_feature_is_caught(tools: Any) -> None:
    from barcast.training.canaries import leaking_features

    market = tools.bars(drift_size=0.0)
    clean = tools.features(market)
    outcome = pl.col("close").log().shift(-4).over("symbol") - pl.col("close").log().over("symbol")
    planted = market.with_columns(outcome.cast(pl.Float32).alias("planted")).select(
        "symbol", "event_timestamp", "planted"
    )
    dirty = clean.join(planted, on=["symbol", "event_timestamp"])
    assert leaking_features(tools.dataset(market, clean)) == []
    assert [name for name, _ in leaking_features(tools.dataset(market, dirty))] == ["planted"]


def test_nan_loss_restores_and_then_fails_clearly(
    dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    explosive = change(small, learning_rate=1e30, clip_norm=1e30, warmup_share=0.0, nan_restarts=1)
    with pytest.raises(ModelError, match="not finite"):
        train_universal(dataset, fold, explosive, tmp_path)


def test_out_of_memory_halves_the_batch_and_goes_on(
    dataset: Any, fold: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from barcast.training.steps import TensorFlowSteps

    real = TensorFlowSteps.train

    def limited(self: Any, rows: np.ndarray) -> dict[str, Any]:
        if len(rows) > 32:
            raise MemoryError("the device is full")
        return real(self, rows)

    monkeypatch.setattr(TensorFlowSteps, "train", limited)
    model = train_universal(dataset, fold, change(small, max_epochs=2), tmp_path)
    assert "batch halved to 32" in model.info.facts["events"][0]
    assert model.info.facts["epochs"][-1]["batch_size"] == 32


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"accumulate_steps": 2},
        {"precision": "mixed_bfloat16"},
        {"max_epoch_rows": 128},
    ],
)
def test_training_options_run_and_stay_finite(
    fields: dict[str, Any], dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    model = train_universal(dataset, fold, change(small, max_epochs=2, **fields), tmp_path)
    assert np.isfinite([e["val_loss"] for e in model.info.facts["epochs"]]).all()
    assert np.isfinite(model.answers(dataset, fold.test[:8])["probabilities"]).all()

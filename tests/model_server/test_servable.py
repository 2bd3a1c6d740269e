"""A loaded version: compiled and graph mode agree, padding is invisible, errors and deadlines are right."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from barcast.serving.model_server import start
from barcast.serving.model_server.servable import Servable
from barcast.serving.model_server.status import Code, StatusError


@pytest.fixture(scope="module")
def affine(affine_path: Path) -> Servable:
    return Servable("affine", 1, affine_path, batch_sizes=(1, 4))


@pytest.fixture(scope="module")
def rich(rich_path: Path) -> Servable:
    return Servable("rich", 1, rich_path, batch_sizes=())


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
def test_compiled_answers_equal_the_graphs_for_any_batch(affine: Servable, rows: int) -> None:
    assert affine.batch_sizes("serving_default") == (1, 4)
    x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
    np.testing.assert_allclose(affine.run("serving_default", {"x": x}, ["y"])["y"], x * 2 + 1, rtol=1e-6)


def test_shapes_that_were_not_compiled_run_in_graph_mode(affine: Servable) -> None:
    x = np.ones((2, 7), np.float32)
    np.testing.assert_array_equal(affine.run("serving_default", {"x": x}, ["y"])["y"], x * 3)


def test_a_lstm_compiles_and_agrees(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(1)
    window = keras.Input((12, 5), name="window")
    states = keras.layers.LSTM(8, return_sequences=True)(window)
    model = keras.Model(window, keras.layers.Dense(3, activation="softmax")(keras.layers.LSTM(4)(states)))
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda window: {"probabilities": model(window, training=False)},
        input_signature=[tf.TensorSpec((None, 12, 5), tf.float32, name="window")],
    )
    archive.write_out(str(tmp_path / "1"), verbose=False)
    servable = Servable("lstm", 1, tmp_path / "1", batch_sizes=(1, 4))
    assert servable.graph_mode_reasons == {}
    x = np.random.default_rng(0).standard_normal((3, 12, 5)).astype(np.float32)
    found = servable.run("serving_default", {"window": x}, ["probabilities"])["probabilities"]
    np.testing.assert_allclose(found, model(x).numpy(), atol=1e-5)


def _save(path: Path, function: object) -> None:
    module = tf.Module()
    module.function = function
    tf.saved_model.save(module, str(path), signatures={"serving_default": function})


def test_what_xla_refuses_runs_in_graph_mode_with_a_reason(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def unique(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32)}

    _save(tmp_path / "1", unique)
    servable = Servable("text", 1, tmp_path / "1", batch_sizes=(1,))
    assert "AsString" in servable.graph_mode_reasons["serving_default"]
    found = servable.run("serving_default", {"x": np.ones((1, 2), np.float32)}, ["y"])
    assert found["y"].shape == (1, 2)


def test_rows_that_depend_on_the_batch_are_never_padded(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def centred(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x - tf.reduce_mean(x, axis=0)}

    _save(tmp_path / "1", centred)
    servable = Servable("centred", 1, tmp_path / "1", batch_sizes=(1, 8))
    assert "depend on the batch" in servable.graph_mode_reasons["serving_default"]
    x = np.array([[1, 2], [3, 4], [5, 9]], np.float32)
    np.testing.assert_allclose(servable.run("serving_default", {"x": x}, ["y"])["y"], x - x.mean(axis=0))


def test_a_deadline_stops_a_run(rich: Servable) -> None:
    began = time.monotonic()
    inputs = {"x": np.float32(1), "steps": np.int32(2_000_000_000)}
    with pytest.raises(tf.errors.DeadlineExceededError):
        rich.run("slow", inputs, ["y"], began + 0.5)
    assert time.monotonic() - began < 10


def test_a_wrong_type_names_the_input(affine: Servable) -> None:
    with pytest.raises(StatusError, match=r'to be float but int32 is provided \(input "x"\)'):
        affine.run("serving_default", {"x": np.ones((1, 3), np.int32)}, ["y"])


def test_close_waits_for_the_run_in_flight(rich_path: Path) -> None:
    servable = Servable("rich", 1, rich_path, batch_sizes=())
    inputs = {"x": np.float32(1), "steps": np.int32(20_000)}
    outcome: list[object] = []
    worker = threading.Thread(target=lambda: outcome.append(servable.run("slow", inputs, ["y"])))
    worker.start()
    time.sleep(0.1)
    servable.close()
    worker.join(60)
    assert outcome
    with pytest.raises(StatusError) as refused:
        servable.run("slow", inputs, ["y"])
    assert refused.value.code == Code.UNAVAILABLE


def test_no_saved_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match=r"should have a file called `saved_model\.pb`") as refused:
        Servable("none", 1, tmp_path)
    assert refused.value.code == Code.NOT_FOUND


def test_missing_variables_fail_the_load(tmp_path: Path, affine_path: Path) -> None:
    import shutil

    broken = tmp_path / "1"
    shutil.copytree(affine_path, broken)
    (broken / "variables" / "variables.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(tf.errors.OpError):
        Servable("broken", 1, broken)


def _block_lstm(forget_bias: float, peephole: bool, output: str) -> object:
    generator = np.random.default_rng(5)
    w = tf.constant(generator.standard_normal((5 + 4, 16)).astype(np.float32))
    b = tf.constant(generator.standard_normal(16).astype(np.float32))
    diagonal = tf.constant(generator.standard_normal(4).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 7, 5), tf.float32, name="x")])
    def fused(x: tf.Tensor) -> dict[str, tf.Tensor]:
        start = tf.zeros((tf.shape(x)[0], 4))
        found = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.constant(7, tf.int64),
            x=tf.transpose(x, (1, 0, 2)),
            cs_prev=start,
            h_prev=start,
            w=w,
            wci=diagonal,
            wcf=diagonal,
            wco=diagonal,
            b=b,
            forget_bias=forget_bias,
            cell_clip=-1.0,
            use_peephole=peephole,
        )
        return {"y": tf.transpose(getattr(found, output), (1, 0, 2))}

    return fused


@pytest.mark.parametrize("forget_bias", [1.0, 0.25])
def test_the_fused_lstm_is_compiled_as_an_equal_loop(tmp_path: Path, forget_bias: float) -> None:
    fused = _block_lstm(forget_bias, peephole=False, output="h")
    _save(tmp_path / "1", fused)
    servable = Servable("fused", 1, tmp_path / "1", batch_sizes=(1, 4))
    assert servable.graph_mode_reasons == {}
    x = np.random.default_rng(0).standard_normal((3, 7, 5)).astype(np.float32)
    found = servable.run("serving_default", {"x": x}, ["y"])["y"]
    np.testing.assert_allclose(found, fused(x)["y"].numpy(), atol=1e-5)  # type: ignore[operator]


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_process_has_as_many_threads_as_asked_for_one_operation(tmp_path: Path) -> None:
    _save(tmp_path / "1", _block_lstm(1.0, peephole=False, output="h"))  # its loop is traced by eager code
    with start(models={"fused": tmp_path}, tensorflow_intra_op_parallelism=3) as server:
        tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
        names = [(task / "comm").read_text().strip() for task in tasks]
    assert names.count("tf_XLAEigen") == 3


@pytest.mark.parametrize(("peephole", "output"), [(True, "h"), (False, "cs")])
def test_other_fused_lstms_stay_in_graph_mode(tmp_path: Path, peephole: bool, output: str) -> None:
    fused = _block_lstm(1.0, peephole=peephole, output=output)
    _save(tmp_path / "1", fused)
    servable = Servable("fused", 1, tmp_path / "1", batch_sizes=(1,))
    assert "BlockLSTM" in servable.graph_mode_reasons["serving_default"]
    x = np.ones((1, 7, 5), np.float32)
    found = servable.run("serving_default", {"x": x}, ["y"])["y"]
    np.testing.assert_allclose(found, fused(x)["y"].numpy(), atol=1e-6)  # type: ignore[operator]

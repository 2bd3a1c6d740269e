"""Predict over gRPC: which version answers, inputs, outputs, errors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from conformance_client import Client, failure, fill, floats, predict_request
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

ROW = floats([1.0, 2.0, 3.0])


def _affine(**kwargs: object) -> object:
    return predict_request("affine", {"x": ROW}, **kwargs)  # type: ignore[arg-type]


def test_predict_gives_the_models_own_numbers(client: Client) -> None:
    answer = client.predict(_affine())
    assert answer.model_spec.name == "affine"
    assert answer.model_spec.version.value == 7
    assert answer.model_spec.signature_name == "serving_default"
    np.testing.assert_allclose(tf.make_ndarray(answer.outputs["y"]), ROW * 2 + 1, rtol=1e-6)


def test_outputs_travel_in_typed_fields(client: Client) -> None:
    proto = client.predict(_affine()).outputs["y"]
    assert list(proto.float_val) == [3.0, 5.0, 7.0]
    assert proto.tensor_content == b""
    assert [dim.size for dim in proto.tensor_shape.dim] == [1, 3]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 33])
def test_any_batch_size_keeps_its_rows(client: Client, rows: int) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
    found = tf.make_ndarray(client.predict(predict_request("affine", {"x": x})).outputs["y"])
    np.testing.assert_allclose(found, x * 2 + 1, rtol=1e-6)


def test_empty_batch_gives_empty_answer(client: Client) -> None:
    answer = client.predict(predict_request("affine", {"x": np.zeros((0, 3), np.float32)}))
    assert tf.make_ndarray(answer.outputs["y"]).shape == (0, 3)


def test_shapes_are_judged_by_the_operations_not_the_signature(client: Client) -> None:
    x = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(
        tf.make_ndarray(client.predict(predict_request("affine", {"x": x})).outputs["y"]), x * 2 + 1
    )


@pytest.mark.parametrize(
    ("choice", "version"),
    [({}, 2), ({"version": 1}, 1), ({"version": 2}, 2), ({"label": "old"}, 1), ({"label": "new"}, 2)],
)
def test_version_and_label_choose_the_version(
    client: Client, choice: dict[str, object], version: int
) -> None:
    answer = client.predict(predict_request("rich", {"x": ROW}, **choice))  # type: ignore[arg-type]
    assert answer.model_spec.version.value == version
    assert answer.model_spec.WhichOneof("version_choice") == "version"
    np.testing.assert_allclose(tf.make_ndarray(answer.outputs["y"]), ROW * (version + 1) + 1, rtol=1e-6)


def test_several_inputs_and_outputs(client: Client) -> None:
    inputs = {"a": floats([1, 2], [3, 4]), "b": np.array([10, 20], np.int32)}
    answer = client.predict(predict_request("rich", inputs, signature="two", version=1))
    assert answer.model_spec.signature_name == "two"
    assert list(answer.outputs["sum"].float_val) == [16.0, 34.0]
    assert list(answer.outputs["double_b"].int_val) == [20, 40]


def test_output_filter_gives_only_what_it_names(client: Client) -> None:
    inputs = {"a": floats([1, 2]), "b": np.array([1], np.int32)}
    answer = client.predict(predict_request("rich", inputs, signature="two", outputs=("double_b",)))
    assert set(answer.outputs) == {"double_b"}


def test_text_in_and_out(client: Client) -> None:
    answer = client.predict(
        predict_request("rich", {"text": np.array([b"ab", b"\xff\x00"], dtype=object)}, signature="text")
    )
    assert answer.outputs["upper"].string_val[0] == b"AB"
    assert list(answer.outputs["raw_bytes"].string_val) == [b"ab", b"\xff\x00"]


def test_fewer_values_than_the_shape_repeat_the_last(client: Client) -> None:
    proto = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum, float_val=[1.0, 4.0])
    for size in (1, 3):
        proto.tensor_shape.dim.add(size=size)
    answer = client.predict(predict_request("affine", {"x": proto}))
    assert list(answer.outputs["y"].float_val) == [3.0, 9.0, 9.0]


def test_no_values_are_zeros(client: Client) -> None:
    proto = tensor_pb2.TensorProto(dtype=tf.float32.as_datatype_enum)
    for size in (1, 3):
        proto.tensor_shape.dim.add(size=size)
    assert list(client.predict(predict_request("affine", {"x": proto})).outputs["y"].float_val) == [1.0] * 3


def test_missing_spec(client: Client) -> None:
    assert failure(lambda: client.predict(predict_pb2.PredictRequest())) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )


def test_empty_name(client: Client) -> None:
    request = predict_pb2.PredictRequest()
    fill(request.model_spec, "", signature="x")
    assert failure(lambda: client.predict(request)) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )


def test_unknown_model(client: Client) -> None:
    assert failure(lambda: client.predict(predict_request("absent", {"x": ROW}))) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(absent)",
    )


def test_unknown_version(client: Client) -> None:
    assert failure(lambda: client.predict(_affine(version=99))) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(affine, 99)",
    )


@pytest.mark.parametrize("model", ["rich", "absent"])
def test_unknown_label(client: Client, model: str) -> None:
    assert failure(lambda: client.predict(predict_request(model, {"x": ROW}, label="nope"))) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: nope",
    )


def test_unknown_signature(client: Client) -> None:
    assert failure(lambda: client.predict(_affine(signature="nope"))) == (
        "FAILED_PRECONDITION",
        'Serving signature key "nope" not found.',
    )


def test_no_inputs_names_what_is_missing(client: Client) -> None:
    assert failure(lambda: client.predict(predict_request("affine", {}))) == (
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
        "Missing but required: {x}.",
    )


def test_surplus_input_is_named(client: Client) -> None:
    code, text = failure(lambda: client.predict(predict_request("affine", {"x": ROW, "z": ROW})))
    assert code == "INVALID_ARGUMENT"
    assert "Sent extra: {z}" in text


def test_wrong_name_names_the_input_wanted(client: Client) -> None:
    code, text = failure(lambda: client.predict(predict_request("affine", {"z": ROW})))
    assert code == "INVALID_ARGUMENT"
    assert "Signature input alias: x" in text


def test_wrong_type_names_both_types(client: Client) -> None:
    code, text = failure(lambda: client.predict(predict_request("affine", {"x": ROW.astype(np.int32)})))
    assert code == "INVALID_ARGUMENT"
    assert "to be float but int32 is provided" in text


@pytest.mark.parametrize("kind", [0, tf.float32.as_datatype_enum])
def test_unparsable_tensor_is_named(client: Client, kind: int) -> None:
    proto = tensor_pb2.TensorProto(dtype=kind, tensor_content=b"abc")
    proto.tensor_shape.dim.add(size=1)
    assert failure(lambda: client.predict(predict_request("affine", {"x": proto}))) == (
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    )


def test_execution_error_has_the_operations_code(client: Client) -> None:
    inputs = {"a": floats([1, 2]), "b": np.array([1, 2, 3], np.int32)}
    request = predict_request("rich", {**inputs, "a": np.ones((2, 2), np.float32)}, signature="two")
    code, text = failure(lambda: client.predict(request))
    assert code == "INVALID_ARGUMENT"
    assert "{{node" in text


def test_unknown_output(client: Client) -> None:
    code, text = failure(lambda: client.predict(_affine(outputs=("nope",))))
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("output tensor alias not found in signature: nope")


def test_output_named_twice(client: Client) -> None:
    code, text = failure(lambda: client.predict(_affine(outputs=("y", "y"))))
    assert (code, text) == ("INVALID_ARGUMENT", "duplicate output tensor alias: y")


def test_precedence_model_before_signature_before_inputs_before_filter(client: Client) -> None:
    code, _ = failure(lambda: client.predict(predict_request("absent", {}, signature="nope", outputs=("n",))))
    assert code == "NOT_FOUND"
    code, _ = failure(lambda: client.predict(predict_request("affine", {}, signature="nope", outputs=("n",))))
    assert code == "FAILED_PRECONDITION"
    _, text = failure(lambda: client.predict(predict_request("affine", {}, outputs=("n",))))
    assert text.startswith("input size")
    _, text = failure(
        lambda: client.predict(predict_request("affine", {"x": ROW.astype(np.int32)}, outputs=("n",)))
    )
    assert text.startswith("output tensor alias")


def test_a_large_request_passes(client: Client) -> None:
    x = np.ones((200_000, 3), np.float32)  # 2.4 MB in, over 4 MiB with the typed fields out
    x = np.concatenate([x] * 3)
    answer = client.predict(predict_request("affine", {"x": x}))
    assert tf.make_ndarray(answer.outputs["y"]).shape == x.shape


def test_the_clients_deadline_stops_the_work(client: Client) -> None:
    request = predict_request(
        "rich", {"x": np.float32(1), "steps": np.int32(2_000_000_000)}, signature="slow", version=1
    )
    code, _ = failure(lambda: client.predict(request, timeout=0.7))
    assert code == "DEADLINE_EXCEEDED"
    np.testing.assert_allclose(tf.make_ndarray(client.predict(_affine()).outputs["y"]), ROW * 2 + 1)

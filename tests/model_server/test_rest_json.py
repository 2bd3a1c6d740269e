"""JSON bodies at their edges: what cannot be read is the client's error, and empty dimensions keep their shape."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from barcast.serving.model_server import rest_api, rest_examples, rest_json
from barcast.serving.model_server.status import Code, StatusError


@pytest.mark.parametrize(
    "body",
    [b'{"instances": [' + b"1" * 5000 + b"]}", b"\xff{", b"[" * 100_000],
    ids=["digits", "bytes", "deep"],
)
def test_a_document_that_cannot_be_read_is_an_invalid_argument(body: bytes) -> None:
    with pytest.raises(StatusError, match="JSON Parse error") as refused:
        rest_json.parse(body)
    assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 3), (2, 3, 0), (2, 3)])
@pytest.mark.parametrize("kind", ["float32", "float64", "object"])
def test_empty_dimensions_keep_their_shape(kind: str, shape: tuple[int, ...]) -> None:
    array = np.full(shape, b"a" if kind == "object" else 1.5, dtype=kind)
    expected = np.full(shape, "a" if kind == "object" else 1.5, dtype=object).tolist()
    assert rest_json.write_outputs({"y": array}, row=True) == {"predictions": expected}
    beside = rest_json.write_outputs({"y": array, "z": np.arange(shape[0])}, row=True)
    assert [row["y"] for row in beside["predictions"]] == expected


@pytest.mark.parametrize("text", [rb"\ud800", b"\xed\xa0\x80"], ids=["escaped", "raw"])
def test_half_a_surrogate_pair_is_no_text(text: bytes) -> None:
    with pytest.raises(StatusError, match="JSON Parse error") as refused:
        rest_json.parse(b'{"signature_name": "' + text + b'"}')
    assert refused.value.code == Code.INVALID_ARGUMENT
    assert rest_json.parse(rb'{"a": "\ud83d\ude00", "b": "\\ud800"}') == {"a": "😀", "b": "\\ud800"}


def test_lists_deeper_than_any_array_are_refused() -> None:
    info = meta_graph_pb2.TensorInfo(dtype=types_pb2.DT_FLOAT)
    deep = json.loads("[" * 100 + "1" + "]" * 100)
    with pytest.raises(StatusError, match="deeper than 32 dimensions"):
        rest_json.to_array(deep, info, row=True)


@pytest.mark.parametrize("value", [10**400, [1.0, 10**400]])
def test_a_feature_that_no_float_holds_is_refused(value: object) -> None:
    with pytest.raises(StatusError, match="Feature: x has a number that no float can hold"):
        rest_examples.read_input({"examples": [{"x": value}]})


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000])
def test_a_version_beyond_int64_is_named(digits: str) -> None:
    with pytest.raises(StatusError, match=r"Failed to convert version: 9+ to numeric"):
        rest_api.route("POST", f"/v1/models/m/versions/{digits}:predict")
    padded = rest_api.route("POST", f"/v1/models/m/versions/{'0' * 5000}7:predict")
    assert padded.spec.version.value == 7

"""TensorProto to numpy and back: every type, short and surplus values, hostile shapes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2

from barcast.serving.model_server.status import StatusError
from barcast.serving.model_server.tensors import decode, encode
from barcast.serving.model_server.wire import predict_response

_TYPES = ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@given(st.sampled_from(_TYPES).flatmap(lambda kind: hnp.arrays(np.dtype(kind), _SHAPES)), st.booleans())
def test_round_trip_of_numbers(array: np.ndarray, as_content: bool) -> None:
    found = decode(encode(array, as_content=as_content), "x")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(st.sampled_from(_TYPES).flatmap(lambda kind: hnp.arrays(np.dtype(kind), _SHAPES)))
def test_reads_what_tensorflow_writes_and_writes_what_it_reads(array: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(tf.make_tensor_proto(array), "x"), array)
    np.testing.assert_array_equal(tf.make_ndarray(encode(array)), array)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_round_trip_of_bytes(values: list[bytes]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    assert decode(encode(array), "x").tolist() == values
    content = b"".join(_varint(len(value)) for value in values) + b"".join(values)
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=content)
    proto.tensor_shape.dim.add(size=len(values))
    assert decode(proto, "x").tolist() == values


def _varint(number: int) -> bytes:
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def _proto(dtype: int, shape: list[int], **fields: object) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_fewer_values_repeat_the_last_and_none_are_zeros() -> None:
    assert decode(_proto(types_pb2.DT_FLOAT, [4], float_val=[1, 2]), "x").tolist() == [1, 2, 2, 2]
    assert decode(_proto(types_pb2.DT_INT32, [2]), "x").tolist() == [0, 0]
    assert decode(_proto(types_pb2.DT_STRING, [2]), "x").tolist() == [b"", b""]


@pytest.mark.parametrize(
    "proto",
    [
        _proto(types_pb2.DT_FLOAT, [1], float_val=[1, 2]),
        _proto(types_pb2.DT_FLOAT, [-1], float_val=[1]),
        _proto(types_pb2.DT_FLOAT, [2], tensor_content=b"1234567"),
        _proto(types_pb2.DT_STRING, [2], tensor_content=b"\x05ab"),
        _proto(types_pb2.DT_STRING, [1], tensor_content=b"\xff" * 20),
        _proto(types_pb2.DT_INVALID, [1]),
        _proto(types_pb2.DT_RESOURCE, [1]),
        _proto(types_pb2.DT_FLOAT, [2**40, 2**40]),
        _proto(types_pb2.DT_FLOAT, [2**28], float_val=[1]),
        _proto(types_pb2.DT_FLOAT, [0, 2**62]),
        _proto(types_pb2.DT_FLOAT, [2**40, 2**40, 0]),
        tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape={"unknown_rank": True}),
    ],
)
def test_what_cannot_be_read_is_named(proto: tensor_pb2.TensorProto) -> None:
    with pytest.raises(StatusError, match="tensor parsing error: x"):
        decode(proto, "x")


@given(
    st.lists(
        st.tuples(
            st.text(max_size=8),
            st.sampled_from(["f4", "f8", "i4", "?"]).flatmap(
                lambda kind: hnp.arrays(np.dtype(kind), _SHAPES)
            ),
        ),
        max_size=4,
        unique_by=lambda pair: pair[0],
    ),
    st.booleans(),
    st.integers(0, 2**62),
)
def test_the_hand_written_response_is_the_compiled_messages(
    outputs: list[tuple[str, np.ndarray]], as_content: bool, version: int
) -> None:
    spec = model_pb2.ModelSpec(name="m" * 200, signature_name="serving_default")
    spec.version.value = version
    expected = predict_pb2.PredictResponse(model_spec=spec)
    for alias, array in outputs:
        expected.outputs[alias].CopyFrom(encode(array, as_content=as_content))
    found = predict_pb2.PredictResponse.FromString(
        predict_response(spec.SerializeToString(), outputs, as_content=as_content)
    )
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)

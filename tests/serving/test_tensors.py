"""Arrays survive the way to the model and back, in both encodings; broken answers are refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from barcast.errors import ServingError
from barcast.serving.protos import tensor_pb2, types_pb2
from barcast.serving.tensors import pack, unpack

KINDS = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.bool_, np.int8])


@settings(max_examples=60, deadline=None)
@given(
    KINDS.flatmap(lambda k: hnp.arrays(k, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
)
def test_pack_with_any_array_comes_back_equal(array: np.ndarray) -> None:
    back = unpack(tensor_pb2.TensorProto.FromString(pack(array).SerializeToString()))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


def test_pack_with_strided_array_keeps_values() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3].T
    np.testing.assert_array_equal(unpack(pack(array)), array)


def test_unpack_with_typed_field_repeats_last_value() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    proto.float_val.extend([1.0, 2.5])
    np.testing.assert_array_equal(unpack(proto), [[1.0, 2.5], [2.5, 2.5]])


@pytest.mark.parametrize(
    ("sizes", "content", "words"),
    [
        ((2,), b"\0" * 4, "1 values for shape"),
        ((-1,), b"", "cannot be negative"),
        ((2**40,), b"", "larger than"),
    ],
)
def test_unpack_with_lying_shape_is_refused(sizes: tuple[int, ...], content: bytes, words: str) -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=content)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ServingError, match=words):
        unpack(proto, "probabilities")


def test_pack_with_strings_is_refused() -> None:
    with pytest.raises(ServingError, match="cannot be sent"):
        pack(np.array(["a"]))


def test_client_with_fresh_process_does_not_import_tensorflow() -> None:
    code = (
        "import sys; import barcast.serving.predictor, barcast.serving.client;"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_messages_with_tensorflow_imported_later_are_the_same_classes() -> None:
    code = (
        "from barcast.serving import protos; import tensorflow as tf;"
        "from tensorflow_serving.apis import predict_pb2;"
        "assert predict_pb2.PredictRequest is protos.predict_pb2.PredictRequest;"
        "from barcast.serving.tensors import unpack;"
        "assert unpack(tf.make_tensor_proto([1.5, 2.0])).tolist() == [1.5, 2.0]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)

"""A PredictResponse written straight to the wire, field by field.

Filling the message and serializing it costs more than all other work of ours on a request: a packed `float_val` is
nothing but the array's own bytes, and needs no Python number in between. Field numbers are those of
predict.proto, tensor.proto and tensor_shape.proto; a test compares the bytes with the compiled messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barcast.serving.model_server.tensors import encode

# PredictResponse.outputs = 1 (map entry: key = 1, value = 2), .model_spec = 2
_OUTPUTS, _MODEL_SPEC, _KEY, _VALUE = b"\x0a", b"\x12", b"\x0a", b"\x12"
# TensorProto.dtype = 1 (varint), .tensor_shape = 2, .float_val = 5, .double_val = 6 (both packed)
_DTYPE, _SHAPE = b"\x08", b"\x12"
_PACKED = {np.dtype(np.float32): (b"\x01", b"\x2a"), np.dtype(np.float64): (b"\x02", b"\x32")}
# TensorShapeProto.dim = 2, Dim.size = 1
_DIM, _SIZE = b"\x12", b"\x08"


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


@lru_cache(maxsize=4096)
def _head(alias: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Everything of an output's map entry that comes before its values: the same for every answer of one shape."""
    dtype, tag = _PACKED[kind]
    size = math.prod(shape) * kind.itemsize
    dims = b"".join(_field(_DIM, _SIZE + _varint(n) if n else b"") for n in shape)
    tensor = _DTYPE + dtype + _field(_SHAPE, dims) + (tag + _varint(size) if size else b"")
    key, value = _field(_KEY, alias.encode()), _VALUE + _varint(len(tensor) + size) + tensor
    return _OUTPUTS + _varint(len(key) + len(value) + size) + key + value


def predict_response(
    spec: bytes, outputs: Iterable[tuple[str, NDArray[Any]]], *, as_content: bool = False
) -> bytes:
    """A serialized PredictResponse.

    Args:
        spec: the serialized ModelSpec that answered.
        outputs: arrays by alias.
        as_content: raw bytes instead of typed fields.
    """
    parts = []
    for alias, given in outputs:
        array = np.asarray(given)
        if as_content or array.dtype not in _PACKED:
            tensor = encode(array, as_content=as_content).SerializeToString()
            parts.append(_field(_OUTPUTS, _field(_KEY, alias.encode()) + _field(_VALUE, tensor)))
        else:
            parts += (_head(alias, array.dtype, array.shape), array.tobytes())
    parts.append(_field(_MODEL_SPEC, spec))
    return b"".join(parts)

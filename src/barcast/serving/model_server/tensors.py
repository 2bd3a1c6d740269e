"""TensorProto to numpy and back, with the rules of TensorFlow's `Tensor::FromProto`.

Fewer values than the shape holds: the last is repeated (none: zeros). Surplus values are an error here; TensorFlow
drops them silently. Outputs travel in typed fields, as TensorFlow Serving writes them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.framework import dtypes

from barcast.serving.model_server.status import StatusError, invalid

MOST_DIMENSIONS = 32
_LARGEST_BYTES = 2**31 - 1
_LARGEST_FILL_BYTES = 2**28  # a request of a few bytes must not claim the machine's memory
# TensorFlow's data type → (numpy type, typed field)
_KINDS: dict[int, tuple[Any, str]] = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_DOUBLE: (np.float64, "double_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT16: (np.int16, "int_val"),
    types_pb2.DT_INT8: (np.int8, "int_val"),
    types_pb2.DT_UINT16: (np.uint16, "int_val"),
    types_pb2.DT_UINT8: (np.uint8, "int_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_UINT32: (np.uint32, "uint32_val"),
    types_pb2.DT_UINT64: (np.uint64, "uint64_val"),
    types_pb2.DT_BOOL: (np.bool_, "bool_val"),
    types_pb2.DT_HALF: (np.float16, "half_val"),
    types_pb2.DT_BFLOAT16: (dtypes.bfloat16.as_numpy_dtype, "half_val"),
    types_pb2.DT_COMPLEX64: (np.complex64, "scomplex_val"),
    types_pb2.DT_COMPLEX128: (np.complex128, "dcomplex_val"),
    types_pb2.DT_STRING: (np.object_, "string_val"),
}
_CODES = {np.dtype(kind): code for code, (kind, _) in _KINDS.items()}
_HALF = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
_COMPLEX = (types_pb2.DT_COMPLEX64, types_pb2.DT_COMPLEX128)


def dtype_name(code: int) -> str:
    """TensorFlow's short name of a data type: float, int32, string, ..."""
    name: str = types_pb2.DataType.Name(code) if code in types_pb2.DataType.values() else f"DT_{code}"
    return name.removeprefix("DT_").lower()


def dtype_code(array: NDArray[Any]) -> int:
    """TensorFlow's number for the array's type; bytes and text count as strings."""
    if array.dtype.kind in "SU":
        return int(types_pb2.DT_STRING)
    return int(_CODES.get(array.dtype, types_pb2.DT_INVALID))


def numpy_type(code: int) -> Any:
    """The numpy type of TensorFlow's data type `code`, or None when no array can hold it."""
    kind = _KINDS.get(code)
    return None if kind is None else kind[0]


def _strings(content: bytes, count: int) -> list[bytes] | None:
    lengths = []
    at = 0
    for _ in range(count):
        length = shift = 0
        while True:
            if at >= len(content) or shift > 28:
                return None
            byte = content[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if at + sum(lengths) != len(content):
        return None
    values = []
    for length in lengths:
        values.append(content[at : at + length])
        at += length
    return values


def _unreadable(alias: str) -> StatusError:
    return invalid(f"tensor parsing error: {alias}")


def decode(proto: Any, alias: str) -> NDArray[Any]:
    """The array of a TensorProto.

    Raises:
        StatusError: INVALID_ARGUMENT `tensor parsing error: <alias>` for an unknown type, unknown or negative shape,
            bytes that do not fit the shape, more values than the shape holds, or more than 2 GiB.
    """
    if proto.dtype not in _KINDS or proto.tensor_shape.unknown_rank:
        raise _unreadable(alias)
    kind, field = _KINDS[proto.dtype]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise _unreadable(alias)
    count = math.prod(shape)
    extent = math.prod(
        max(1, size) for size in shape
    )  # NumPy limits the other dimensions of an empty array too
    if extent * np.dtype(kind).itemsize > _LARGEST_BYTES or len(shape) > MOST_DIMENSIONS:
        raise _unreadable(alias)
    content = proto.tensor_content
    if content:
        if proto.dtype == types_pb2.DT_STRING:
            values = _strings(content, count)
            if values is None:
                raise _unreadable(alias)
            flat = np.empty(count, dtype=np.object_)
            flat[:] = values
            return flat.reshape(shape)
        if len(content) != count * np.dtype(kind).itemsize:
            raise _unreadable(alias)
        if kind is np.bool_:
            truth: NDArray[Any] = np.frombuffer(content, dtype=np.uint8) != 0
            return truth.reshape(shape)
        return np.frombuffer(content, dtype=kind).reshape(shape)
    flat = _typed(proto, kind, field)
    if flat.size > count:
        raise _unreadable(alias)
    if flat.size < count:
        if count * np.dtype(kind).itemsize > _LARGEST_FILL_BYTES:
            raise _unreadable(alias)
        full = np.empty(count, dtype=kind)
        full[: flat.size] = flat
        full[flat.size :] = flat[-1] if flat.size else (b"" if kind is np.object_ else 0)
        flat = full
    return flat.reshape(shape)


def _typed(proto: Any, kind: Any, field: str) -> NDArray[Any]:
    values = getattr(proto, field)
    if proto.dtype in _HALF:
        return (np.asarray(values, dtype=np.int64) & 0xFFFF).astype(np.uint16).view(kind)
    if proto.dtype in _COMPLEX:
        real = np.float32 if kind is np.complex64 else np.float64
        pairs = np.asarray(values, dtype=real)
        found: NDArray[Any] = pairs[: pairs.size // 2 * 2].view(kind)
        return found
    if kind is np.object_:
        flat = np.empty(len(values), dtype=np.object_)
        flat[:] = list(values)
        return flat
    if field == "int_val":  # out-of-range values wrap, as the C++ cast does
        return np.asarray(values, dtype=np.int64).astype(kind)
    return np.asarray(values, dtype=kind)


def encode(array: Any, *, as_content: bool = False) -> Any:
    """`array` as a TensorProto: typed fields, or raw bytes when `as_content` (strings always typed)."""
    array = np.asarray(array)
    code = dtype_code(array)
    proto = tensor_pb2.TensorProto(dtype=code)
    proto.tensor_shape.SetInParent()  # a scalar has a shape too: the empty one
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if code == types_pb2.DT_STRING:
        proto.string_val.extend(
            item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()
        )
    elif as_content:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    elif code in _HALF:
        proto.half_val.extend(array.ravel().view(np.uint16).tolist())
    elif code in _COMPLEX:
        part = np.float32 if code == types_pb2.DT_COMPLEX64 else np.float64
        getattr(proto, _KINDS[code][1]).extend(np.ascontiguousarray(array).ravel().view(part).tolist())
    else:
        getattr(proto, _KINDS[code][1]).extend(array.ravel().tolist())
    return proto

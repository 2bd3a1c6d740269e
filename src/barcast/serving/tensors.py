"""numpy arrays to TensorProto and back, without TensorFlow.

Arrays go out as raw little-endian bytes (`tensor_content`); answers are read from either form, since
TensorFlow Serving answers in typed fields (`float_val` ...) and other servers in `tensor_content`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from barcast.errors import ServingError
from barcast.serving.protos import tensor_pb2, types_pb2

# TensorFlow's data type → (numpy type, typed field)
_TYPES: dict[int, tuple[str, str]] = {
    types_pb2.DT_FLOAT: ("<f4", "float_val"),
    types_pb2.DT_DOUBLE: ("<f8", "double_val"),
    types_pb2.DT_INT32: ("<i4", "int_val"),
    types_pb2.DT_INT16: ("<i2", "int_val"),
    types_pb2.DT_INT8: ("<i1", "int_val"),
    types_pb2.DT_UINT8: ("<u1", "int_val"),
    types_pb2.DT_INT64: ("<i8", "int64_val"),
    types_pb2.DT_BOOL: ("|b1", "bool_val"),
}
_CODES = {np.dtype(kind): code for code, (kind, _) in _TYPES.items()}
MAX_BYTES = 512 * 2**20


def pack(array: NDArray[Any], into: Any = None) -> Any:
    """`array` as a TensorProto, its bytes in `tensor_content`.

    Args:
        into: an empty TensorProto to fill, instead of a new one that must be copied to its place.

    Raises:
        ServingError: the array's type has no counterpart here.
    """
    code = _CODES.get(array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype)
    if code is None:
        raise ServingError(
            f"An array of {array.dtype} cannot be sent to a model.",
            hint="Send float32 windows and int32 ids.",
        )
    proto = tensor_pb2.TensorProto() if into is None else into
    proto.dtype = code
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = np.ascontiguousarray(array, dtype=_TYPES[code][0]).tobytes()
    return proto


def unpack(proto: Any, name: str = "tensor") -> NDArray[Any]:
    """The array of a TensorProto, from `tensor_content` or the typed field; a short typed field repeats its
    last value.

    Raises:
        ServingError: unknown type, negative or oversized shape, or a length that does not fit the shape.
    """
    if proto.dtype not in _TYPES:
        raise ServingError(f"Output {name!r} has data type {proto.dtype}, which no barcast signature uses.")
    kind, field = _TYPES[proto.dtype]
    shape = tuple(int(dim.size) for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise ServingError(f"Output {name!r} has shape {shape}; sizes cannot be negative.")
    count = 1
    for size in shape:
        count *= size
    if count * np.dtype(kind).itemsize > MAX_BYTES:
        raise ServingError(f"Output {name!r} with shape {shape} is larger than {MAX_BYTES} bytes.")
    if proto.tensor_content:
        flat = np.frombuffer(proto.tensor_content, dtype=kind)
        if flat.size != count:
            raise ServingError(f"Output {name!r} has {flat.size} values for shape {shape}.")
        return flat.reshape(shape).copy()
    flat = np.asarray(getattr(proto, field), dtype=kind)
    if flat.size > count:
        raise ServingError(f"Output {name!r} has {flat.size} values for shape {shape}.")
    if flat.size < count:  # TensorFlow writes a run of equal trailing values once
        fill = np.full(count, flat[-1] if flat.size else 0, dtype=kind)
        fill[: flat.size] = flat
        flat = fill
    return flat.reshape(shape)

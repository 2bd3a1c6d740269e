"""JSON bodies to arrays and arrays to JSON values, in TensorFlow Serving's row and column forms."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from barcast.serving.model_server.servable import Arrays
from barcast.serving.model_server.status import StatusError, invalid
from barcast.serving.model_server.tensors import MOST_DIMENSIONS, dtype_name, numpy_type

_SHOWN_CHARACTERS = 100


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a request body.

    Raises:
        StatusError: INVALID_ARGUMENT for an empty or broken document, or one that is no object.
    """
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8-sig"))
        if b"\\ud" in body.lower():  # an escaped half of a surrogate pair is no text
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid value. at offset: {error.pos}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, too deep
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Type: {_type(document)} Is not object")
    return document


def signature_name(document: dict[str, Any]) -> str:
    """The signature a body asks for; empty for the default.

    Raises:
        StatusError: INVALID_ARGUMENT when it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    return name


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _type(value: Any) -> str:
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    names = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
    return names[type(value)]


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def binary(value: dict[str, Any]) -> bytes:
    """The bytes of `{"b64": "..."}`.

    Raises:
        StatusError: INVALID_ARGUMENT when it is no base64 text.
    """
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise invalid(f"Unable to base64 decode JSON value: {_shown(value)}") from error


def _leaves(value: Any, row: bool) -> tuple[list[Any], tuple[int, ...]]:
    """The values of nested lists, in order, and their shape; ragged lists are refused."""
    level = [value]
    shape: list[int] = []
    while level and isinstance(level[0], list):
        if len(shape) == MOST_DIMENSIONS:
            raise invalid(f"JSON lists are nested deeper than {MOST_DIMENSIONS} dimensions")
        size = len(level[0])
        for part in level:
            if not isinstance(part, list):
                raise invalid(
                    f"Expecting shape {[*shape, size]} but got: {_shown(part)}"
                    if row
                    else f"JSON Value: {_shown(part)} found at incorrect level: {len(shape)}"
                )
            if len(part) != size:
                raise invalid(
                    f"Expecting tensor size: {size} but got: {len(part)}"
                    if row
                    else f"Encountered list at unexpected size: {len(part)} at level: {len(shape)} "
                    f"expected size: {size}"
                )
        shape.append(size)
        level = [item for part in level for item in part]
    for item in level:
        if isinstance(item, list):
            raise invalid(
                f"Expecting shape {shape} but got a list: {_shown(item)}"
                if row
                else f"JSON Value: {_shown(item)} found at incorrect level: {len(shape)}"
            )
    return level, tuple(shape)


def _refusal(value: Any, code: int) -> StatusError:
    return invalid(
        f"JSON Value: {_shown(value)} Type: {_type(value)} is not of expected type: {dtype_name(code)}"
    )


def _numbers(leaves: list[Any], code: int, kind: Any) -> NDArray[Any]:
    allowed: tuple[type, ...]
    if code == types_pb2.DT_BOOL:
        allowed = (bool,)
    elif np.issubdtype(kind, np.integer):
        allowed = (int,)
    else:
        allowed = (int, float)
    for leaf in leaves:
        if not isinstance(leaf, allowed) or (isinstance(leaf, bool) and code != types_pb2.DT_BOOL):
            raise _refusal(leaf, code)
    if allowed == (int,) and leaves:
        limits = np.iinfo(kind)
        for leaf in (min(leaves), max(leaves)):
            if not limits.min <= leaf <= limits.max:
                raise _refusal(leaf, code)
    try:
        return (
            np.array(leaves, dtype=np.float64).astype(kind)
            if allowed == (int, float)
            else np.array(leaves, kind)
        )
    except OverflowError as error:
        raise _refusal(max(leaves, key=abs), code) from error


def to_array(value: Any, info: Any, *, row: bool) -> NDArray[Any]:
    """Nested lists as an array of the input's type.

    Args:
        value: the JSON value, batch dimension first.
        info: the signature's TensorInfo.
        row: which form the texts of errors follow.

    Raises:
        StatusError: INVALID_ARGUMENT for a value of another type, or ragged lists.
    """
    code = info.dtype
    kind = numpy_type(code)
    if kind is None or code in (types_pb2.DT_COMPLEX64, types_pb2.DT_COMPLEX128):
        raise invalid(f"Inputs of type {dtype_name(code)} cannot be given as JSON")
    leaves, shape = _leaves(value, row)
    if code != types_pb2.DT_STRING:
        return _numbers(leaves, code, kind).reshape(shape)
    flat = np.empty(len(leaves), dtype=np.object_)
    for position, leaf in enumerate(leaves):
        if isinstance(leaf, str):
            flat[position] = leaf.encode("utf-8", errors="surrogatepass")
        elif _is_binary(leaf):
            flat[position] = binary(leaf)
        else:
            raise _refusal(leaf, code)
    return flat.reshape(shape)


def read_inputs(document: dict[str, Any], signature: Any) -> tuple[dict[str, NDArray[Any]], bool]:
    """The inputs of a :predict body, and whether it has the row form.

    Raises:
        StatusError: INVALID_ARGUMENT for keys or values that do not fit the signature.
    """
    if "instances" in document and "inputs" in document:
        raise invalid("Not formatted correctly expecting only one of 'instances' or 'inputs' key to exist ")
    if "instances" in document:
        return _rows(document["instances"], signature), True
    if "inputs" in document:
        return _columns(document["inputs"], signature), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _rows(instances: Any, signature: Any) -> dict[str, NDArray[Any]]:
    if not isinstance(instances, list):
        raise invalid("Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    first = instances[0]
    if not isinstance(first, dict) or _is_binary(first):
        if len(signature.inputs) != 1:
            raise invalid(
                f"instances is a plain list, but expecting list of objects as multiple input tensors required as "
                f"per tensorinfo_map: {','.join(sorted(signature.inputs))}"
            )
        ((alias, info),) = signature.inputs.items()
        return {alias: to_array(instances, info, row=True)}
    for instance in instances:
        if not isinstance(instance, dict):
            raise invalid(f"Expecting object in 'instances' list but got: {_shown(instance)}")
        if set(instance) != set(signature.inputs):
            raise invalid(
                "Failed to process element: 0 of 'instances' list. JSON object: keys must be equal to: "
                f"{','.join(sorted(signature.inputs))}"
            )
    return {
        alias: to_array([instance[alias] for instance in instances], info, row=True)
        for alias, info in signature.inputs.items()
    }


def _columns(inputs: Any, signature: Any) -> dict[str, NDArray[Any]]:
    named = isinstance(inputs, dict) and not _is_binary(inputs)
    if not named:
        if len(signature.inputs) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(sorted(signature.inputs))}"
            )
        ((alias, info),) = signature.inputs.items()
        return {alias: to_array(inputs, info, row=False)}
    for alias in signature.inputs:
        if alias not in inputs and alias not in signature.defaults:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
    return {
        alias: to_array(inputs[alias], info, row=False)
        for alias, info in signature.inputs.items()
        if alias in inputs
    }


def encode(document: dict[str, Any]) -> bytes:
    """A document as JSON; its lists part by part.

    Python's writer keeps the interpreter to itself until it is done: a long answer in one piece would stop all others,
    even from a thread.
    """
    parts = []
    for key, value in document.items():
        text = f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else _text(value)
        parts.append(f"{_text(key)}: {text}")
    return f"{{{', '.join(parts)}}}".encode(errors="replace")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _value(array: NDArray[Any], name: str) -> Any:
    if array.dtype.kind in "OSU":
        raw = [v if isinstance(v, bytes) else str(v).encode() for v in array.ravel().tolist()]
        if name.endswith("_bytes"):
            flat: list[Any] = [{"b64": base64.b64encode(item).decode()} for item in raw]
        else:
            flat = [item.decode("utf-8", errors="replace") for item in raw]
        return _nested(flat, array.shape)
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        # The shortest decimal that reads back as the same float32, not the float64 beside it.
        return _nested([float(str(item)) for item in array.ravel()], array.shape)
    if array.dtype.kind == "c":
        raise invalid(f"Output {name} is complex; it cannot be given as JSON")
    return array.tolist()


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    array = np.empty(len(flat), dtype=np.object_)
    array[:] = flat
    return array.reshape(shape).tolist()


def write_outputs(found: Arrays, *, row: bool) -> dict[str, Any]:
    """The answer of :predict in the form of its request.

    Raises:
        StatusError: INVALID_ARGUMENT for the row form when an output has no batch dimension, or another size.
    """
    if not row:
        values = {alias: _value(array, alias) for alias, array in found.items()}
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    sizes = set()
    for alias, array in found.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        sizes.add(array.shape[0])
        if len(sizes) > 1:
            raise invalid(f"Tensor name: {alias} has inconsistent batch size: {array.shape[0]}")
    values = {alias: _value(array, alias) for alias, array in found.items()}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [dict(zip(values, items, strict=True)) for items in zip(*values.values(), strict=True)]
    }

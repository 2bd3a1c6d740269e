"""Adds to a graph a twin of a signature that XLA compiles, without touching the original.

A signature saved by TensorFlow 2 is one call of one function. The twin is the same call, marked for XLA, of a copy of
the function (a copy, because the session turns the original's loops into dataflow that XLA cannot read). The original
stays for shapes that were not compiled and for graphs that XLA refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from barcast.serving.model_server import xla_lstm

_PREFIX = "barcast_xla"
_CALLS = ("StatefulPartitionedCall", "PartitionedCall")
_LOWERING = "_lower_using_switch_merge"


class CannotCompileError(Exception):
    """Why a signature stays in graph mode."""


def _functions(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("func"):
        yield attribute.func
    if attribute.HasField("list"):
        yield from attribute.list.func


class _Copier:
    """Copies the functions that a node calls, and those that they call, without loop lowering."""

    def __init__(self, library: Any, suffix: str) -> None:
        self._library = library
        self._suffix = suffix
        self._originals = {function.signature.name: function for function in library.function}
        self._copies: dict[str, str] = {}

    def redirect(self, node: Any) -> None:
        """Let `node` call copies instead of the originals."""
        for attribute in node.attr.values():
            for function in _functions(attribute):
                function.name = self._copy(function.name)

    def _copy(self, name: str) -> str:
        original = self._originals.get(name)
        if original is None or name in self._copies:
            return self._copies.get(name, name)
        self._copies[name] = f"{name}_{self._suffix}"
        copy = self._library.function.add()
        copy.CopyFrom(original)
        copy.signature.name = self._copies[name]
        if not xla_lstm.replace(copy, self._library):
            raise CannotCompileError(
                f"function {name} holds a {xla_lstm.OPERATION} of another form than ours"
            )
        for node in copy.node_def:
            if _LOWERING in node.attr:
                del node.attr[_LOWERING]
            self.redirect(node)
        return self._copies[name]


def static_shapes(signature: Any) -> dict[str, tuple[int, ...]]:
    """For each input its shape after the batch dimension.

    Raises:
        CannotCompileError: an input is text, a scalar, or has another unknown dimension than the first.
    """
    shapes = {}
    for alias, info in signature.inputs.items():
        dims = [dim.size for dim in info.tensor_shape.dim]
        if info.WhichOneof("encoding") != "name" or info.tensor_shape.unknown_rank or not dims:
            raise CannotCompileError(f"input {alias!r} has no batch dimension")
        if dims[0] != -1:
            raise CannotCompileError(f"input {alias!r} has the fixed batch size {dims[0]}")
        if any(size < 0 for size in dims[1:]):
            raise CannotCompileError(f"input {alias!r} has unknown dimensions besides the batch: {dims}")
        shapes[alias] = tuple(dims[1:])
    if not shapes:
        raise CannotCompileError("it has no inputs")
    return shapes


def add_twin(meta_graph: Any, signature_name: str) -> dict[str, str]:
    """Add the compiled twin of a signature to `meta_graph` (changed in place).

    Returns:
        The twin's tensor name per output alias.

    Raises:
        CannotCompileError: the signature is not one call of one function, or its inputs have unknown shapes.
    """
    signature = meta_graph.signature_def[signature_name]
    static_shapes(signature)
    if any(info.WhichOneof("encoding") != "name" for info in signature.outputs.values()):
        raise CannotCompileError("an output is sparse or composite")
    owners = {info.name.partition(":")[0] for info in signature.outputs.values()}
    nodes = {node.name: node for node in meta_graph.graph_def.node if node.name in owners}
    if len(owners) != 1 or not nodes or next(iter(nodes.values())).op not in _CALLS:
        raise CannotCompileError("its outputs do not come from one function call (a TensorFlow 1 graph)")
    original = next(iter(nodes.values()))
    twin = meta_graph.graph_def.node.add()
    twin.CopyFrom(original)
    twin.name = f"{_PREFIX}/{signature_name}/{original.name}"
    twin.attr["_XlaMustCompile"].b = True
    _Copier(meta_graph.graph_def.library, f"{_PREFIX}_{signature_name}").redirect(twin)
    return {
        alias: f"{twin.name}:{info.name.partition(':')[2] or 0}" for alias, info in signature.outputs.items()
    }

"""One loaded model version: runs a signature on arrays, compiled by XLA where that can be.

Data passes: inputs by alias → the compiled twin (padded to a compiled batch size) when types and shapes are the
signature's own, else the graph as saved → outputs by alias.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from barcast import logs
from barcast.serving.model_server import xla
from barcast.serving.model_server.batching_parameters import BatchingParameters
from barcast.serving.model_server.saved_model import GraphSession, SessionSettings, read_meta_graph
from barcast.serving.model_server.status import Code, StatusError, invalid
from barcast.serving.model_server.status import deadline as expired
from barcast.serving.model_server.tensors import dtype_code, dtype_name, numpy_type

Arrays = Mapping[str, NDArray[Any]]
_LOG = logs.get("model_server")
_COMPILED_SIGNATURE = "serving_default"
_ROW_TOLERANCE = 1e-4


class _Compiled:
    """The compiled form of one signature: its twin's outputs and the batch sizes that are ready."""

    def __init__(self, signature: Any, outputs: dict[str, str]) -> None:
        self.inputs = [
            (alias, info.name, numpy_type(info.dtype)) for alias, info in sorted(signature.inputs.items())
        ]
        self.shapes = xla.static_shapes(signature)
        self.aliases = tuple(sorted(outputs))
        self.fetches = [outputs[alias] for alias in self.aliases]
        self.batch_sizes: tuple[int, ...] = ()

    def rows(self, inputs: Arrays) -> int | None:
        """The batch size, when the compiled code can answer for these inputs."""
        rows = -1
        for alias, _, kind in self.inputs:
            array = inputs[alias]
            if array.dtype != kind or array.shape[1:] != self.shapes[alias] or array.ndim == 0:
                return None
            if rows not in (-1, array.shape[0]):
                return None
            rows = array.shape[0]
        return rows if self.batch_sizes and 0 < rows <= self.batch_sizes[-1] else None

    def example(self, rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Inputs of the signature's own types and shapes: numbers around 0, ids 0."""
        generator = np.random.default_rng(seed)
        return {
            alias: generator.standard_normal((rows, *self.shapes[alias])).astype(kind)
            if np.issubdtype(kind, np.floating)
            else np.zeros((rows, *self.shapes[alias]), dtype=kind)
            for alias, _, kind in self.inputs
        }


def _padded(array: NDArray[Any], rows: int) -> NDArray[Any]:
    short = rows - array.shape[0]
    return array if short == 0 else np.concatenate([array, np.repeat(array[:1], short, axis=0)])


class Servable:
    """A model version that answers.

    Args:
        name: the model's name.
        version: the version number.
        path: the version directory.
        tags: which graph of the SavedModel.
        settings: threads of the runtime.
        batch_sizes: sizes to compile `serving_default` for; empty leaves it in graph mode.
        batching: how its requests are joined; None runs each alone.

    Raises:
        StatusError: no SavedModel there, or not with these tags.
        tensorflow.errors.OpError: the runtime cannot load it.
    """

    def __init__(
        self,
        name: str,
        version: int,
        path: Path,
        *,
        tags: Sequence[str] = ("serve",),
        settings: SessionSettings | None = None,
        batch_sizes: Sequence[int] = (1, 8, 32),
        batching: BatchingParameters | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.batching = batching
        self.queues: dict[Any, Any] = {}  # the batch scheduler's, kept here so that they go with the version
        self._idle = threading.Condition()
        self._running = 0
        self._closed = False
        meta_graph = read_meta_graph(path, tags)
        self.signatures: dict[str, Any] = {}
        for key, signature in meta_graph.signature_def.items():
            kept = type(signature)()
            kept.CopyFrom(signature)
            self.signatures[key] = kept
        #: all output aliases of each signature whose outputs are dense: what a request without a filter gets
        self.outputs = {
            key: sorted(signature.outputs)
            for key, signature in self.signatures.items()
            if all(info.WhichOneof("encoding") == "name" for info in signature.outputs.values())
        }
        self._compiled: dict[str, _Compiled] = {}
        #: why a signature is not compiled, by its name
        self.graph_mode_reasons: dict[str, str] = {}
        if batch_sizes and _COMPILED_SIGNATURE in self.signatures:
            try:
                outputs = xla.add_twin(meta_graph, _COMPILED_SIGNATURE)
                self._compiled[_COMPILED_SIGNATURE] = _Compiled(self.signatures[_COMPILED_SIGNATURE], outputs)
            except xla.CannotCompileError as error:
                self._stay_in_graph_mode(_COMPILED_SIGNATURE, str(error))
        self._session = GraphSession(path, meta_graph, settings or SessionSettings())
        for key in list(self._compiled):
            self._compile(key, sorted(set(batch_sizes)))

    def _stay_in_graph_mode(self, signature: str, reason: str) -> None:
        self._compiled.pop(signature, None)
        self.graph_mode_reasons[signature] = reason
        _LOG.warning(
            "XLA does not compile this signature; it runs in graph mode",
            model=self.name,
            version=self.version,
            signature=signature,
            reason=reason,
        )

    def _compile(self, key: str, batch_sizes: Sequence[int]) -> None:
        compiled = self._compiled[key]
        began = time.monotonic()
        example = compiled.example(2)
        try:
            plain = self._run_graph(key, example, compiled.aliases, None)
            for size in batch_sizes:
                rows = min(size, 2)
                fed = {alias: _padded(array[:rows], size) for alias, array in example.items()}
                found = dict(zip(compiled.aliases, self._run_compiled(compiled, fed, None), strict=True))
                for alias, array in found.items():
                    if array.ndim == 0 or array.shape[0] != size:
                        raise xla.CannotCompileError(f"output {alias!r} has no batch dimension")
                    if not _close(array[:rows], plain[alias][:rows]):
                        raise xla.CannotCompileError(
                            f"rows of output {alias!r} depend on the batch, or the compiled code differs"
                        )
        except Exception as error:  # whatever the compiler says, the graph as saved still answers
            self._stay_in_graph_mode(
                key, str(getattr(error, "message", "") or error).partition("\n")[0][:300]
            )
            return
        compiled.batch_sizes = tuple(batch_sizes)
        _LOG.info(
            "compiled",
            model=self.name,
            version=self.version,
            signature=key,
            batch_sizes=compiled.batch_sizes,
            seconds=round(time.monotonic() - began, 3),
        )

    def batch_sizes(self, signature: str) -> tuple[int, ...]:
        """The batch sizes compiled for a signature; empty in graph mode."""
        compiled = self._compiled.get(signature)
        return compiled.batch_sizes if compiled else ()

    def check_types(self, signature: str, inputs: Arrays) -> None:
        """Refuse an input of another type than the signature's.

        Raises:
            StatusError: INVALID_ARGUMENT with the runtime's text and the input's name.
        """
        expected = self.signatures[signature].inputs
        for position, alias in enumerate(sorted(inputs)):
            want, have = expected[alias].dtype, dtype_code(inputs[alias])
            if want != have and want != types_pb2.DT_INVALID:
                raise invalid(
                    f"Expects arg[{position}] to be {dtype_name(want)} but {dtype_name(have)} is provided "
                    f'(input "{alias}")'
                )

    def run(
        self, signature: str, inputs: Arrays, outputs: Sequence[str], deadline: float | None = None
    ) -> dict[str, NDArray[Any]]:
        """Answer one (possibly joined) request; aliases must be the signature's.

        Args:
            signature: its key.
            inputs: every input, by alias.
            outputs: the output aliases wanted.
            deadline: `time.monotonic()` at which the work is stopped.

        Raises:
            tensorflow.errors.OpError: from the runtime, with its code and text.
            StatusError: DEADLINE_EXCEEDED, or a wrong type.
        """
        self.check_types(signature, inputs)
        with self._idle:
            if self._closed:
                raise StatusError(Code.UNAVAILABLE, f"Version {self.version} of {self.name} was unloaded")
            self._running += 1
        try:
            return self._run(signature, inputs, outputs, deadline)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _run(
        self, signature: str, inputs: Arrays, outputs: Sequence[str], deadline: float | None
    ) -> dict[str, NDArray[Any]]:
        compiled = self._compiled.get(signature)
        rows = compiled.rows(inputs) if compiled and len(inputs) == len(compiled.inputs) else None
        if compiled is None or rows is None:
            return self._run_graph(signature, inputs, outputs, deadline)
        size = next(size for size in compiled.batch_sizes if size >= rows)
        fed = inputs if size == rows else {alias: _padded(array, size) for alias, array in inputs.items()}
        found = dict(zip(compiled.aliases, self._run_compiled(compiled, fed, deadline), strict=True))
        return {alias: found[alias][:rows] for alias in outputs}

    def _run_compiled(
        self, compiled: _Compiled, inputs: Arrays, deadline: float | None
    ) -> list[NDArray[Any]]:
        # Compiled code runs in one piece: a deadline can only stop it before it starts.
        if deadline is not None and deadline <= time.monotonic():
            raise expired()
        feeds = [(tensor, inputs[alias]) for alias, tensor, _ in compiled.inputs]
        return self._session.run(feeds, compiled.fetches, inline=True)

    def _run_graph(
        self, key: str, inputs: Arrays, outputs: Sequence[str], deadline: float | None
    ) -> dict[str, NDArray[Any]]:
        signature = self.signatures[key]
        aliases = sorted(outputs)
        feeds = [(signature.inputs[alias].name, inputs[alias]) for alias in sorted(inputs)]
        found = self._session.run(feeds, [signature.outputs[alias].name for alias in aliases], deadline)
        return dict(zip(aliases, found, strict=True))

    def close(self) -> None:
        """Give the memory back, after the last run (a client that went away does not end its run)."""
        with self._idle:
            self._closed = True
            while self._running:
                self._idle.wait()
        self._session.close()


def _close(left: NDArray[Any], right: NDArray[Any]) -> bool:
    if left.dtype.kind in "fc":
        return bool(np.allclose(left, right, rtol=1e-3, atol=_ROW_TOLERANCE, equal_nan=True))
    return bool(np.array_equal(left, right))

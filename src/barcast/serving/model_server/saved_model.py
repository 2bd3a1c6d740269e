"""A SavedModel version as a TensorFlow session: what TensorFlow Serving itself runs.

Loading the graph into a session (rather than `tf.saved_model.load`) keeps TensorFlow Serving's behaviour: shapes are
judged by the operations, errors have the runtime's texts, deadlines stop the run, and closing the session gives
everything back, compiled code included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from barcast.serving.model_server.status import Code, StatusError, not_found

INIT_OP = "__saved_model_init_op"
_MOST_CALLABLES = 256


@dataclass(frozen=True)
class SessionSettings:
    """Threads of the runtime; 0 is all cores."""

    intra_op_parallelism: int = 0
    inter_op_parallelism: int = 0

    def apply_to_process(self) -> None:
        """Size the process' thread pools, which every session uses; before TensorFlow has run anything.

        The first session or eager operation makes the pools. Eager code runs while a graph is imported, so without this
        call its defaults (all cores) would hold, whatever the sessions say.

        Raises:
            RuntimeError: the pools are there already, with other sizes.
        """
        tf.config.threading.set_intra_op_parallelism_threads(self.intra_op_parallelism)
        tf.config.threading.set_inter_op_parallelism_threads(self.inter_op_parallelism)

    def proto(self) -> Any:
        """The ConfigProto of a session."""
        return config_pb2.ConfigProto(
            intra_op_parallelism_threads=self.intra_op_parallelism,
            inter_op_parallelism_threads=self.inter_op_parallelism,
            device_count={"GPU": 0} if not tf.config.list_physical_devices("GPU") else {},
        )


def read_meta_graph(path: Path, tags: Sequence[str]) -> Any:
    """The MetaGraphDef of the SavedModel at `path` that has exactly `tags`.

    Raises:
        StatusError: NOT_FOUND without a readable saved_model.pb or without these tags, DATA_LOSS for a broken file.
    """
    saved = saved_model_pb2.SavedModel()
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.is_file():
            saved.ParseFromString(binary.read_bytes())
        elif text.is_file():
            text_format.Parse(text.read_text(encoding="utf-8"), saved)
        else:
            raise not_found(
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`) Specified file path: {path}"
            )
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise StatusError(
            Code.DATA_LOSS, f"Can't parse {path}/saved_model.pb as binary proto: {error}"
        ) from error
    for meta_graph in saved.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return meta_graph
    raise not_found(
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To inspect available tag-sets "
        "in the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


class GraphSession:
    """One MetaGraphDef, its variables restored, ready to run.

    Args:
        path: the version directory (variables/ and assets/ are read from it).
        meta_graph: the graph to load, as read or with compiled twins added.
        settings: threads.
    """

    def __init__(self, path: Path, meta_graph: Any, settings: SessionSettings) -> None:
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._import(meta_graph)
            self._session = tf.compat.v1.Session(graph=self._graph, config=settings.proto())
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...], bool], Any] = {}
        self._outputs: dict[str, Any] = {}
        self._lock = threading.Lock()
        try:
            self._restore(path, meta_graph)
        except BaseException:
            self.close()
            raise

    def _import(self, meta_graph: Any) -> None:
        """Import nodes first and functions after, one by one.

        The import holds the interpreter's lock. All at once it takes up to 0.1 s, in which no request moves: with the
        functions known, each call node infers the shapes of its whole body. This way no piece takes over 3 ms.
        """
        nodes = type(meta_graph.graph_def)(versions=meta_graph.graph_def.versions)
        nodes.node.extend(meta_graph.graph_def.node)
        stripped = meta_graph.meta_info_def.HasField("stripped_op_list")
        tf.import_graph_def(
            nodes, name="", producer_op_list=meta_graph.meta_info_def.stripped_op_list if stripped else None
        )
        for function in meta_graph.graph_def.library.function:
            imported = pywrap_tf_session.TF_FunctionImportFunctionDef(function.SerializeToString())
            try:
                with self._graph._c_graph.get() as graph:
                    pywrap_tf_session.TF_GraphCopyFunction(graph, imported, None)
            finally:
                pywrap_tf_session.TF_DeleteFunction(imported)

    def _restore(self, path: Path, meta_graph: Any) -> None:
        assets = {
            asset.tensor_info.name: np.array(str(path / "assets" / asset.filename).encode(), dtype=object)
            for asset in meta_graph.asset_file_def
        }
        saver = meta_graph.saver_def
        # A SavedModel without variables still carries a saver, but no variables/ folder.
        if saver.restore_op_name and (path / "variables" / "variables.index").is_file():
            prefix = np.array(str(path / "variables" / "variables").encode(), dtype=object)
            self._run_targets({saver.filename_tensor_name: prefix, **assets}, saver.restore_op_name)
        init = self._init_op(meta_graph)
        if init:
            self._run_targets(assets, init)

    def _init_op(self, meta_graph: Any) -> str:
        if INIT_OP in meta_graph.signature_def:
            return str(meta_graph.signature_def[INIT_OP].outputs[INIT_OP].name)
        for key in ("saved_model_main_op", "legacy_init_op"):
            if key in meta_graph.collection_def:
                return str(meta_graph.collection_def[key].node_list.value[0])
        return ""

    def _run_targets(self, feeds: dict[str, NDArray[Any]], target: str) -> None:
        operation = self._graph.get_operation_by_name(target.partition(":")[0])
        pywrap_tf_session.TF_SessionRun_wrapper(
            self._session._session,
            None,
            {self._output(name): value for name, value in feeds.items()},
            [],
            [operation._c_op],
            None,
        )

    def _output(self, name: str) -> Any:
        found = self._outputs.get(name)
        if found is None:
            found = self._outputs[name] = self._graph.get_tensor_by_name(name)._as_tf_output()
        return found

    def run(
        self,
        feeds: Sequence[tuple[str, NDArray[Any]]],
        fetches: Sequence[str],
        deadline: float | None = None,
        *,
        inline: bool = False,
    ) -> list[NDArray[Any]]:
        """Run the graph.

        Args:
            feeds: tensor names and values.
            fetches: tensor names.
            deadline: `time.monotonic()` at which the run is stopped; None runs to the end.
            inline: run to the end in this thread, for a graph that is one compiled operation: the hand-over to a thread
                of the runtime and back would be a tenth of its time.

        Returns:
            One array per fetch.

        Raises:
            tensorflow.errors.OpError: the runtime's own error, with its code and text.
            StatusError: DEADLINE_EXCEEDED before the run started.
        """
        if deadline is None:
            return self._run_free(feeds, fetches, inline)
        left_ms = int((deadline - time.monotonic()) * 1000)
        if left_ms <= 0:
            raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out before the run started")
        options = config_pb2.RunOptions(timeout_in_ms=left_ms).SerializeToString()
        buffer = pywrap_tf_session.TF_NewBufferFromString(options)
        try:
            found: list[NDArray[Any]] = pywrap_tf_session.TF_SessionRun_wrapper(
                self._session._session,
                buffer,
                {self._output(name): value for name, value in feeds},
                [self._output(name) for name in fetches],
                [],
                None,
            )
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)
        return found

    def _run_free(
        self, feeds: Sequence[tuple[str, NDArray[Any]]], fetches: Sequence[str], inline: bool
    ) -> list[NDArray[Any]]:
        key = (tuple(name for name, _ in feeds), tuple(fetches), inline)
        call = self._callables.get(key)
        if call is None:
            with self._lock:
                if len(self._callables) >= _MOST_CALLABLES:
                    self._callables.pop(next(iter(self._callables)))
                options = config_pb2.CallableOptions(
                    feed=key[0],
                    fetch=key[1],
                    run_options=config_pb2.RunOptions(inter_op_thread_pool=-1 if inline else 0),
                )
                call = self._callables[key] = self._session._make_callable_from_options(options)
        return list(call(*(value for _, value in feeds)))

    def close(self) -> None:
        """Give the runtime's memory back."""
        self._callables.clear()
        self._outputs.clear()
        self._session.close()

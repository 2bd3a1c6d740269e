"""Loads one version: checks its manifest, loads the graph, compiles it, replays its warm-up requests."""

from __future__ import annotations

import time
from pathlib import Path

from barcast.serving.model_server import storage
from barcast.serving.model_server.batching_parameters import BatchingParameters, read_parameters
from barcast.serving.model_server.metrics import Metrics
from barcast.serving.model_server.options import Options
from barcast.serving.model_server.saved_model import SessionSettings
from barcast.serving.model_server.servable import Servable
from barcast.serving.model_server.warmup import replay

_PER_MODEL_FILE = "batching_params.pbtxt"
_MOST_COMPILED_SIZES = 8


class VersionLoader:
    """Callable for the life cycle: (name, version, path) → a servable that is ready to answer."""

    def __init__(self, options: Options, batching: BatchingParameters | None, metrics: Metrics) -> None:
        self._options = options
        self._batching = batching
        self._metrics = metrics
        self._settings = SessionSettings(
            options.tensorflow_intra_op_parallelism, options.tensorflow_inter_op_parallelism
        )
        self._settings.apply_to_process()

    def __call__(self, name: str, version: int, path: Path) -> Servable:
        """Load; any error fails the load and leaves other versions as they are."""
        storage.verify_manifest(path)
        batching = self._batching_of(path)
        if batching is not None:
            batching.check()
        servable = Servable(
            name,
            version,
            path,
            tags=self._options.saved_model_tags,
            settings=self._settings,
            batch_sizes=self._compiled_sizes(batching),
            batching=batching,
        )
        try:
            if self._options.enable_model_warmup:
                began = time.monotonic()
                records = replay(servable, self._options.num_request_iterations_for_warmup)
                self._metrics.warmed_up(name, records, time.monotonic() - began)
        except BaseException:
            servable.close()
            raise
        return servable

    def _batching_of(self, path: Path) -> BatchingParameters | None:
        if not self._options.enable_batching:
            return None
        if not self._options.enable_per_model_batching_parameters:
            return self._batching
        file = path / _PER_MODEL_FILE
        return read_parameters(file) if file.is_file() else None

    def _compiled_sizes(self, batching: BatchingParameters | None) -> tuple[int, ...]:
        if not self._options.xla_cpu_compilation_enabled:
            return ()
        allowed = batching.allowed_batch_sizes if batching is not None else ()
        return allowed if 0 < len(allowed) <= _MOST_COMPILED_SIZES else self._options.xla_batch_sizes

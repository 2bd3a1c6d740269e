"""The server without its doors: models, labels, configuration, and the running of signatures.

gRPC and REST call the same handlers with this object; a handler finds the version here, and runs it here.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from barcast import logs
from barcast.serving.model_server.batching import BatchScheduler
from barcast.serving.model_server.batching_parameters import BatchingParameters, read_parameters
from barcast.serving.model_server.lifecycle import Manager
from barcast.serving.model_server.loader import VersionLoader
from barcast.serving.model_server.metrics import Metrics
from barcast.serving.model_server.model_config import (
    ModelConfig,
    check_transition,
    initial_config,
    read_file,
    read_list,
)
from barcast.serving.model_server.options import Options
from barcast.serving.model_server.servable import Arrays, Servable
from barcast.serving.model_server.status import (
    Code,
    StatusError,
    deadline,
    from_exception,
    invalid,
    precondition,
)

T = TypeVar("T")
_LOG = logs.get("model_server")
_LARGE_BYTES = 2**17  # some milliseconds of reading or writing JSON


class Core:
    """Everything behind the two doors.

    Raises:
        ConfigError: the configuration or batching file cannot be read.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.metrics = Metrics()
        batching: BatchingParameters | None = None
        if options.enable_batching:
            file = options.batching_parameters_file
            batching = read_parameters(file) if file is not None else BatchingParameters()
        self.manager = Manager(
            VersionLoader(options, batching, self.metrics),
            num_load_threads=max(1, options.num_load_threads),
            max_retries=options.max_num_load_retries,
            retry_seconds=options.load_retry_interval_micros / 1e6,
            poll_seconds=options.file_system_poll_wait_seconds,
        )
        self._pool = ThreadPoolExecutor(options.grpc_max_threads, thread_name_prefix="run")
        self._scheduler = BatchScheduler((batching or BatchingParameters()).num_batch_threads, self.metrics)
        self._labels: dict[str, dict[str, int]] = {}
        self._models: dict[str, ModelConfig] = {}
        self._config: Any = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    # -- configuration -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the first configuration and wait for its models.

        Raises:
            ConfigError: the file cannot be parsed.
            StatusError: the configuration is refused, or a model failed to load (unless a partial start is allowed).
        """
        config = initial_config(self.options)
        self.manager.start()
        new = self._apply(config)
        if not self.options.allow_partial_start:
            for model in self.manager.missing():
                print(
                    f"Waiting for a version of model {model.name}: {model.base_path} "
                    f"{'holds none' if model.base_path.is_dir() else 'does not exist'}. "
                    "It should hold folders named by number, each with a saved_model.pb (1/saved_model.pb).",
                    file=sys.stderr,
                )
        failed = self.manager.wait_until_decided(
            new, for_missing=not self.options.allow_partial_start, every_version=True
        )
        if failed and not self.options.allow_partial_start and not self._stopping.is_set():
            raise StatusError(Code.UNKNOWN, _not_available(failed, "servable"))
        wait = self.options.model_config_file_poll_wait_seconds
        if self.options.model_config_file is not None and wait > 0:
            threading.Thread(target=self._poll_config, args=(wait,), name="poll-config", daemon=True).start()

    def _poll_config(self, wait: float) -> None:
        assert self.options.model_config_file is not None
        while not self._stopping.wait(wait):
            try:
                self._apply(read_file(self.options.model_config_file))
            except Exception as error:
                _LOG.error("the model configuration file was not applied", error=str(error))

    def _apply(self, config: Any) -> set[str]:
        """Make `config` the one that holds; the names it adds."""
        with self._lock:
            check_transition(self._config, config)
            models = read_list(config.model_config_list, self._models)
            labels = self._check_labels(models)
            new = set(models) - set(self._models)
            self._config, self._models, self._labels = config, models, labels
            self.manager.configure(models)
        return new

    def _check_labels(self, models: dict[str, ModelConfig]) -> dict[str, dict[str, int]]:
        for name, model in models.items():
            for label, version in model.labels:
                if self.manager.is_available(name, version):
                    continue
                assigned = self._labels.get(name, {}).get(label, version)
                if not self.options.allow_version_labels_for_unavailable_models or assigned != version:
                    raise precondition(
                        f"Request to assign label to version {version} of model {name}, "
                        "which is not currently available for inference"
                    )
        return {name: dict(model.labels) for name, model in models.items() if model.labels}

    def reload(self, config: Any, until: float | None) -> None:
        """HandleReloadConfigRequest: replace the list of models and wait for the new ones.

        Raises:
            StatusError: refused, or a new model did not become available.
        """
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        failed = self.manager.wait_until_decided(self._apply(config), for_missing=False, until=until)
        if failed:
            raise StatusError(Code.UNKNOWN, _not_available(failed, "model"))

    # -- requests ------------------------------------------------------------------------------------------------

    def _number(self, spec: Any) -> int | None:
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            number = self._labels.get(spec.name, {}).get(spec.version_label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            return number
        return int(spec.version.value) if choice == "version" else None

    def servable(self, request: Any) -> AbstractContextManager[Servable]:
        """The version that a request's model_spec names, held until the block ends.

        Raises:
            StatusError: INVALID_ARGUMENT without a spec, a name or a known label; NOT_FOUND.
        """
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return self.servable_of(request.model_spec)

    def servable_of(self, spec: Any) -> AbstractContextManager[Servable]:
        """As `servable`, from the ModelSpec itself."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        return self.manager.handle(spec.name, self._number(spec))

    async def beside(self, size: int, work: Callable[..., T], *given: Any) -> T:
        """Do `work` on a text or tensor of `size` bytes: at once when it is small, else in a thread, so that the event
        loop goes on with the requests of others."""
        if size < _LARGE_BYTES:
            return work(*given)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *given)

    async def run(
        self,
        servable: Servable,
        signature: str,
        inputs: Arrays,
        outputs: Sequence[str],
        *,
        api: str,
        until: float | None = None,
    ) -> Arrays:
        """Run a signature, joined with other requests when batching is on.

        Args:
            servable: held by the caller.
            signature: its key.
            inputs: arrays by alias, the signature's own aliases.
            outputs: aliases wanted.
            api: Predict, Classify, ... for the metrics.
            until: `time.monotonic()` after which nobody waits for the answer.

        Raises:
            StatusError: what the model or the scheduler answered.
        """
        if until is not None and until <= time.monotonic():
            raise deadline()
        limit = until if self.options.enforce_session_run_timeout else None
        began = time.monotonic()
        try:
            if servable.batching is not None:
                found = await self._scheduler.run(servable, signature, inputs, outputs, limit)
            else:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(
                    self._pool, servable.run, signature, inputs, outputs, limit
                )
        except (asyncio.CancelledError, StatusError):
            raise
        except Exception as error:
            raise from_exception(error) from error
        self.metrics.runtime(servable.name, api, time.monotonic() - began)
        return found

    def interrupt(self) -> None:
        """End a start that still waits for models."""
        self._stopping.set()
        self.manager.interrupt()

    def stop(self) -> None:
        """Stop everything; requests in flight must have ended."""
        self._stopping.set()
        self.manager.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._scheduler.stop()


def _not_available(failed: dict[str, list[Any]], noun: str) -> str:
    parts = []
    for name, versions in sorted(failed.items()):
        parts += [version.describes_failure for version in versions] or [
            f"{{{{name: {name}}} due to error: NOT_FOUND: no version of it is on disk}}"
        ]
    return f"{len(parts)} {noun}(s) did not become available: {{{', '.join(parts)}, }}"

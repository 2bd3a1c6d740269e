"""Aspired versions: what should be served, what is, and the way from one to the other.

Data passes: configuration → versions on disk → aspired versions → loads and unloads, one at a time per model, new
ones available before old ones go → handles for requests. A handle keeps its version alive until it is released.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from barcast import logs
from barcast.serving import memory
from barcast.serving.model_server import storage
from barcast.serving.model_server.model_config import ModelConfig
from barcast.serving.model_server.status import StatusError, from_exception, not_found
from barcast.serving.model_server.version import State, Version

if TYPE_CHECKING:
    from barcast.serving.model_server.servable import Servable

Loader = Callable[[str, int, Path], "Servable"]
_LOG = logs.get("model_server")


class Manager:
    """Keeps the versions that are wanted loaded.

    Args:
        load: makes a servable from (name, version, path); raises to fail the load.
        num_load_threads: loads at the same time.
        max_retries: repeats after a failed load.
        retry_seconds: wait between them.
        poll_seconds: how often the disk is looked at; 0 looks once per configuration.
    """

    def __init__(
        self,
        load: Loader,
        *,
        num_load_threads: int = 1,
        max_retries: int = 5,
        retry_seconds: float = 60.0,
        poll_seconds: float = 1.0,
    ) -> None:
        self._load = load
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._poll_seconds = poll_seconds
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._models: dict[str, ModelConfig] = {}
        self._live: dict[str, dict[int, Version]] = {}
        self._ended: dict[str, dict[int, Version]] = {}
        self._pool = ThreadPoolExecutor(num_load_threads, thread_name_prefix="load")
        self._unload_pool = ThreadPoolExecutor(1, thread_name_prefix="unload")
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="poll-versions", daemon=True)

    def start(self) -> None:
        """Begin to look at the disk."""
        self._poller.start()

    def configure(self, models: dict[str, ModelConfig]) -> None:
        """Replace the models wanted; those no longer named unload, without waiting."""
        with self._lock:
            self._models = dict(models)
        self.scan()
        self._wake.set()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._poll_seconds or None)
            self._wake.clear()
            if not self._stopping.is_set():
                try:
                    self.scan()
                except Exception as error:  # without this thread no model would see a new version again
                    _LOG.error("the disk was not looked at", error=str(error))

    def scan(self) -> None:
        """Look at the disk once and begin what follows from it."""
        with self._lock:
            models = dict(self._models)
        found = {name: storage.versions_on_disk(model.base_path) for name, model in models.items()}
        with self._lock:
            for name in set(self._live) | set(models):
                if models.get(name) != self._models.get(name):
                    continue  # configured anew meanwhile; that scan decides
                on_disk = found.get(name)
                if name in models and on_disk is None:
                    continue  # the folder is not there (yet): nothing is known, nothing changes
                aspired = storage.wanted(on_disk or {}, models[name].policy) if name in models else {}
                self._aspire(name, aspired)
                self._step(name)

    def _aspire(self, name: str, aspired: dict[int, Path]) -> None:
        live = self._live.setdefault(name, {})
        ended = self._ended.setdefault(name, {})
        for number, version in list(live.items()):
            version.aspired = number in aspired
            if not version.aspired and version.retry is not None:
                version.retry.cancel()
                version.retry = None
                self._finish(version)
        for number, version in ended.items():
            version.aspired = version.aspired and number in aspired
        for number, path in aspired.items():
            failed = number in ended and ended[number].aspired and ended[number].error is not None
            if number not in live and not failed:
                live[number] = Version(name, number, path)

    def _step(self, name: str) -> None:
        """The availability-preserving policy: unload or end one version, or else begin all loads."""
        live = self._live.get(name, {})
        ready = [v for v in live.values() if v.state == State.AVAILABLE]
        spare = sorted((v for v in ready if not v.aspired), key=lambda v: v.number)
        aspired = [v for v in live.values() if v.aspired]
        if spare and (not aspired or len(spare) > 1 or any(v.aspired for v in ready)):
            # A failed version is still aspired but not live: while it is, the old one must stay.
            failed = any(v.aspired and v.error for v in self._ended.get(name, {}).values())
            if not (failed and not aspired and len(spare) == 1):
                self._unload(spare[0])
                return
        for version in live.values():
            if version.state == State.START and not version.aspired:
                self._finish(version)
                return
        for version in sorted((v for v in aspired if v.state == State.START), key=lambda v: -v.number):
            version.state = State.LOADING
            self.changed.notify_all()
            self._pool.submit(self._do_load, version)

    def _do_load(self, version: Version) -> None:
        try:
            servable = self._load(version.name, version.number, version.path)
        except Exception as error:
            with self._lock:
                self._failed(version, from_exception(error))
            return
        with self._lock:
            version.servable, version.error, version.state = servable, None, State.AVAILABLE
            self.changed.notify_all()
            _LOG.info("available", model=version.name, version=version.number)
            self._step(version.name)

    def _failed(self, version: Version, error: StatusError) -> None:
        # Without its traceback, which would keep the graph that failed for as long as the status is told.
        version.error = StatusError(error.code, error.message)
        version.attempts += 1
        _LOG.error(
            "a version did not load",
            model=version.name,
            version=version.number,
            attempt=version.attempts,
            error=f"{error.code.name}: {error.message}",
        )
        if version.attempts > self._max_retries or not version.aspired or self._stopping.is_set():
            self._finish(version)
            self._step(version.name)
            return
        version.retry = Timer(self._retry_seconds, self._try_again, [version])
        version.retry.daemon = True
        version.retry.start()

    def _try_again(self, version: Version) -> None:
        with self._lock:
            if version.retry is not None and not self._stopping.is_set():
                version.retry = None
                self._pool.submit(self._do_load, version)

    def _unload(self, version: Version) -> None:
        version.state = State.UNLOADING
        self.changed.notify_all()
        if version.users == 0:
            self._unload_pool.submit(self._do_unload, version)

    def _do_unload(self, version: Version) -> None:
        servable, version.servable = version.servable, None
        if servable is not None:
            servable.close()
        del servable
        memory.release()
        _LOG.info("unloaded", model=version.name, version=version.number)
        with self._lock:
            self._finish(version)
            self._step(version.name)

    def _finish(self, version: Version) -> None:
        version.state = State.END
        self._live.get(version.name, {}).pop(version.number, None)
        self._ended.setdefault(version.name, {})[version.number] = version
        self.changed.notify_all()
        if version.error is None and version.aspired:
            self._wake.set()  # wanted again while it went: the next scan loads it anew

    @contextmanager
    def handle(self, name: str, number: int | None = None) -> Iterator[Servable]:
        """The servable of a version (the highest available without `number`), kept alive inside the block.

        Raises:
            StatusError: NOT_FOUND.
        """
        with self._lock:
            version = self._find(name, number)
            version.users += 1
        try:
            assert version.servable is not None
            yield version.servable
        finally:
            with self._lock:
                version.users -= 1
                if version.users == 0 and version.state == State.UNLOADING:
                    self._unload_pool.submit(self._do_unload, version)

    def _find(self, name: str, number: int | None) -> Version:
        live = self._live.get(name, {})
        if number is None:
            ready = [v for v in live.values() if v.state == State.AVAILABLE]
            if ready:
                return max(ready, key=lambda v: v.number)
            raise not_found(f"Servable not found for request: Latest({name})")
        version = live.get(number)
        if version is None or version.state != State.AVAILABLE:
            raise not_found(f"Servable not found for request: Specific({name}, {number})")
        return version

    def is_available(self, name: str, number: int) -> bool:
        """Whether this version answers now."""
        with self._lock:
            version = self._live.get(name, {}).get(number)
            return version is not None and version.state == State.AVAILABLE

    def versions(self, name: str) -> list[Version]:
        """All versions of a model ever seen, highest first."""
        with self._lock:
            merged = {**self._ended.get(name, {}), **self._live.get(name, {})}
        return [merged[number] for number in sorted(merged, reverse=True)]

    def wait_until_decided(
        self,
        names: set[str],
        *,
        for_missing: bool = True,
        every_version: bool = False,
        until: float | None = None,
    ) -> dict[str, list[Version]]:
        """Wait until each named model has a version available, or all its wanted versions have failed.

        Args:
            names: the models.
            for_missing: also wait for versions that are not on disk yet.
            every_version: wait for all wanted versions of a model, not only for its first.
            until: `time.monotonic()` at which to stop waiting.

        Returns:
            For each model without an available version, its failed versions (none: nothing on disk, or too late).
        """
        with self._lock:
            while not self._stopping.is_set():
                state = {name: self._decision(name, every_version) for name in names & set(self._models)}
                undecided = [
                    n for n, d in state.items() if d == "pending" or (d == "missing" and for_missing)
                ]
                left = None if until is None else until - time.monotonic()
                if not undecided or (left is not None and left <= 0):
                    break
                self.changed.wait(0.5 if left is None else min(0.5, left))
            return {
                name: [v for v in self._ended.get(name, {}).values() if v.aspired and v.error is not None]
                for name in names & set(self._models)
                if self._decision(name) != "available"
            }

    def missing(self) -> list[ModelConfig]:
        """The wanted models of which no version is on disk."""
        with self._lock:
            return [model for name, model in self._models.items() if self._decision(name) == "missing"]

    def _decision(self, name: str, every_version: bool = False) -> str:
        live = [v for v in self._live.get(name, {}).values() if v.aspired]
        if every_version and any(v.state != State.AVAILABLE for v in live):
            return "pending"
        if any(v.state == State.AVAILABLE for v in live):
            return "available"
        if live:
            return "pending"
        ended = [v for v in self._ended.get(name, {}).values() if v.aspired]
        if any(v.error is None for v in ended):
            return "pending"  # wanted again while it went; the next scan loads it anew
        return "failed" if ended else "missing"

    def interrupt(self) -> None:
        """Stop looking at the disk and end all waiting."""
        self._stopping.set()
        self._wake.set()
        with self._lock:
            self.changed.notify_all()

    def stop(self) -> None:
        """Stop looking and loading, and unload everything."""
        self.interrupt()
        with self._lock:
            versions = [version for live in self._live.values() for version in live.values()]
            for version in versions:
                if version.retry is not None:
                    version.retry.cancel()
            self.changed.notify_all()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._unload_pool.shutdown(wait=True)
        for version in versions:
            if version.servable is not None and version.users == 0:
                version.servable.close()

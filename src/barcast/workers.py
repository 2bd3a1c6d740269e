"""Worker processes: each with its share of the cores, and no failure stops the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class Workers:
    """A pool that works tasks off in order; with one worker everything runs in this process.

    Args:
        count: processes; None for one a core.
        most: how many tasks can run at once at best.
        beside: this process works too meanwhile: the pool takes what cores are left, and even one task gets a process
            of its own where there is more than one core.
    """

    def __init__(self, count: int | None = None, *, most: int, beside: bool = False) -> None:
        cores = len(os.sched_getaffinity(0))
        self.count = max(1, min(count or cores - beside, most))
        self.threads = max(1, cores // (self.count + beside))
        self._apart = self.count > 1 or (beside and cores > 1)
        self._pool: ProcessPoolExecutor | None = None
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Workers:
        if self._apart:
            # Set before they start: libraries read their limits when they are first imported.
            self._before = {name: os.environ.get(name) for name in THREADS}
            os.environ.update(dict.fromkeys(THREADS, str(self.threads)))
            self._open(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _open(self, count: int) -> ProcessPoolExecutor:
        if self._pool is not None:
            self._pool.shutdown()
        # Spawned, not forked: TensorFlow's threads do not survive a fork.
        self._pool = ProcessPoolExecutor(max_workers=count, mp_context=get_context("spawn"))
        return self._pool

    def run(self, tasks: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
        """Work off tasks, each (function, *arguments); gives (name, result or exception) as they end.

        They begin at once; without a pool each begins when its result is asked for. A worker that dies takes the whole
        pool with it: unfinished tasks are then tried again one at a time, so that only the task that kills its worker
        fails.
        """
        if self._pool is None:
            return (
                (name, _result(partial(function, *arguments)))
                for name, (function, *arguments) in tasks.items()
            )
        return self._results(tasks, {self._pool.submit(*task): name for name, task in tasks.items()})

    def _results(
        self, tasks: Mapping[str, tuple[Any, ...]], waiting: Mapping[Future[Any], str]
    ) -> Iterator[tuple[str, Any]]:
        again = set()
        for done in as_completed(waiting):
            found = _result(done.result)
            if isinstance(found, BrokenProcessPool):
                again.add(waiting[done])
            else:
                yield waiting[done], found
        alone: ProcessPoolExecutor | None = None
        for name in (name for name in tasks if name in again):
            alone = alone or self._open(1)
            found = _result(alone.submit(*tasks[name]).result)
            if isinstance(found, BrokenProcessPool):
                alone = None
            yield name, found
        if again:
            self._open(self.count)


def _result(call: Callable[[], Any]) -> Any:
    """What the call gives, or the exception it ends with."""
    try:
        return call()
    except Exception as error:  # told by the caller, the other tasks go on
        return error

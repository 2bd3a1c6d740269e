"""A claimed job, and the machine's lock that lives and dies with the process that has it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from barcast import names
from barcast.errors import RefusedError

RECALIBRATE = "recalibrate"  # the reason of a job that only fits the probabilities again


_LONGEST_NAME = 200  # of a file; systems take 255 bytes


class LeaseLostError(RefusedError):
    """The job is no longer this worker's; whatever it still does must stop."""


@dataclass
class Lease:
    """A claimed job. It is this process's until finished, lost, or the process ends.

    Attributes:
        attempt: 1 at the first start.
        cores: how many cores the job may use, by its symbol's share.
    """

    id: int
    symbol: str
    priority: float
    reason: str
    attempt: int
    token: str
    worker: str
    cores: int
    _descriptor: int = field(repr=False)

    def unlock(self) -> None:
        """Give the machine's lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def machine_lock(folder: Path, symbol: str) -> int | None:
    """The machine's lock of a symbol as a descriptor, None where a living process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = names.slug(symbol)
    if len(name) > _LONGEST_NAME:  # else nobody could claim anything while this symbol waits
        name = f"_{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lost(lease: Lease) -> LeaseLostError:
    """The error of a job that another has by now."""
    return LeaseLostError(
        f"Job {lease.id} ({lease.symbol}) is no longer {lease.worker}'s.",
        hint="It was silent for longer than operations.queue.lease_seconds; another worker has the job.",
    )

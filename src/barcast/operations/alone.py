"""One program of a kind in a workspace on this machine: a lock that dies with its holder and names it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from barcast.errors import RefusedError


@contextmanager
def alone(path: Path, what: str, hint: str) -> Iterator[None]:
    """Hold the lock file `path`.

    Args:
        what: who holds it, for the message: "A scheduler of workspace 'daily'".

    Raises:
        RefusedError: another process holds it; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise RefusedError(f"{what} runs already (process {holder}).", hint=hint) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)

"""Durable file operations: atomic writes, fsynced folders, and a lock that dies with its holder.

Everything that decides what is live goes through here: a reader sees the old content or the new, never half of it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from barcast.errors import RefusedError, RegistryError


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: str) -> None:
    """Replace `path` by `content`: temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def copy_durably(source: Path, target: Path) -> None:
    """Copy the tree `source` to the new folder `target`; every file and folder is on disk when this returns.

    Raises:
        RegistryError: the tree holds a link or a special file; a version is plain files only.
    """
    target.mkdir(parents=True)
    for item in sorted(source.iterdir()):
        if item.is_symlink() or not (item.is_dir() or item.is_file()):
            raise RegistryError(
                f"{item} is not a plain file or folder.", hint="Export the model again; links are not served."
            )
        if item.is_dir():
            copy_durably(item, target / item.name)
            continue
        with item.open("rb") as reader, (target / item.name).open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
    sync_folder(target)


@contextmanager
def exclusive(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock file `path`; processes and threads that ask for it wait their turn.

    The operating system frees the lock when its holder dies, however it dies.

    Raises:
        RegistryError: another holder kept it longer than `timeout_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
                    raise RegistryError(
                        f"Another change of the registry (process {holder}) holds {path.name} "
                        f"for more than {timeout_seconds:g} s; nothing was changed.",
                        hint="Let it finish, then ask again.",
                    ) from None
                time.sleep(0.02)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def alone(path: Path, what: str, hint: str) -> Iterator[None]:
    """Hold the lock file `path`; whoever asks for it meanwhile is refused. It dies with its holder and names it.

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

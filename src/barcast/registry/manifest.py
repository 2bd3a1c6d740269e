"""Integrity of a version directory: `manifest.json` lists every file with its SHA-256.

Written once, when a version directory is made; checked before it is promoted, rolled back to or loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from barcast.durable import sync_folder
from barcast.errors import RegistryError

NAME = "manifest.json"


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder` by its relative path (with `/`), the manifest itself left out.

    Raises:
        RegistryError: the folder is missing, empty, or holds a link or special file.
    """
    if not folder.is_dir():
        raise RegistryError(
            f"{folder} is not a folder.", hint="Give the directory of an exported SavedModel."
        )
    files: dict[str, str] = {}
    for item in sorted(folder.rglob("*")):
        if item.is_symlink() or not (item.is_dir() or item.is_file()):
            raise RegistryError(
                f"{item} is not a plain file or folder.", hint="Export the model again; links are not served."
            )
        if item.is_file() and item != folder / NAME:
            with item.open("rb") as handle:
                files[item.relative_to(folder).as_posix()] = hashlib.file_digest(handle, "sha256").hexdigest()
    if not files:
        raise RegistryError(
            f"{folder} holds no files.", hint="The export did not finish; export the model again."
        )
    return files


def digest(files: dict[str, str]) -> str:
    """One SHA-256 for the whole set: it names exactly what was evaluated."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def write(folder: Path, files: dict[str, str]) -> None:
    """Write `manifest.json` into `folder` (a directory that nobody reads yet)."""
    path = folder / NAME
    with path.open("w", encoding="utf-8") as handle:
        json.dump({"files": files, "digest": digest(files)}, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    sync_folder(folder)


def verify(folder: Path, expected: str | None = None) -> dict[str, str]:
    """Check `folder` against its manifest, and against `expected` (a digest from the ledger) where given.

    Returns:
        The files and their hashes.

    Raises:
        RegistryError: the manifest is missing or unreadable, a file is missing, changed or unknown, or the
            whole is not what was registered.
    """
    path = folder / NAME
    try:
        written = json.loads(path.read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        raise RegistryError(
            f"{folder} has no {NAME}.", hint="It was never completed; it is not served."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(
            f"{path} cannot be read ({error}).", hint="Roll back to another version."
        ) from error
    found = hash_files(folder)
    missing = sorted(set(written) - set(found))
    unknown = sorted(set(found) - set(written))
    changed = sorted(name for name in set(found) & set(written) if found[name] != written[name])
    faults = [
        f"{what}: {', '.join(names[:3])}"
        for what, names in (("missing", missing), ("changed", changed), ("unknown", unknown))
        if names
    ]
    if not faults and expected is not None and digest(found) != expected:
        faults = ["its manifest is not the one that was registered"]
    if faults:
        raise RegistryError(
            f"{folder} does not match its manifest ({'; '.join(faults)}); it is not served.",
            hint="Roll back to another version, or promote again to restore it from the registry.",
        )
    return found

"""Which versions are on disk, and which of them a policy wants."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from barcast import logs
from barcast.serving.model_server.model_config import VersionPolicy
from barcast.serving.model_server.status import Code, StatusError

_LOG = logs.get("model_server")
_MANIFEST = "manifest.json"
_CHUNK_BYTES = 2**20


def versions_on_disk(base_path: Path) -> dict[int, Path] | None:
    """Version number → directory, for children that read as int64 (leading zeros allowed); None without the folder."""
    try:
        children = sorted(child for child in base_path.iterdir() if child.is_dir())
    except (OSError, ValueError):  # ValueError: a path that no file system takes (it came over the wire)
        return None
    found: dict[int, Path] = {}
    for child in children:
        if not (child.name.isascii() and child.name.isdigit()) or int(child.name) >= 2**63:
            continue
        number = int(child.name)
        if number in found:
            _LOG.info(
                "two folders are the same version",
                version=number,
                kept=str(found[number]),
                ignored=str(child),
            )
            continue
        found[number] = child
    return found


def wanted(on_disk: dict[int, Path], policy: VersionPolicy) -> dict[int, Path]:
    """The versions that `policy` asks for; a specific one that is absent only warns."""
    if policy.kind == "all":
        return dict(on_disk)
    if policy.kind == "specific":
        for version in policy.versions:
            if version not in on_disk:
                _LOG.info("a version asked for is not on disk", version=version)
        return {version: on_disk[version] for version in policy.versions if version in on_disk}
    latest = sorted(on_disk)[-policy.num_versions :]
    return {version: on_disk[version] for version in latest}


def verify_manifest(path: Path) -> None:
    """Compare the version directory with its `manifest.json` (`{"files": {relative path: sha256}}`), when it has one.

    Raises:
        StatusError: DATA_LOSS naming the first file that is missing, differs, or lies outside the directory.
    """
    manifest = path / _MANIFEST
    if not manifest.is_file():
        return
    try:
        content: Any = json.loads(manifest.read_text(encoding="utf-8"))
        files = {str(name): str(digest) for name, digest in content["files"].items()}
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise StatusError(Code.DATA_LOSS, f"The manifest {manifest} cannot be read: {error}") from error
    root = path.resolve()
    for name, digest in files.items():
        file = path / name
        if not file.resolve().is_relative_to(root):
            raise StatusError(
                Code.DATA_LOSS, f"The manifest {manifest} names {name!r}, outside its directory"
            )
        if not file.is_file():
            raise StatusError(Code.DATA_LOSS, f"{name!r} is in the manifest of {path} but not on disk")
        found = _sha256(file)
        if found != digest.removeprefix("sha256:").lower():
            raise StatusError(
                Code.DATA_LOSS,
                f"{name!r} in {path} has sha256 {found}, its manifest says {digest}: not loaded",
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

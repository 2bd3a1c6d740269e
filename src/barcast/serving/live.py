"""Which model answers for a symbol: the live table of `models.config` and the small files beside each
version.

Read only; the registry writes. Both reads are kept until the file changes, so a promotion or rollback shows
in the next answer and an unchanged table costs one `stat`.
"""

from __future__ import annotations

import json
import threading
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from barcast import names
from barcast.errors import ServingError
from barcast.models.calibration import Calibration
from barcast.serving.protos import model_server_config_pb2

# What numpy raises for a file that is no archive, is cut short, empty or damaged within.
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"


class VersionFiles:
    """The small files of one version directory's `assets.extra/`; each is read when first needed.

    Args:
        folder: `<workspace.models>/<model>/<version>`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.extra = folder / "assets.extra"

    @cached_property
    def serving(self) -> dict[str, Any]:
        """`serving.json`; empty when there is none."""
        path = self.extra / "serving.json"
        if not path.exists():
            return {}
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ServingError(
                f"{path} cannot be read ({error}).", hint="Promote the version again."
            ) from error
        if not isinstance(loaded, dict):
            raise ServingError(f"{path} must hold an object.", hint="Promote the version again.")
        return loaded

    @cached_property
    def reference(self) -> dict[str, NDArray[np.float64]]:
        """Arrays of `reference.npz` (training mean, scale, distances, linear parameters); empty when there
        is none."""
        path = self.extra / "reference.npz"
        if not path.exists():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: np.asarray(arrays[name], dtype=np.float64) for name in arrays.files}
        except UNREADABLE as error:
            raise ServingError(
                f"{path} cannot be read ({error}).", hint="Promote the version again."
            ) from error

    @cached_property
    def baseline_calibration(self) -> Calibration:
        """The linear baseline's calibration, from `model.json`; the neutral one for other models and where none
        was fitted."""
        path = self.extra / "model.json"
        if not path.exists():
            return Calibration()
        try:
            info = json.loads(path.read_text(encoding="utf-8"))["info"]
            fitted = info["facts"].get("calibration", {}) if info.get("kind") == "linear" else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServingError(
                f"{path} cannot be read ({error}).", hint="Promote the version again."
            ) from error
        known = {f.name: float(fitted[f.name]) for f in fields(Calibration) if f.name in fitted}
        return Calibration(**known)

    def symbol_id(self, symbol: str) -> int:
        """The symbol's number in this model; 0 when it was not trained on it."""
        return int(self.serving.get("symbol_ids", {}).get(symbol, 0))

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.serving.get("feature_names", ()))

    @property
    def members(self) -> tuple[str, ...]:
        """Names of an ensemble's members, in the order of its signature `members`; empty for other models."""
        return tuple(self.serving.get("members", ()))


@dataclass(frozen=True)
class LiveTable:
    """Labels and versions of every live model, as `models.config` states them."""

    workspace: str
    models: dict[str, dict[str, int]] = field(default_factory=dict)
    traffic: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per model what its canary gets: {"mode": "shadow" | "ab", "share": 0..1, "version": n}."""

    def labels(self, model: str) -> dict[str, int]:
        """Version by label; empty when the model is not live."""
        return self.models.get(model, {})

    def canary(self, model: str, mode: str) -> tuple[int, float] | None:
        """Version and share of the canary when the model's traffic is of this mode, else None."""
        policy = self.traffic.get(model, {})
        version = self.labels(model).get(CANARY)
        if version is None or policy.get("mode") != mode:
            return None
        return version, float(policy.get("share", 0.0))

    def stable(self, model: str) -> int | None:
        """The version that answers; None when the model is not live."""
        return self.labels(model).get(STABLE)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols that have a live model of their own."""
        prefix = f"{self.workspace}."
        found = [names.symbol_of(model) for model in self.models if model.startswith(prefix)]
        return tuple(sorted(symbol for symbol in found if symbol is not None))


class LiveReader:
    """Reads `models.config` again whenever the file has changed.

    Args:
        folder: the workspace's models folder.
        workspace: its name.
    """

    def __init__(self, folder: Path, workspace: str) -> None:
        self.folder = folder
        self.workspace = workspace
        self._lock = threading.Lock()
        self._stamp: tuple[Any, Any] = (None, None)
        self._table = LiveTable(workspace)
        self._files: dict[tuple[str, int], tuple[int, VersionFiles]] = {}

    def read(self) -> LiveTable:
        """The present table; empty when nothing was promoted yet.

        Raises:
            ServingError: the file is there and cannot be parsed.
        """
        path, policy = self.folder / "models.config", self.folder / "traffic.json"
        with self._lock:
            stamp = (_stamp(path), _stamp(policy))
            if stamp != self._stamp:
                models = _parse(path) if stamp[0] is not None else {}
                traffic = _parse_traffic(policy) if stamp[1] is not None else {}
                self._table = LiveTable(self.workspace, models, traffic)
                self._stamp = stamp
                live = {(model, version) for model, labels in models.items() for version in labels.values()}
                self._files = {key: kept for key, kept in self._files.items() if key in live}
            return self._table

    def files(self, model: str, version: int) -> VersionFiles:
        """The small files of a version, kept while its directory is the same one and the version is live."""
        folder = self.folder / model / str(version)
        try:
            inode = folder.stat().st_ino
        except FileNotFoundError:
            return VersionFiles(folder)
        with self._lock:
            kept = self._files.get((model, version))
            if kept is None or kept[0] != inode:
                kept = self._files[model, version] = (inode, VersionFiles(folder))
            return kept[1]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parse_traffic(path: Path) -> dict[str, dict[str, Any]]:
    """The traffic policy; none when the file is damaged (a comparison is never worth an answer)."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(loaded, dict):
        return {}
    return {
        str(k): v
        for k, v in loaded.items()
        if isinstance(v, dict) and isinstance(v.get("share", 0.0), int | float)
    }


def _parse(path: Path) -> dict[str, dict[str, int]]:
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise ServingError(
            f"{path} cannot be read ({error}).",
            hint="`barcast models repair` writes it again from the ledger.",
        ) from error
    table: dict[str, dict[str, int]] = {}
    for model in config.model_config_list.config:
        labels = {label: int(version) for label, version in model.version_labels.items()}
        versions = [int(v) for v in model.model_version_policy.specific.versions]
        if STABLE not in labels and versions:
            labels[STABLE] = max(versions)
        table[model.name] = labels
    return table

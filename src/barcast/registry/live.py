"""What is live: `models.config`, TensorFlow Serving's own file, and the version directories beside it.

The file is the only statement of what is served: per model the exact versions (policy `specific`) and their
labels (`stable` answers; `canary` gets a share or a copy; `previous` is the former champion kept loaded). It
is replaced in one rename. Data passes one way: registry → models.config → model server and prediction engine.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from barcast.durable import copy_durably, sync_folder, write_atomic
from barcast.errors import RegistryError
from barcast.registry import manifest

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"
# No label of TensorFlow Serving: stands here for versions that are loaded and carry none yet.
STAGED = "staged"
Labels = dict[str, int]


class LiveModels:
    """`folder` holds `models.config` and `<model>/<version>/`; `base_path` is the folder as the server sees it."""

    def __init__(self, folder: Path, base_path: str = "") -> None:
        self.folder = folder
        self.base_path = base_path or str(folder)
        self.path = folder / "models.config"

    def read(self) -> dict[str, Labels]:
        """Labels and versions of every live model; empty when nothing was ever promoted.

        Raises:
            RegistryError: the file is not a ModelServerConfig in text form, or does not use the policy `specific`.
        """
        from google.protobuf import text_format
        from tensorflow_serving.config import model_server_config_pb2

        if not self.path.exists():
            return {}
        config = model_server_config_pb2.ModelServerConfig()
        try:
            text_format.Parse(self.path.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise RegistryError(
                f"{self.path} cannot be read ({error}).",
                hint="`barcast models repair` writes it again from the ledger.",
            ) from error
        live: dict[str, Labels] = {}
        for model in config.model_config_list.config:
            versions = set(model.model_version_policy.specific.versions)
            labels = dict(model.version_labels)
            bare = versions - set(labels.values())
            if not versions or not set(labels.values()) <= versions or len(bare) > 1:
                raise RegistryError(
                    f"{self.path} names {model.name} with versions {sorted(versions)} and labels {labels}; "
                    "labels belong to live versions, and at most one version is loaded without a label.",
                    hint="`barcast models repair` writes it again from the ledger.",
                )
            live[model.name] = {**labels, STAGED: bare.pop()} if bare else labels
        return live

    def write(self, live: dict[str, Labels]) -> None:
        """Make `live` what is served, in one rename."""
        write_atomic(self.path, self.render(live))

    def render(self, live: dict[str, Labels]) -> str:
        """`live` as a ModelServerConfig in protobuf's text form, models and versions in a fixed order."""
        from google.protobuf import text_format
        from tensorflow_serving.config import model_server_config_pb2

        config = model_server_config_pb2.ModelServerConfig()
        for name in sorted(live):
            if not live[name]:
                continue
            model = config.model_config_list.config.add()
            model.name = name
            model.base_path = f"{self.base_path.rstrip('/')}/{name}"
            model.model_platform = "tensorflow"
            model.model_version_policy.specific.versions.extend(sorted(set(live[name].values())))
            for label in sorted(set(live[name]) - {STAGED}):
                model.version_labels[label] = live[name][label]
        return text_format.MessageToString(config)

    def directory(self, model: str, version: int) -> Path:
        """Where this version is served from."""
        return self.folder / model / str(version)

    def verify(self, model: str, version: int, expected: str) -> None:
        """Check a version directory against its manifest and the registered digest.

        Raises:
            RegistryError: it is missing, damaged or not what was registered.
        """
        manifest.verify(self.directory(model, version), expected)

    def place(self, source: Path, model: str, version: int, expected: str) -> Path:
        """Make the version directory from `source`: copy under a temporary name, check, fsync, rename.

        A directory that already stands and matches is left alone; one that does not match is set aside first
        (`.damaged-<version>`), so that it can be looked at.

        Args:
            expected: the digest registered for this version.

        Raises:
            RegistryError: `source` is not what was registered.
        """
        target = self.directory(model, version)
        if target.exists():
            try:
                manifest.verify(target, expected)
                return target
            except RegistryError:
                pass
        # Names beginning with a dot are no versions, neither to TensorFlow Serving nor to the embedded
        # server.
        temporary = target.with_name(f".incoming-{version}")
        shutil.rmtree(temporary, ignore_errors=True)  # left by a writer that died; the lock is ours
        copy_durably(source, temporary)
        (temporary / manifest.NAME).unlink(missing_ok=True)
        files = manifest.hash_files(temporary)
        if manifest.digest(files) != expected:
            shutil.rmtree(temporary)
            raise RegistryError(
                f"The stored files of {model} version {version} are not what was evaluated and registered "
                f"(SHA-256 {manifest.digest(files)[:12]}, registered {expected[:12]}); nothing was promoted.",
                hint="Reject this version and train again.",
            )
        manifest.write(temporary, files)
        if target.exists():
            aside = target.with_name(f".damaged-{version}")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(target, aside)
        os.rename(temporary, target)
        sync_folder(target.parent)
        return target

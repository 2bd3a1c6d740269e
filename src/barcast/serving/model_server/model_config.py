"""ModelServerConfig: read, validated, and turned into what the life cycle needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from barcast.serving.model_server.messages import parse_text
from barcast.serving.model_server.options import Options
from barcast.serving.model_server.status import invalid, precondition

_PLATFORM = "tensorflow"


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions of those on disk are wanted: the latest n, all, or named ones."""

    kind: str = "latest"
    num_versions: int = 1
    versions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """One entry of the list."""

    name: str
    base_path: Path
    platform: str = _PLATFORM
    policy: VersionPolicy = field(default_factory=VersionPolicy)
    labels: tuple[tuple[str, int], ...] = ()


def _policy(proto: Any) -> VersionPolicy:
    choice = proto.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy("all")
    if choice == "specific":
        return VersionPolicy("specific", versions=tuple(proto.specific.versions))
    return VersionPolicy("latest", num_versions=proto.latest.num_versions or 1)


def _platform(entry: Any, known: bool) -> str:
    if entry.model_platform:
        if entry.model_platform != _PLATFORM and not known:
            raise invalid(f"Model {entry.name} requests unsupported platform {entry.model_platform}")
        return str(entry.model_platform)
    if entry.model_type == model_server_config_pb2.TENSORFLOW:
        return _PLATFORM
    raise invalid(
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
        f"for model {entry.name}"
    )


def read_list(config_list: Any, current: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
    """The entries of a ModelConfigList by name.

    Args:
        config_list: the message.
        current: the entries served now; their platform cannot change.

    Raises:
        StatusError: INVALID_ARGUMENT for a name given twice or not at all, a relative path, a missing, unknown or
            changed platform.
    """
    found: dict[str, ModelConfig] = {}
    for entry in config_list.config:
        if not entry.name:
            raise invalid("Model name cannot be empty in a model config list")
        if entry.name in found:
            raise invalid(f"Illegal to list model {entry.name} multiple times in config list")
        # A name in the messages; the paths and platforms are judged after all names, as TensorFlow Serving does.
        found[entry.name] = ModelConfig(entry.name, Path(entry.base_path))
    for entry in config_list.config:
        if not entry.base_path.startswith("/"):
            raise invalid(
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
            )
    for entry in config_list.config:
        platform = _platform(entry, entry.name in current)
        if entry.name in current and current[entry.name].platform != platform:
            raise invalid(
                f"Illegal to change a model's platform. For model {entry.name} platform was "
                f"{current[entry.name].platform} and new platform requested is {platform}"
            )
        labels = tuple(sorted(entry.version_labels.items()))
        found[entry.name] = ModelConfig(
            entry.name, Path(entry.base_path), platform, _policy(entry.model_version_policy), labels
        )
    return found


def read_file(path: Path) -> Any:
    """The ModelServerConfig in the text file at `path`.

    Raises:
        ConfigError: missing, or `Error parsing text-format tensorflow.serving.ModelServerConfig`.
    """
    return parse_text(
        model_server_config_pb2.ModelServerConfig(), path, "tensorflow.serving.ModelServerConfig"
    )


def initial_config(options: Options) -> Any:
    """The configuration at start: the file's, or one model from --model_name and --model_base_path."""
    if options.model_config_file is not None:
        return read_file(options.model_config_file)
    config = model_server_config_pb2.ModelServerConfig()
    base_path = str(Path(options.model_base_path).absolute())
    config.model_config_list.config.add(
        name=options.model_name, base_path=base_path, model_platform=_PLATFORM
    )
    return config


def check_transition(old: Any, new: Any) -> None:
    """A list may follow a list, nothing else.

    Raises:
        StatusError: FAILED_PRECONDITION.
    """
    if new.WhichOneof("config") != "model_config_list" and old is not None:
        raise precondition(
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to "
            "another."
        )
    if new.WhichOneof("config") == "custom_model_config":
        raise invalid("custom_model_config is not offered by the embedded server")

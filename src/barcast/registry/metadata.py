"""What a version carries with it: the data, settings, code and environment that made it, and how it did."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import metadata as installed
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import barcast
from barcast.errors import RegistryError, did_you_mean


class VersionMetadata(BaseModel):
    """Everything the registry wants to know of a model before it makes a version of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="network, linear, ...")
    data_version: str = Field(coerce_numbers_to_str=True, description="Version of the bar table.")
    data_hash: str = Field(description="Content hash of the bars that were seen.")
    config_hash: str = Field(description="Hash of the whole configuration.")
    features: tuple[str, ...] = Field(min_length=1, description="Feature names in the model's order.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Results on the evaluation window.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Settings worth comparing between runs."
    )
    trained_until: datetime | None = Field(default=None, description="Latest time any fitting saw.")
    evaluated_from: datetime | None = Field(
        default=None, description="First event_timestamp of the evaluation."
    )
    evaluated_until: datetime | None = Field(
        default=None, description="Last event_timestamp of the evaluation."
    )
    parent: str = Field(default="", description="The version it was fine-tuned from, as `name:version`.")
    reliability: float | None = Field(default=None, ge=0, le=1, description="Reliability index.")
    num_trials: int = Field(default=0, ge=0, description="Configurations tried in searches before it.")
    limits: tuple[str, ...] = Field(default=(), description="Known limits, in sentences for the model card.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Anything else worth keeping.")

    @classmethod
    def of(cls, value: VersionMetadata | Mapping[str, Any]) -> VersionMetadata:
        """`value` checked.

        Raises:
            RegistryError: a key is missing, unknown or of the wrong type.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            suggestion = did_you_mean(name, cls.model_fields) if first["type"] == "extra_forbidden" else ""
            raise RegistryError(
                f"The version's metadata {name!r} cannot be used: {first['msg']}. {suggestion}".strip(),
                hint="A version must carry what made it: kind, data_version, data_hash, config_hash, "
                "features.",
            ) from error


@cache
def code_version() -> str:
    """The package's version and a hash over its source, e.g. `0.1.0+3f2a9c1b7d60`."""
    root = Path(barcast.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{barcast.__version__}+{whole.hexdigest()[:12]}"


@cache
def environment() -> dict[str, Any]:
    """Python, platform and every installed distribution with its version."""
    packages = {str(d.metadata["Name"]): d.version for d in installed.distributions() if d.metadata["Name"]}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }

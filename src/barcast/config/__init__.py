"""The one configuration schema, read from YAML: frozen, typed, unknown keys refused.

Its hash is on every run and model. `storage` says where state lives and is no part of the hash, so that the same
definition has one hash on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from barcast import intervals
from barcast.config.bars import QualityConfig, SourceConfig, UniverseConfig
from barcast.config.base import Section
from barcast.config.decisions import DecisionsConfig
from barcast.config.evaluation import CostsConfig, EvaluationConfig, GateConfig
from barcast.config.feast import FeastConfig
from barcast.config.features import FeaturesConfig
from barcast.config.model_server import ModelServer
from barcast.config.models import LabelsConfig, ModelConfig, SplitsConfig, TrainingConfig, TuningConfig
from barcast.config.operations import OperationsConfig
from barcast.config.registry import RegistryConfig
from barcast.config.serving import GatewayConfig, ServingConfig
from barcast.errors import ConfigError, did_you_mean
from barcast.workspace import Workspace

__all__ = ["Config", "Section", "StorageConfig", "base_folder", "load"]


class StorageConfig(Section):
    """Where this machine keeps state."""

    root: str = Field(default=".barcast", description="Folder of all workspaces.")
    models: str = Field(
        default="",
        description="Folder of all workspaces' served models, where few may write (a claim of its own on the "
        "cluster); empty: within `root`.",
    )


class Config(Section):
    """Everything a run needs to know."""

    workspace: str = Field(
        "daily", description="Name of the workspace; also the Feast project and model prefix."
    )
    interval: str = Field("1d", description="Length of a bar, e.g. 1m, 5m, 1h, 1d.")
    horizon_bars: int = Field(5, ge=1, description="How far ahead a label looks, in bars.")
    lookback_bars: int = Field(60, ge=2, description="Bars in the window that the network sees.")
    generation: str = Field(
        "direction_v1", description="Name of the FeatureService of this model generation."
    )
    seed: int = Field(7, ge=0, description="Seed of training and sampling.")
    approval: Literal["automatic", "manual"] = Field(
        "automatic", description="Whether a gate's `promote` goes live at once or waits for a person."
    )
    storage: StorageConfig = StorageConfig()
    source: SourceConfig = SourceConfig()
    universe: UniverseConfig = UniverseConfig()
    quality: QualityConfig = QualityConfig()
    features: FeaturesConfig = FeaturesConfig()
    feast: FeastConfig = FeastConfig()
    labels: LabelsConfig = LabelsConfig()
    splits: SplitsConfig = SplitsConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    tuning: TuningConfig = TuningConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    costs: CostsConfig = CostsConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    serving: ServingConfig = ServingConfig()
    model_server: ModelServer = ModelServer()
    gateway: GatewayConfig = GatewayConfig()
    decisions: DecisionsConfig = DecisionsConfig()
    operations: OperationsConfig = OperationsConfig()

    @field_validator("interval")
    @classmethod
    def _known_interval(cls, value: str) -> str:
        intervals.parse(value)
        return value

    @property
    def hash(self) -> str:
        """Sixteen hex digits that identify the definition (storage left out)."""
        text = json.dumps(self.model_dump(mode="json", exclude={"storage"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def open_workspace(self) -> Workspace:
        """Where this configuration's state lives."""
        served = Path(self.storage.models) if self.storage.models else None
        return Workspace(self.workspace, Path(self.storage.root), served)


def base_folder() -> Path:
    """The folder of all workspaces: BARCAST_ROOT, else `.barcast` here."""
    return Path(os.environ.get("BARCAST_ROOT") or ".barcast")


def load(path: Path | str | None = None, *, root: Path | str | None = None, **overrides: Any) -> Config:
    """The configuration in a YAML file (the defaults without one), with top-level `overrides` on it.

    Relative paths in it are taken from the current folder. State lies under `root`, else BARCAST_ROOT where that is
    set, else what the file says.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value does not fit.
    """
    raw: Any = {}
    if path is not None:
        try:
            raw = yaml.load(Path(path).read_text(), _Loader) or {}
        except FileNotFoundError:
            raise ConfigError(f"There is no configuration file {path}.", hint="Check the path.") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{path} cannot be read as YAML: {error}", hint="Correct the file.") from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} holds {type(raw).__name__}, not settings.", hint="Write `key: value` lines."
        )
    if root is None and os.environ.get("BARCAST_ROOT"):
        root = base_folder()
    if root is not None and isinstance(raw.get("storage") or {}, dict):  # else the schema refuses it below
        raw["storage"] = {**(raw.get("storage") or {}), "root": str(Path(root).absolute())}
    raw.update(overrides)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_readable(error, path)) from error


class _Loader(yaml.SafeLoader):
    """YAML in which a date that no calendar has stays text, for the schema to refuse by its key, and in which a key
    stands once: of two the first would be dropped without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    text = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, text, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _moment(self, node: Any) -> Any:
        try:
            return self.construct_yaml_timestamp(node)
        except ValueError:
            return self.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader._moment)


def _readable(error: ValidationError, path: Path | str | None) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            parent = _section(item["loc"][:-1])
            known = list(parent.model_fields) if parent else []
            lines.append(f"{where}: unknown key. {did_you_mean(str(item['loc'][-1]), known)}".strip())
        else:
            lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})")
    return f"The configuration {path or ''} is not valid:\n  ".replace("  is", " is") + "\n  ".join(lines)


def _section(location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model class that a location in the configuration belongs to."""
    model: type[BaseModel] = Config
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = [annotation, *get_args(annotation)]
        found = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if not found:
            return None
        model = found[0]
    return model

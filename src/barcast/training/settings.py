"""What training reads of the configuration: any object with these sections, such as `barcast.config.Config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from barcast.config.models import LabelsConfig, ModelConfig, SplitsConfig, TrainingConfig

# How a retraining makes a model's next version.
RENEWALS = ("update", "anew", "recalibrate")


class Settings(Protocol):
    """Sections and numbers that a training run depends on."""

    @property
    def labels(self) -> LabelsConfig: ...
    @property
    def splits(self) -> SplitsConfig: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def training(self) -> TrainingConfig: ...
    @property
    def horizon_bars(self) -> int: ...
    @property
    def lookback_bars(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class PlainSettings:
    """Settings on their own, for benchmarks and tests that have no whole configuration."""

    labels: LabelsConfig = field(default_factory=LabelsConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    horizon_bars: int = 5
    lookback_bars: int = 60
    seed: int = 7

"""Settings of the training queue, its automatic priority and the schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from barcast.config.base import Section
from barcast.config.monitoring import MonitoringConfig


class PriorityConfig(Section):
    """Weights and half points of the automatic priority (`barcast.operations.queue_priority`).

    A factor is x / (x + half): 0 at nothing, 0.5 at the half point, towards 1 beyond. The priority is 100 times
    the weighted mean of the factors that are known.
    """

    traded_value_weight: float = Field(default=1.0, ge=0, description="Weight of the traded value.")
    volatility_weight: float = Field(default=1.0, ge=0, description="Weight of the volatility.")
    opportunity_weight: float = Field(default=1.0, ge=0, description="Weight of the expected moves.")
    model_age_weight: float = Field(default=1.5, ge=0, description="Weight of the model's age.")
    unreliability_weight: float = Field(default=1.0, ge=0, description="Weight of a low reliability index.")
    drift_weight: float = Field(default=2.0, ge=0, description="Weight of measured drift.")
    use_weight: float = Field(default=0.5, ge=0, description="Weight of how often predictions are asked for.")
    traded_value_half: float = Field(
        default=1e7, gt=0, description="Traded value a day (price times volume) that counts one half."
    )
    volatility_half: float = Field(
        default=0.4, gt=0, description="Annualised volatility of log returns that counts one half."
    )
    opportunity_half: float = Field(
        default=0.01, gt=0, description="Mean absolute expected log return that counts one half."
    )
    model_age_half_days: float = Field(
        default=30.0, gt=0, description="Days since the model's last training bar that count one half."
    )
    drift_half: float = Field(
        default=0.2, gt=0, description="Population stability index that counts one half."
    )
    use_half_per_day: float = Field(default=100.0, gt=0, description="Answers a day that count one half.")

    @model_validator(mode="after")
    def _some_weight(self) -> PriorityConfig:
        if sum(value for name, value in self if name.endswith("_weight")) <= 0:
            raise ValueError("one weight at least must be above 0")
        return self


class QueueConfig(Section):
    """The training queue."""

    database: str = Field(
        default="",
        description="SQLAlchemy URL (postgresql+psycopg://…); empty for a SQLite file in the workspace.",
    )
    job: str = Field(
        default="barcast.operations.queue_jobs:renew",
        description="What a worker calls for a job: module:function taking (config, job), returning a dict.",
    )
    workers: int = Field(default=1, ge=1, description="Worker processes of `barcast queue work`.")
    lease_seconds: float = Field(
        default=60.0, gt=0, description="A worker not heard of for so long has lost its job."
    )
    heartbeat_seconds: float = Field(
        default=15.0, gt=0, description="Pause between two signs of life; at most a third of the lease."
    )
    poll_seconds: float = Field(default=2.0, gt=0, description="How often an idle worker looks for jobs.")
    max_attempts: int = Field(
        default=4, ge=1, description="Starts of a job before it is a dead letter (`barcast queue dead`)."
    )
    backoff_first_seconds: float = Field(
        default=30.0, ge=0, description="Pause after the first failure; doubles with each further one."
    )
    backoff_max_seconds: float = Field(default=3600.0, ge=0, description="Longest pause after a failure.")
    shares: dict[str, float] = Field(
        default={},
        description="Symbol to its share (0 to 1] of the workers' time and of the cores; one that used more "
        "waits behind the others. A symbol not named has no limit.",
    )
    share_window_hours: float = Field(
        default=24.0, gt=0, description="Span over which used worker time is counted against shares."
    )
    priority: PriorityConfig = PriorityConfig()

    @model_validator(mode="after")
    def _consistent(self) -> QueueConfig:
        if self.heartbeat_seconds > self.lease_seconds / 3:
            raise ValueError("heartbeat_seconds must be at most a third of lease_seconds")
        for symbol, share in self.shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"shares.{symbol} must be above 0 and at most 1, got {share}")
        if sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError(f"the shares sum to {sum(self.shares.values()):g}, more than 1")
        return self


class SchedulesConfig(Section):
    """Schedules on this machine."""

    database: str = Field(
        default="", description="SQLAlchemy URL of the schedules; empty for a SQLite file in the workspace."
    )
    refresh_seconds: float = Field(
        default=2.0, gt=0, description="How soon a running scheduler notices changes made by commands."
    )
    grace_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How late a run may start and still count as on time; later ones need catch-up.",
    )


class TracingConfig(Section):
    """OpenTelemetry traces from bar to decision."""

    exporter: Literal["off", "otlp", "file"] = Field(
        default="off",
        description="Where spans go: nowhere, an OTLP collector over HTTP, or a file of JSON lines.",
    )
    endpoint: str = Field(
        default="",
        description="The collector's URL, e.g. http://collector:4318/v1/traces; empty: OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    file: str = Field(default="", description="The file; empty: `logs/traces.jsonl` in the workspace.")
    sample_share: float = Field(default=1.0, ge=0, le=1, description="Share of traces that are recorded.")


class OperationsConfig(Section):
    """Training queue, schedules, monitoring, traces."""

    queue: QueueConfig = QueueConfig()
    schedules: SchedulesConfig = SchedulesConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    tracing: TracingConfig = TracingConfig()

"""Settings of monitoring: how often, over how many rows, and where each alert begins."""

from __future__ import annotations

from pydantic import Field

from barcast.config.base import Section


class MonitoringConfig(Section):
    """What counts as bad, and what is done about it.

    Chances are per model. "Blocks" are stretches of horizon_bars + 1 bars, so that outcomes of every second
    block do not overlap.
    """

    every_seconds: float = Field(default=300.0, gt=0, description="Pause between two looks of `barcast up`.")
    host: str = Field(default="127.0.0.1", description="Address of the Prometheus metrics.")
    port: int = Field(
        default=8602, ge=0, le=65535, description="Port of the Prometheus metrics; 0 takes a free one."
    )
    keep_days: float = Field(
        default=90.0,
        gt=0,
        description="How long the history is kept, and finished answers in the local log (the Delta table keeps all).",
    )
    window_bars: int = Field(
        default=250, ge=50, description="Newest bars of each symbol compared with the training reference."
    )
    reference_bars: int = Field(
        default=2500, ge=500, description="Last bars before the end of training that make the reference."
    )
    drift_margin: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Features drift when the share of shifted ones (quality.max_drift_psi) is this much above the "
        "highest of the training period's own windows.",
    )
    min_answers: int = Field(
        default=200,
        ge=30,
        description="Answers that must stand on both sides before predictions are compared.",
    )
    min_blocks: int = Field(
        default=8, ge=4, description="Blocks with known outcomes before a model is judged by them."
    )
    quiet_blocks: float = Field(
        default=2000.0,
        gt=10,
        description="Mean number of blocks until a model whose probabilities are honest is taken for a bad one, at "
        "least.",
    )
    harmful_loss: float = Field(
        default=0.05,
        gt=0,
        description="Rollback bound: nats per answer by which a model is worse than constant class shares.",
    )
    calibration_loss: float = Field(
        default=0.02,
        gt=0,
        description="Nats per answer that another temperature would gain before calibration counts as drifted.",
    )
    concept_delta: float = Field(
        default=0.002, gt=0, lt=1, description="ADWIN's confidence parameter on the block losses."
    )
    stale_bars: float = Field(
        default=2.0, ge=0, description="Expected closes that may be missing at the end before bars are late."
    )
    max_fallback_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of recent answers that came from a fallback."
    )
    min_fallback_answers: int = Field(
        default=20,
        ge=1,
        description="Recent answers there must be before their share of fallbacks is judged.",
    )
    max_error_share: float = Field(
        default=0.01, ge=0, le=1, description="Share of failed requests since the last look."
    )
    max_p99_seconds: float = Field(
        default=0.5, gt=0, description="99th percentile of the time of a prediction since the last look."
    )
    max_queue_seconds: float = Field(
        default=6 * 3600.0, gt=0, description="How long a training that is due may wait for a worker."
    )
    min_free_gb: float = Field(default=2.0, ge=0, description="Free space where the workspaces lie, in GB.")
    retrain_days: float = Field(
        default=7.0, ge=0, description="Least days between two retrainings asked for one model."
    )
    retrain_per_day: int = Field(
        default=20, ge=0, description="Most retrainings asked for in 24 hours, all models together."
    )
    cover: bool = Field(
        default=True,
        description="Whether symbols with bars enough that the universal model answers for are queued by themselves.",
    )
    rollback: bool = Field(default=True, description="Whether a harmful model is rolled back by policy.")

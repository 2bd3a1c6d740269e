"""Settings of the registry: where MLflow is, how long to wait for it, what a policy may do alone."""

from __future__ import annotations

from pydantic import Field

from barcast.config.base import Section


class RegistryConfig(Section):
    """MLflow's place, patience, rollback and the console."""

    tracking_uri: str = Field(
        default="",
        description="MLflow tracking and registry: empty for SQLite in the workspace, else a database or "
        "http(s) URI.",
    )
    artifact_location: str = Field(
        default="",
        description="Where MLflow keeps artifacts: empty for files beside the SQLite database, else any "
        "MLflow location; "
        "ignored when an http(s) tracking server decides.",
    )
    served_base_path: str = Field(
        default="",
        description="The models folder as the model server sees it (written into models.config); empty for "
        "the local path.",
    )
    retry_attempts: int = Field(default=4, ge=1, description="Tries before MLflow counts as down.")
    retry_wait_seconds: float = Field(
        default=0.2, ge=0, description="First pause between tries; each following pause doubles, at most 5 s."
    )
    request_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Patience for one answer of MLflow."
    )
    lock_timeout_seconds: float = Field(
        default=120.0, ge=0, description="How long a promotion waits for another one in the same workspace."
    )
    keep_previous: bool = Field(
        default=True,
        description="Keep the former champion loaded beside the new one (instant rollback, a link of the "
        "fallback chain).",
    )
    fingerprint_tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="Largest absolute difference allowed between a served and a recorded answer.",
    )
    fingerprint_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="How long a promoted version may take until it gives its recorded answer.",
    )
    automatic_rollbacks_per_day: int = Field(
        default=2,
        ge=0,
        description="Rollbacks a policy may make per model in 24 hours; beyond that a person must decide.",
    )
    console_port: int = Field(
        default=8601, ge=0, le=65535, description="Port of the web console; 0 takes a free one."
    )
    console_session_minutes: int = Field(
        default=60,
        ge=1,
        description="After this long without a request the console asks for the token again.",
    )

"""Settings of the prediction engine and the gateway: where the model server is, how long to wait, what to
fall back to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from barcast.config.base import Section


class GatewayConfig(Section):
    """The HTTP door: who may come in, how often, with how much."""

    host: str = Field(default="127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(
        default=8700, ge=0, le=65535, description="Port the gateway listens on; 0 takes a free one."
    )
    require_keys: bool = Field(default=True, description="Refuse requests without a known API key.")
    metrics_open: bool = Field(
        default=True,
        description="Show the Prometheus page without a key: counts and times only, no prices and no keys.",
    )
    keys_file: str = Field(
        default="", description="File of API key hashes; empty: `<workspace>/state/api_keys.json`."
    )
    requests_per_minute: int = Field(default=600, ge=1, description="Requests allowed per key and minute.")
    burst: int = Field(default=60, ge=1, description="Requests a key may make at once.")
    max_body_bytes: int = Field(default=65536, ge=1024, description="Largest accepted request body.")
    max_symbols: int = Field(default=200, ge=1, description="Most symbols in one request.")
    stream_seconds: float = Field(default=1.0, gt=0, description="How often the stream looks for a new bar.")
    role_default: Literal["read", "write"] = Field(
        default="read", description="Role of a key made without one."
    )


class ServingConfig(Section):
    """How predictions are asked for and answered."""

    endpoint: str = Field(
        default="127.0.0.1:8500",
        pattern=r":\d{1,5}$",
        description="Model server's gRPC address, host:port.",
    )
    deadline_seconds: float = Field(
        default=2.0, gt=0, le=60, description="Longest wait for one Predict call."
    )
    explain_deadline_seconds: float = Field(
        default=20.0, gt=0, le=120, description="Longest wait for an explanation."
    )
    retries: int = Field(
        default=1,
        ge=0,
        le=5,
        description="Repeats of a Predict that failed as unavailable (safe: it changes nothing).",
    )
    retry_base_seconds: float = Field(
        default=0.05, gt=0, le=5, description="First wait before a repeat; doubles, with full jitter."
    )
    breaker_failures: int = Field(
        default=3, ge=1, description="Failures in a row after which the model server is left alone."
    )
    breaker_open_seconds: float = Field(
        default=5.0, gt=0, description="How long it is left alone before one trial call."
    )
    max_stale_bars: float = Field(
        default=0.0,
        ge=0,
        description="Refuse features older than this many intervals by the clock; 0: any age.",
    )
    max_lag_bars: float = Field(
        default=0.0,
        ge=0,
        description="Features may be this many intervals older than the newest stored bar of their symbol.",
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        default=(1, 8, 32),
        min_length=1,
        description="Batch sizes the embedded server compiles at load, and pads to; more symbols than the largest go "
        "out as several requests at the same time.",
    )
    features_wait_seconds: float = Field(
        default=1.0,
        ge=0,
        le=30,
        description="How long after a bar has come an answer waits for its features, which follow a moment later.",
    )
    cache_predictions: int = Field(
        default=4096, ge=0, description="Answers kept, keyed by model version and feature timestamp."
    )
    log_predictions: bool = Field(
        default=True, description="Keep every answer in the durable prediction log."
    )
    log_flush_rows: int = Field(
        default=500, ge=1, description="Prediction log rows moved to the Delta table at once."
    )
    top_features: int = Field(default=8, ge=1, le=100, description="Features named in an explanation.")
    similar_windows: int = Field(
        default=10, ge=1, le=200, description="Nearest historical windows used in an explanation."
    )

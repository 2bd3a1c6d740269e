"""Settings of the feature store."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from barcast.config.base import Section


class FeastConfig(Section):
    """How features are kept for training (offline) and for serving (online)."""

    feature_store_yaml: Path | None = Field(
        default=None,
        description="A Feast feature_store.yaml to use (Redis, PostgreSQL ...); none: the embedded stores.",
    )
    ttl_bars: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="How long a row stays valid in a historical join, in bars; below 1, so that a missing "
        "bar's row is null instead of being replaced by the row before it.",
    )
    max_age_bars: int = Field(
        default=1,
        ge=0,
        description="Bars that may have closed since the last bar of a window that an online read accepts.",
    )
    owner: str = Field(default="barcast", description="Owner written on every Feast object.")

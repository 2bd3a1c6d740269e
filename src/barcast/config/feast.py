"""Settings of the feature store."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from barcast.config.base import Section


class FeastConfig(Section):
    """How features are kept for training (offline) and for serving (online)."""

    feature_store_yaml: Path | None = Field(
        default=None,
        description="A Feast feature_store.yaml to use (Redis, PostgreSQL ...); none means the embedded stores.",
    )
    ttl_bars: float = Field(
        default=0.5,
        gt=0,
        description="How long a row stays valid in a historical join, in bars. Below 1, a missing bar's row is "
        "null instead of being replaced by the row before it.",
    )
    max_age_bars: float = Field(
        default=2.0,
        gt=0,
        description="Oldest window that an online read accepts, in bars of trading time behind the present.",
    )
    owner: str = Field(default="barcast", description="Owner written on every Feast object.")
    online_write_batch_rows: int = Field(
        default=500, gt=0, description="Rows sent to the online store at once by a materialisation."
    )

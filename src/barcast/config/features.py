"""Settings of the features: cross-symbol correlation, lateness, and a user's own features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from barcast.config.base import Section

Category = Literal["ohlcv", "technical", "price_action", "temporal", "regime", "cross_symbol", "meta"]
CATEGORIES: tuple[Category, ...] = (
    "ohlcv",
    "technical",
    "price_action",
    "temporal",
    "regime",
    "cross_symbol",
    "meta",
)


class FeaturesConfig(Section):
    """What the feature engines compute, in batch and in stream alike."""

    categories: tuple[Category, ...] = Field(
        default=CATEGORIES, description="The categories to compute; all of them by default."
    )
    correlation_threshold: float = Field(
        default=0.7, gt=0, lt=1, description="The least correlation at which another symbol counts as a peer."
    )
    correlation_lookback_hours: float = Field(
        default=720,
        gt=0,
        description="Hours of returns behind a correlation, on the UTC clock that all symbols share.",
    )
    correlation_refresh_hours: float = Field(
        default=24, gt=0, description="Hours between two refreshes of the correlations, on the UTC clock."
    )
    correlation_min_observations: int = Field(
        default=15,
        ge=3,
        description="The fewest common returns behind a correlation; with fewer there is none.",
    )
    max_peers: int = Field(
        default=16, ge=1, description="The most correlated peers kept per symbol: bounds the work per row."
    )
    peer_max_age_bars: float = Field(
        default=3, ge=0, description="A peer whose last bar is older than this many bars is left out."
    )
    peer_deadline_seconds: float = Field(
        default=10,
        ge=0,
        description="A bar known this long after the first of its time counts as late for the others.",
    )
    late_bars: Literal["refuse", "replay"] = Field(
        default="refuse",
        description="What the stream does with a bar older than its newest: refuse it or replay.",
    )
    replay_bars: int = Field(
        default=256, ge=2, description="How many updates back a late bar may reach when it is replayed."
    )
    user_features: str | None = Field(
        default=None,
        description="A Python file with the user's own features (see the guide `add a feature`).",
    )

    @field_validator("categories")
    @classmethod
    def _each_once(cls, value: tuple[Category, ...]) -> tuple[Category, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a category is named twice")
        return value

"""Is the data good enough? Polars measures, Great Expectations judges, the report says it in words."""

from barcast.bars.quality.bars import validate_bars
from barcast.bars.quality.features import FeatureProfile, profile_features, validate_features
from barcast.bars.quality.report import CheckResult, QualityReport

__all__ = [
    "validate_bars",
    "validate_features",
    "profile_features",
    "FeatureProfile",
    "QualityReport",
    "CheckResult",
]

"""Bars to features with the batch engine."""

from kfp import dsl

from components.step import step


@step
def build_features(config: str, data: str, bars: dsl.Input[dsl.Dataset], features: dsl.Output[dsl.Dataset]):
    """Compute every feature of the generation.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        bars: the snapshot from `ingest`.
        features: Parquet, one row per symbol and bar close.
    """
    from barcast import steps

    features.metadata.update(steps.build_features(config, data, bars.path, features.path))

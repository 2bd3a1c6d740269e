"""Bars to features with the batch engine."""

from kfp import dsl

from components.step import step


@step
def build_features(config: str, run_id: str, bars: dsl.Input[dsl.Dataset], features: dsl.Output[dsl.Dataset]):
    """Compute every feature of the generation.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        bars: the snapshot from `ingest`.
        features: Parquet, one row per symbol and bar close.
    """
    from barcast import steps

    features.metadata.update(steps.build_features(config, run_id, bars.path, features.path))

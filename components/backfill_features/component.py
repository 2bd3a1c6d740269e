"""Bars of a long history to features on Apache Beam, a symbol at a time."""

from kfp import dsl

from components.step import step


@step
def backfill_features(
    config: str,
    data: str,
    runner: str,
    options: list,
    bars: dsl.Input[dsl.Dataset],
    features: dsl.Output[dsl.Dataset],
):
    """Compute every feature of the generation: the same numbers as `build_features` gives.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        runner: `local`, or a Beam runner's name.
        options: further Beam options.
        bars: the snapshot from `ingest`.
        features: Parquet, one row per symbol and bar close.
    """
    from barcast import steps

    features.metadata.update(steps.backfill_features(config, data, runner, options, bars.path, features.path))

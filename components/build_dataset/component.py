"""Labels joined point in time with features from Feast; splits; the batches of models to train."""

from kfp import dsl

from components.step import step


@step
def build_dataset(
    config: str,
    data: str,
    bars: dsl.Input[dsl.Dataset],
    service: str,
    models: str,
    dataset: dsl.Output[dsl.Dataset],
) -> list[str]:
    """Make the training set.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        bars: the snapshot from `ingest`.
        service: the FeatureService to join from.
        models: which models are to be made: symbols, `universal` or `_linear`, separated by commas; empty: every
            symbol with enough history.
        dataset: a folder with rows, labels and splits.

    Returns:
        Batches of models, each a JSON list.
    """
    from barcast import steps

    return steps.build_dataset(config, data, bars.path, service, models, dataset.path, dataset.metadata)

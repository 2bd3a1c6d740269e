"""Labels joined point in time with features from Feast; splits; the batches of symbols to train."""

from kfp import dsl

from components.step import step


@step
def build_dataset(
    config: str,
    run_id: str,
    bars: dsl.Input[dsl.Dataset],
    service: str,
    dataset: dsl.Output[dsl.Dataset],
) -> list[str]:
    """Make the training set.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        bars: the snapshot from `ingest`.
        service: the FeatureService to join from.
        dataset: a folder with rows, labels and splits.

    Returns:
        Batches of symbols with enough history for a model of their own, each a JSON list.
    """
    from barcast import steps

    return steps.build_dataset(config, run_id, bars.path, service, dataset.path, dataset.metadata)

"""Each candidate becomes a version in the registry, with everything needed to make it again."""

from kfp import dsl

from components.step import step


@step
def register(
    config: str,
    run_id: str,
    bars: dsl.Input[dsl.Dataset],
    linear: dsl.Input[dsl.Model],
    universal: dsl.Input[dsl.Model],
    symbols: dsl.Input[list[dsl.Model]],
    predictions: dsl.Input[dsl.Dataset],
    report: dsl.Input[dsl.HTML],
    only_own: bool,
) -> str:
    """Register every candidate in MLflow.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        bars: the snapshot the models were made from.
        linear: the linear baseline.
        universal: the universal network.
        symbols: folders of new models.
        predictions: the per-row results.
        report: the evaluation report.
        only_own: the linear and the universal model are no candidates, but what answers now.

    Returns:
        The candidates and their versions, as JSON.
    """
    from barcast import steps

    return steps.register(
        config,
        run_id,
        bars.metadata,
        linear.path,
        universal.path,
        [artifact.path for artifact in symbols],
        predictions.path,
        report.path,
        only_own,
    )

"""Champion against challenger: each candidate is compared with whatever answers for its symbol now."""

from kfp import dsl

from components.step import step


@step
def gate(
    config: str,
    run_id: str,
    candidates: str,
    bars: dsl.Input[dsl.Dataset],
    dataset: dsl.Input[dsl.Dataset],
    predictions: dsl.Input[dsl.Dataset],
    blessing: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Judge every candidate and set the challengers.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        candidates: the versions from `register`.
        bars: the snapshot from `ingest`.
        dataset: the folder from `build_dataset`.
        predictions: the per-row results from `evaluate`.
        blessing: the verdict of the sliced analysis.
        report: the evaluation report with the verdicts in it.

    Returns:
        `promote` when the configuration approves by itself and somebody won, else `wait` or `keep`.
    """
    from barcast import steps

    return steps.gate(
        config, run_id, candidates, bars.path, dataset.path, predictions.path, blessing.path, report.path
    )

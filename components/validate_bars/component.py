"""Great Expectations on the bars; a critical breach stops the run and the report says why."""

from kfp import dsl

from components.step import step


@step
def validate_bars(config: str, data: str, bars: dsl.Input[dsl.Dataset], report: dsl.Output[dsl.HTML]):
    """Judge the snapshot of bars.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        bars: the snapshot from `ingest`.
        report: the readable report, written whatever the verdict.
    """
    from barcast import steps

    steps.validate_bars(config, data, bars.path, report.path)

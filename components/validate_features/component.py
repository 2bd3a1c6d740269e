"""Great Expectations on a per-column profile of the features."""

from kfp import dsl

from components.step import step


@step
def validate_features(config: str, data: str, features: dsl.Input[dsl.Dataset], report: dsl.Output[dsl.HTML]):
    """Judge the features before anything downstream sees them.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        features: the frame from `build_features`.
        report: the readable report, written whatever the verdict.
    """
    from barcast import steps

    steps.validate_features(config, data, features.path, report.path)

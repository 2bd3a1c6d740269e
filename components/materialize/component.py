"""Features into Feast: definitions applied, offline rows written, online row and window filled."""

from kfp import dsl

from components.step import step


@step
def materialize(config: str, run_id: str, features: dsl.Input[dsl.Dataset]) -> str:
    """Write the features to the feature store.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        features: the validated frame.

    Returns:
        The name of the FeatureService that now serves them.
    """
    from barcast import steps

    return steps.materialize(config, run_id, features.path)

"""The best trial of a study as a configuration that `barcast run` takes."""

from kfp import dsl

from components.step import step


@step
def choose_settings(
    config: str,
    run_id: str,
    study: str,
    storage: str,
    searched: dsl.Input[list[dsl.Metrics]],
    best: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Write the best configuration.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        study: the study's name.
        storage: its Optuna storage.
        searched: what the workers report; this step waits for them.
        best: the configuration, YAML.
        metrics: log loss of the best trial, and how many trials it was the best of.
    """
    from barcast import steps

    for name, value in steps.choose_settings(config, run_id, study, storage, best.path).items():
        metrics.log_metric(name, value)

"""One worker of a hyper-parameter search; all workers of a study share its storage."""

from kfp import dsl

from components.step import step


@step
def search_settings(
    config: str,
    run_id: str,
    trials: int,
    sampler: str,
    study: str,
    storage: str,
    dataset: dsl.Input[dsl.Dataset],
    trials_done: dsl.Output[dsl.Metrics],
):
    """Add trials to the study.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        trials: how many trials this worker adds.
        sampler: `tpe`, `random` or `grid`.
        study: the study's name.
        storage: Optuna storage; empty: the workspace's SQLite file, on one machine only.
        dataset: the folder from `build_dataset`.
        trials_done: the study's best value and its number of trials when this worker ended.
    """
    from barcast import steps

    found = steps.search_settings(config, run_id, int(trials), sampler, study, storage, dataset.path)
    for name, value in found.items():
        trials_done.log_metric(name, value)

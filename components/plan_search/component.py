"""The trials of a search, shared out among its workers."""

from components.step import step


@step
def plan_search(config: str, run_id: str, trials: int, workers: int) -> list[int]:
    """Share out the trials.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        trials: trials of all workers together.
        workers: how many workers.

    Returns:
        Trials of each worker.
    """
    from barcast import steps

    return steps.plan_search(config, run_id, int(trials), int(workers))

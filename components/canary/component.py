"""A prediction over gRPC from what has just gone live; without an answer it is taken back."""

from kfp import dsl

from components.step import step


@step
def canary(config: str, run_id: str, promoted: str, answers: dsl.Output[dsl.Artifact]):
    """Ask the configured model server, or one started for the purpose.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        promoted: what went live, from `promote`.
        answers: the predictions of all symbols, as JSON.
    """
    from barcast import steps

    steps.canary(config, run_id, promoted, answers.path)

"""What answers now, fetched from the registry: the parents and rivals of models made anew."""

from kfp import dsl

from components.step import step


@step
def live_models(
    config: str,
    run_id: str,
    linear: dsl.Output[dsl.Model],
    universal: dsl.Output[dsl.Model],
    own: dsl.Output[dsl.Model],
):
    """Fetch the live models, their hashes checked.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        linear: the live linear baseline; the newest registered one where none is live.
        universal: the live universal model, likewise.
        own: a folder with the live model of each symbol that has one.
    """
    from barcast import steps

    linear.metadata, universal.metadata, own.metadata = steps.live_models(
        config, run_id, linear.path, universal.path, own.path
    )

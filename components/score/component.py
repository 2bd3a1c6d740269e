"""What the live models answer for every window of a data set, in bulk, on Apache Beam."""

from kfp import dsl

from components.step import step


@step
def score(
    config: str,
    run_id: str,
    start: str,
    end: str,
    runner: str,
    options: list,
    dataset: dsl.Input[dsl.Dataset],
    linear: dsl.Input[dsl.Model],
    universal: dsl.Input[dsl.Model],
    own: dsl.Input[dsl.Model],
    scores: dsl.Output[dsl.Dataset],
):
    """Score each symbol by the model that answers for it.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        start: score windows that close after this time (ISO 8601, UTC); empty: from the first.
        end: up to this time; empty: to the last.
        runner: `local`, or a Beam runner's name.
        options: further Beam options.
        dataset: the folder from `build_dataset`.
        linear: what answers now, from `live_models`.
        universal: likewise.
        own: a folder with symbols' own live models.
        scores: predictions with their outcomes, Parquet.
    """
    from barcast import steps

    scores.metadata.update(
        steps.score(
            config,
            run_id,
            start,
            end,
            runner,
            options,
            dataset.path,
            linear.metadata,
            linear.path,
            universal.metadata,
            universal.path,
            own.path,
            scores.path,
        )
    )

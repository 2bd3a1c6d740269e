"""A span of history brought in late: bars, features, and what the live models would have answered."""

from kfp import dsl

from components.live_models.component import live_models
from components.record_outcome.component import record_outcome
from components.score.component import score
from pipelines import parts
from pipelines.resources import NO_OPTIONS, heavy, light, stateful


@dsl.pipeline(name="barcast-backfill", description="Bars, features and bulk scores of a span of history.")
def backfill(
    config: str,
    run_id: str,
    start: str = "",
    end: str = "",
    scoring: bool = True,
    runner: str = "local",
    options: list = NO_OPTIONS,
):
    """Bring in, compute, score.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        start: bring bars that close after this time (ISO 8601, UTC); empty: from the source's first.
        end: up to this time; empty: to the newest.
        scoring: whether the live models score every window.
        runner: Apache Beam runner of features and scores: `local`, or a Beam runner's name.
        options: further Beam options.
    """
    with dsl.ExitHandler(light(record_outcome(config=config, run_id=run_id)), name="run"):
        made = parts.prepare(config, run_id, start=start, end=end, runner=runner, options=options)
        with dsl.If(scoring == True, name="scoring"):  # noqa: E712  kfp compares, Python does not
            live = stateful(light(live_models(config=config, run_id=run_id)))
            heavy(
                score(
                    config=config,
                    run_id=run_id,
                    start=start,
                    end=end,
                    runner=runner,
                    options=options,
                    dataset=made.dataset,
                    linear=live.outputs["linear"],
                    universal=live.outputs["universal"],
                    own=live.outputs["own"],
                )
            )

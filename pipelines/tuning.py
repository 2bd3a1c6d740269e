"""Hyper-parameters searched by workers that share one study; the best become a configuration to run."""

from kfp import dsl

from components.choose_settings.component import choose_settings
from components.plan_search.component import plan_search
from components.record_outcome.component import record_outcome
from components.search_settings.component import search_settings
from pipelines import parts
from pipelines.resources import NO_NODES, heavy, light, on_gpus, stateful


@dsl.pipeline(name="barcast-tuning", description="Search hyper-parameters and write the best configuration.")
def tuning(
    config: str,
    run_id: str,
    trials: int = 20,
    workers: int = 1,
    sampler: str = "tpe",
    study: str = "network",
    storage: str = "",
    gpus: str = "0",
    gpu_nodes: dict = NO_NODES,
):
    """Search, then choose.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        trials: trials to add to the study, over all workers.
        workers: how many search at once, each in a pod of its own.
        sampler: `tpe`, `random` or `grid`.
        study: the study's name; the same name goes on with it.
        storage: Optuna storage that all workers reach; the workspace's SQLite file on one machine.
        gpus: GPUs of each step that trains.
        gpu_nodes: labels of the nodes that have them.
    """
    with dsl.ExitHandler(light(record_outcome(config=config, run_id=run_id)), name="run"):
        made = parts.prepare(config, run_id)
        plan = light(plan_search(config=config, run_id=run_id, trials=trials, workers=workers))
        with dsl.ParallelFor(plan.output, name="workers", parallelism=8) as share:
            searched = on_gpus(
                stateful(
                    heavy(
                        search_settings(
                            config=config,
                            run_id=run_id,
                            trials=share,
                            sampler=sampler,
                            study=study,
                            storage=storage,
                            dataset=made.dataset,
                        )
                    )
                ),
                gpus,
                gpu_nodes,
            )
        stateful(
            light(
                choose_settings(
                    config=config,
                    run_id=run_id,
                    study=study,
                    storage=storage,
                    searched=dsl.Collected(searched.outputs["trials_done"]),
                )
            )
        )

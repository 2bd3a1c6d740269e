"""One or several models made anew on the newest bars: each learns on from what answers now."""

from kfp import dsl

from components.live_models.component import live_models
from components.record_outcome.component import record_outcome
from components.renew_models.component import renew_models
from pipelines import parts
from pipelines.resources import NO_NODES, heavy, light, on_gpus, stateful


@dsl.pipeline(name="barcast-renewal", description="Newest bars, new versions of some models, the gate.")
def renewal(
    config: str, run_id: str, models: str, mode: str = "update", gpus: str = "0", gpu_nodes: dict = NO_NODES
):
    """Renew models: `retraining` without its exit step, which `monitoring` runs too.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        models: symbols, `universal` or `_linear`, separated by commas; empty: all symbols with enough bars.
        mode: `update` learns the bars that are new since the live version, `anew` starts from the universal model,
            `recalibrate` fits the probabilities of the live version again and leaves its weights.
        gpus: GPUs of each step that trains.
        gpu_nodes: labels of the nodes that have them.
    """
    made = parts.prepare(config, run_id, models=models)
    live = stateful(light(live_models(config=config, run_id=run_id)))
    with dsl.ParallelFor(made.batches, name="models", parallelism=2) as batch:
        new = on_gpus(
            heavy(
                renew_models(
                    config=config,
                    run_id=run_id,
                    batch=batch,
                    mode=mode,
                    dataset=made.dataset,
                    linear=live.outputs["linear"],
                    universal=live.outputs["universal"],
                    own=live.outputs["own"],
                )
            ),
            gpus,
            gpu_nodes,
        )
    parts.judge(
        config,
        run_id,
        made,
        linear=live.outputs["linear"],
        universal=live.outputs["universal"],
        own=new.outputs["models"],
        only_own=True,
    )


@dsl.pipeline(name="barcast-retraining", description="Some models renewed on the newest bars, and judged.")
def retraining(
    config: str,
    run_id: str,
    models: str = "",
    mode: str = "update",
    gpus: str = "0",
    gpu_nodes: dict = NO_NODES,
):
    """Renew models and promote what wins.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        models: symbols, `universal` or `_linear`, separated by commas; empty: all symbols with enough bars.
        mode: `update`, `anew` or `recalibrate`.
        gpus: GPUs of each step that trains.
        gpu_nodes: labels of the nodes that have them.
    """
    with dsl.ExitHandler(light(record_outcome(config=config, run_id=run_id)), name="run"):
        renewal(config=config, run_id=run_id, models=models, mode=mode, gpus=gpus, gpu_nodes=gpu_nodes)

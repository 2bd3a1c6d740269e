"""From bars to an approved model that answers: the whole way, for all symbols."""

from kfp import dsl

from components.record_outcome.component import record_outcome
from components.train_symbols.component import train_symbols
from components.train_universal.component import train_universal
from pipelines import parts
from pipelines.resources import NO_NODES, heavy, light, on_gpus


@dsl.pipeline(name="barcast-training", description="Bars to features to models to an approved champion.")
def training(config: str, run_id: str, gpus: str = "0", gpu_nodes: dict = NO_NODES):
    """Train everything and promote what wins.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        gpus: GPUs of each step that trains.
        gpu_nodes: labels of the nodes that have them.
    """
    with dsl.ExitHandler(light(record_outcome(config=config, run_id=run_id)), name="run"):
        made = parts.prepare(config, run_id)
        base = on_gpus(
            heavy(train_universal(config=config, data=made.data, dataset=made.dataset), cached=True),
            gpus,
            gpu_nodes,
        )
        with dsl.ParallelFor(made.batches, name="symbols", parallelism=2) as batch:
            own = on_gpus(
                heavy(
                    train_symbols(
                        config=config,
                        data=made.data,
                        batch=batch,
                        dataset=made.dataset,
                        linear=base.outputs["linear"],
                        universal=base.outputs["universal"],
                    ),
                    cached=True,
                ),
                gpus,
                gpu_nodes,
            )
        parts.judge(
            config,
            run_id,
            made,
            linear=base.outputs["linear"],
            universal=base.outputs["universal"],
            own=own.outputs["models"],
            only_own=False,
        )

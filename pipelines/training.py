"""From bars to an approved model that answers: the whole way, for all symbols."""

from kfp import dsl

from components.analyze.component import analyze
from components.build_dataset.component import build_dataset
from components.build_features.component import build_features
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.ingest.component import ingest
from components.materialize.component import materialize
from components.record_outcome.component import record_outcome
from components.register.component import register
from components.train_symbols.component import train_symbols
from components.train_universal.component import train_universal
from components.validate_bars.component import validate_bars
from components.validate_features.component import validate_features
from pipelines.promotion import promotion
from pipelines.resources import heavy, light


@dsl.pipeline(name="barcast-training", description="Bars to features to models to an approved champion.")
def training(config: str, run_id: str):
    """Train everything and promote what wins.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
    """
    exit_step = record_outcome(config=config, run_id=run_id)
    exit_step.set_caching_options(False)
    with dsl.ExitHandler(exit_step, name="run"):
        bars = light(ingest(config=config, run_id=run_id), side_effects=True)
        bars_checked = light(validate_bars(config=config, run_id=run_id, bars=bars.outputs["bars"]))
        features = light(build_features(config=config, run_id=run_id, bars=bars.outputs["bars"]))
        features.after(bars_checked)
        features_checked = light(
            validate_features(config=config, run_id=run_id, features=features.outputs["features"])
        )
        stored = light(
            materialize(config=config, run_id=run_id, features=features.outputs["features"]),
            side_effects=True,
        )
        stored.after(features_checked)
        dataset = light(
            build_dataset(config=config, run_id=run_id, bars=bars.outputs["bars"], service=stored.output)
        )
        base = heavy(train_universal(config=config, run_id=run_id, dataset=dataset.outputs["dataset"]))
        with dsl.ParallelFor(dataset.outputs["Output"], name="symbols", parallelism=2) as batch:
            own = heavy(
                train_symbols(
                    config=config,
                    run_id=run_id,
                    batch=batch,
                    dataset=dataset.outputs["dataset"],
                    universal=base.outputs["universal"],
                )
            )
        judged = heavy(
            evaluate(
                config=config,
                run_id=run_id,
                bars=bars.outputs["bars"],
                dataset=dataset.outputs["dataset"],
                linear=base.outputs["linear"],
                universal=base.outputs["universal"],
                symbols=dsl.Collected(own.outputs["models"]),
            )
        )
        sliced = heavy(analyze(config=config, run_id=run_id, predictions=judged.outputs["predictions"]))
        versions = light(
            register(
                config=config,
                run_id=run_id,
                bars=bars.outputs["bars"],
                linear=base.outputs["linear"],
                universal=base.outputs["universal"],
                symbols=dsl.Collected(own.outputs["models"]),
                predictions=judged.outputs["predictions"],
                report=judged.outputs["report"],
            ),
            side_effects=True,
        )
        verdict = light(
            gate(
                config=config,
                run_id=run_id,
                candidates=versions.output,
                bars=bars.outputs["bars"],
                dataset=dataset.outputs["dataset"],
                predictions=judged.outputs["predictions"],
                blessing=sliced.outputs["blessing"],
            ),
            side_effects=True,
        )
        with dsl.If(verdict.outputs["Output"] == "promote", name="approved"):
            promotion(config=config, run_id=run_id)

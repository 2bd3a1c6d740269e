"""What several pipelines share: the way from the source to a data set, and from candidates to a verdict."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.analyze.component import analyze
from components.backfill_features.component import backfill_features
from components.build_dataset.component import build_dataset
from components.build_features.component import build_features
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.ingest.component import ingest
from components.materialize.component import materialize
from components.register.component import register
from components.validate_bars.component import validate_bars
from components.validate_features.component import validate_features
from pipelines.promotion import promotion
from pipelines.resources import heavy, light, stateful


@dataclass(frozen=True)
class Prepared:
    """What later steps take.

    Attributes:
        bars, features, dataset: artifacts.
        data: hash of the bars and the user's own files: with the configuration, the key of every cached step.
        batches: lists of models to train, one a pod, so that hundreds of symbols are not hundreds of pods.
    """

    bars: Any
    features: Any
    data: Any
    dataset: Any
    batches: Any


def prepare(
    config: Any,
    run_id: Any,
    *,
    models: Any = "",
    start: Any = "",
    end: Any = "",
    runner: Any = None,
    options: Any = None,
) -> Prepared:
    """Source → bars → checks → features → checks → feature store → data set.

    Args:
        models: those to be made; empty: every symbol with enough history.
        start, end: span of bars to ask the source for.
        runner, options: compute the features on Apache Beam, where given.
    """
    brought = stateful(light(ingest(config=config, run_id=run_id, start=start, end=end)))
    bars, data = brought.outputs["bars"], brought.outputs["Output"]
    bars_checked = light(validate_bars(config=config, data=data, bars=bars), cached=True)
    if runner is None:
        made = light(build_features(config=config, data=data, bars=bars), cached=True)
    else:
        made = heavy(
            backfill_features(config=config, data=data, runner=runner, options=options, bars=bars),
            cached=True,
        )
    made.after(bars_checked)
    features = made.outputs["features"]
    features_checked = light(validate_features(config=config, data=data, features=features), cached=True)
    stored = stateful(light(materialize(config=config, run_id=run_id, features=features)))
    stored.after(features_checked)
    joined = stateful(
        light(
            build_dataset(config=config, data=data, bars=bars, service=stored.output, models=models),
            cached=True,
        )
    )
    return Prepared(bars, features, data, joined.outputs["dataset"], joined.outputs["Output"])


def judge(
    config: Any, run_id: Any, made: Prepared, *, linear: Any, universal: Any, own: Any, only_own: bool
) -> None:
    """Candidates → figures and report → registry → gate → promotion of what is approved.

    Args:
        own: folders of new models, made in a loop. (Each use is collected anew: kfp changes the object.)
        only_own: `linear` and `universal` are no candidates, but what answers now.
    """
    judged = stateful(
        heavy(
            evaluate(
                config=config,
                run_id=run_id,
                bars=made.bars,
                dataset=made.dataset,
                linear=linear,
                universal=universal,
                symbols=dsl.Collected(own),
                only_own=only_own,
            )
        )
    )
    predictions = judged.outputs["predictions"]
    sliced = heavy(analyze(config=config, run_id=run_id, predictions=predictions))
    versions = stateful(
        light(
            register(
                config=config,
                run_id=run_id,
                bars=made.bars,
                linear=linear,
                universal=universal,
                symbols=dsl.Collected(own),
                predictions=predictions,
                report=judged.outputs["report"],
                only_own=only_own,
            )
        ),
        models=True,
    )
    verdict = stateful(
        light(
            gate(
                config=config,
                run_id=run_id,
                candidates=versions.output,
                bars=made.bars,
                dataset=made.dataset,
                predictions=predictions,
                blessing=sliced.outputs["blessing"],
            )
        ),
        models=True,
    )
    with dsl.If(verdict.outputs["Output"] == "promote", name="approved"):
        promotion(config=config, run_id=run_id)

"""A symbol's own model, by transfer from a parent: freeze, new head, fine-tune, gradual unfreezing.

The parent (universal, or the model of the most correlated symbol) is copied; its thresholds and
normalisation are kept, so that both are judged on the same classes. Stages train more and more of the copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.splits import Fold
from barcast.training import common, trainer
from barcast.training import targets as target_rows
from barcast.training.quantise import full_precision
from barcast.training.settings import Settings
from barcast.training.trained import TrainedModel, make_network
from barcast.training.universal import curves, describe, finish

SYMBOL_SHARE = 4
# Layers by name, from the answer heads back to the input: each stage adds the next group.
HEADS = ("logits", "confidence", "expected_return", "expected_volatility", "position_size")


def groups(network: Any) -> list[list[Any]]:
    """Layers in the order in which they are unfrozen: heads and decision layers, attention, LSTMs last to first."""
    head = [getattr(network, name) for name in HEADS] + list(network.decision) + list(network.columns)
    middle = [network.attention, network.attention_norm, network.symbol_embedding]
    middle += [network.regime, network.volatility_regime, network.trend]
    return [head, middle, *[[layer] for layer in reversed(network.recurrent)]]


def freeze(network: Any, trained_groups: int) -> None:
    """Leave only the first `trained_groups` groups trainable."""
    for number, layers in enumerate(groups(network)):
        for layer in layers:
            layer.trainable = number < trained_groups


def reset_heads(network: Any, fresh: Any) -> None:
    """Give decision layers and answer heads the weights of an untrained network."""
    for ours, new in zip(groups(network)[0], groups(fresh)[0], strict=True):
        ours.set_weights(new.get_weights())


def copy_of(parent: TrainedModel, seed: int) -> Any:
    """A network of the parent's architecture and weights, independent of it; floats even where it has eight bits."""
    parent = full_precision(parent)
    network = make_network(parent.info.kind, parent.architecture, seed)
    network.set_weights(parent.network.get_weights())
    return network


def train_symbol(
    parent: TrainedModel | Path,
    dataset: Dataset,
    symbol: str,
    fold: Fold,
    settings: Settings,
    out_dir: Path,
    *,
    progress: Callable[[str], None] | None = None,
) -> TrainedModel:
    """Fit one symbol's model from its parent.

    Args:
        parent: a network, or the folder of one.
        dataset: rows of all symbols or of this one; features in the parent's order.
        fold: spans of all symbols' rows; only this symbol's rows are used.
        out_dir: receives the model's files.

    Raises:
        DataError: too few rows of this symbol, or one class only.
        ModelError: the parent is missing, corrupted, or of another feature generation.
    """
    if not isinstance(parent, TrainedModel):
        parent = TrainedModel.load(Path(parent))
    if parent.info.kind != "network":
        raise ModelError(
            f"A {parent.info.kind} model cannot be the parent of a symbol's network.",
            hint="Pass the universal network.",
        )
    parent.check(dataset)
    parent.check_symbols(dataset)
    common.begin(settings)
    dataset, mine = common.alone(dataset, fold, symbol)
    config = settings.training
    targets = target_rows.make(dataset, mine.train, parent.info.thresholds, config, settings.labels)
    network = copy_of(parent, settings.seed)
    _warm_embedding(network, dataset, parent, symbol)
    number = len(groups(network))
    stages = {"staged": [1, 2, number], "head": [1], "full": [number]}[config.transfer_mode]
    if config.transfer_mode == "head":
        reset_heads(network, make_network("network", parent.architecture, settings.seed + 1))
    epochs = _share(config.transfer_epochs, len(stages))
    histories = []
    plan = trainer.Plan.of(config, settings.model.preset)
    plan = replace(
        plan,
        batch_size=min(plan.batch_size, max(16, len(mine.train) // 8)),
        # One symbol's share of what an epoch over several draws.
        epoch_rows=plan.epoch_rows and max(1, plan.epoch_rows // SYMBOL_SHARE),
        validation_rows=plan.validation_rows and max(1, plan.validation_rows // SYMBOL_SHARE),
    )
    steps = trainer.make_steps(network, dataset, targets, config.loss)
    validation = mine.validation if len(mine.validation) else mine.calibration
    for stage, (trained_groups, stage_epochs) in enumerate(zip(stages, epochs, strict=True)):
        freeze(network, trained_groups)
        stage_plan = replace(
            plan,
            max_epochs=stage_epochs,
            # Deeper groups move more slowly, so that what the parent knows is not washed out.
            peak_rate=config.transfer_learning_rate * 0.5**stage,
        )
        histories.append(
            trainer.fit(
                network,
                dataset,
                mine.train,
                validation,
                targets,
                config,
                stage_plan,
                seed=settings.seed + stage,
                checkpoint=Path(out_dir) / f"checkpoint-{stage}.npz",
                steps=steps,
                start_best=True,
                progress=progress,
            )
        )
    freeze(network, number)
    calibrated = common.calibrate(network, dataset, mine.calibration, targets.arrays["label"])
    facts = {
        **common.facts_of(targets, mine, ()),
        "stages": [curves(history) for history in histories],
        # New heads start from nothing, so their first loss is not the parent's.
        "parent_validation_loss": None if config.transfer_mode == "head" else histories[0].start_loss,
        "best_validation_loss": histories[-1].best_loss,
        "training_seconds": round(sum(history.seconds for history in histories), 2),
        "calibration": calibrated,
        "transfer": config.transfer_mode,
        "parent_symbol": parent.info.symbol,
        "parent_cutoff": parent.info.cutoff,
        "parameters": int(network.count_params()),
        "preset": settings.model.preset,
    }
    info = describe("network", symbol, dataset, fold, settings, parent.info.thresholds, facts)
    model = TrainedModel(network, info, dict(parent.reference))
    model.reference["distance"] = common.reference(
        dataset, mine.train, parent.reference["mean"], parent.reference["scale"], {}
    )["distance"]
    return finish(model, dataset, mine, targets.arrays["label"], Path(out_dir))


def _warm_embedding(network: Any, dataset: Dataset, parent: TrainedModel, symbol: str) -> None:
    """Start an unseen symbol's embedding from the unknown symbol's."""
    if symbol in parent.info.symbols:
        return
    position = dataset.symbols.index(symbol) + 1
    table = np.array(network.symbol_embedding.embeddings)
    table[position] = table[0]
    network.symbol_embedding.embeddings.assign(table)


def _share(epochs: int, stages: int) -> list[int]:
    """Epochs of each stage; the last one gets what is left."""
    each = max(1, epochs // stages)
    return [each] * (stages - 1) + [max(1, epochs - each * (stages - 1))]

"""Steps that train: linear baseline and universal network, then the ensemble and symbols' own models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from barcast.steps._record import Run, step


@step
def train_universal(run: Run, dataset_path: str, linear_path: str, universal_path: str) -> dict[str, float]:
    """Both models that every symbol can fall back on, exported.

    Returns:
        Figures of the network's training for the run's metrics.
    """
    from barcast import datasets, splits, training
    from barcast.training import seeds

    dataset = datasets.load(Path(dataset_path))
    fold = splits.holdout(dataset.rows, run.config.splits)
    inputs = training.fit_inputs(dataset, fold.train, run.config)
    run.note(f"models read {len(inputs.selected)} of {dataset.num_features} features")
    run.note("linear baseline")
    linear = training.train_linear(dataset, fold, run.config, run.folder / "linear", inputs=inputs)
    linear.export(Path(linear_path))
    with seeds.beside(
        Path(dataset_path), fold, run.config, run.folder, inputs=inputs, linear=run.folder / "linear"
    ) as noise:
        network = training.train_universal(
            dataset,
            fold,
            run.config,
            run.folder / "universal",
            inputs=inputs,
            linear=linear,
            on_epoch=lambda epoch, figures: run.note(_epoch(epoch, figures)),
        )
        if run.config.training.noise_seeds:
            run.note("the same network with another seed: how much of a gain is luck")
        found = noise(network)
    network = training.compressed(network, dataset, fold, run.config).with_facts(seed_noise=found)
    network.export(Path(universal_path))
    figures = network.summary()
    run.note(f"{len(fold.train):,} training rows, {_parameters(network):,} parameters, {_figures(figures)}")
    return figures


def _epoch(epoch: int, figures: dict[str, float]) -> str:
    loss, held_out, seconds = (figures[name] for name in ("judged", "val_judged", "seconds"))
    return f"epoch {epoch + 1}: loss {loss:.4f}, validation {held_out:.4f}, {seconds:.1f} s"


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in list(figures.items())[:4])


def _parameters(model: Any) -> int:
    return int(model.network.count_params())


@step
def train_symbols(
    run: Run, batch: str, dataset_path: str, linear_path: str, universal_path: str, models_path: str
) -> dict[str, Any]:
    """The models of the batch, side by side in worker processes; one failure stops no other.

    Returns:
        Models trained and those that failed, with the reason.
    """
    Path(models_path).mkdir(parents=True, exist_ok=True)
    if not json.loads(batch):
        run.note("no symbol has bars enough for a model of its own")
        return {"trained": "[]", "failed": "{}"}
    from barcast import datasets, splits
    from barcast.training.symbols import train_symbols as train_all

    source = Path(dataset_path)
    outcomes = train_all(
        Path(universal_path),
        source,
        json.loads(batch),
        splits.holdout(datasets.load(source).rows, run.config.splits),
        run.config,
        run.folder,
        linear=Path(linear_path),
        export_dir=Path(models_path),
        progress=run.note,
    )
    trained = [outcome.symbol for outcome in outcomes if outcome.folder is not None]
    failed = {outcome.symbol: outcome.error for outcome in outcomes if outcome.folder is None}
    run.note(", ".join(trained) + (f"; failed: {', '.join(failed)}" if failed else ""))
    return {"trained": json.dumps(trained), "failed": json.dumps(failed)}

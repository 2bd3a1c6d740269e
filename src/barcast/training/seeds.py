"""How far two trainings of the same thing lie apart: the floor under every gain that a gate may believe.

While a network is trained, the same configuration is trained beside it with other seeds; the spread of mean net return
and log loss between all of them comes out. Test rows are not looked at: validation and calibration rows serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import datasets
from barcast.evaluation import gate
from barcast.splits import Fold
from barcast.training.inputs import Inputs
from barcast.training.trained import TrainedModel
from barcast.training.universal import train_universal
from barcast.workers import Workers

Noise = Callable[[TrainedModel], dict[str, float]]


@contextmanager
def beside(
    dataset: Path, fold: Fold, config: Any, out_dir: Path, *, inputs: Inputs, linear: Path
) -> Iterator[Noise]:
    """Train `config.training.noise_seeds` further networks in processes of their own while the block trains the first;
    on one core or on a GPU, which two processes cannot share, they are trained when the noise is asked for.

    Args:
        dataset: the folder that `datasets.save` wrote.
        config: `barcast.config.Config` of the first network, with its inputs.
        linear: folder of the baseline of the same fold.

    Yields:
        noise(model): standard deviation between all of them of `net_return` (mean per row) and `log_loss`, for
        `gate.Scored`; empty where no further seed is wanted.
    """
    import tensorflow as tf

    seeds = [config.seed + 1 + k for k in range(config.training.noise_seeds)]
    tasks = {
        str(seed): (
            _trained,
            dataset,
            fold,
            config.model_copy(update={"seed": seed}),
            out_dir / f"seed-{seed}",
            inputs,
            linear,
        )
        for seed in seeds
    }
    shared = bool(tf.config.list_physical_devices("GPU"))
    with Workers(config.training.workers, most=max(1, len(seeds)), beside=not shared) as pool:
        others = pool.run(tasks)

        def noise(model: TrainedModel) -> dict[str, float]:
            if not seeds:
                return {}
            frames = [predictions(model, datasets.load(dataset), fold)]
            for _, found in others:
                if isinstance(found, Exception):
                    raise found
                frames.append(found)
            return gate.seed_noise(frames, config.costs, horizon_bars=config.horizon_bars)

        yield noise


def predictions(model: TrainedModel, dataset: datasets.Dataset, fold: Fold) -> pl.DataFrame:
    """What is compared between seeds."""
    rows = np.concatenate([fold.validation, fold.calibration])
    return model.predictions(dataset, rows, thresholds=model.info.thresholds)


def _trained(
    dataset: Path, fold: Fold, config: Any, out_dir: Path, inputs: Inputs, linear: Path
) -> pl.DataFrame:
    """One further training in a worker process."""
    rows = datasets.load(dataset)
    model = train_universal(rows, fold, config, out_dir, inputs=inputs, linear=TrainedModel.load(linear))
    return predictions(model, rows, fold)

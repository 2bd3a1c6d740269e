"""One universal training over several processes: each takes its share of every batch, gradients are summed.

TensorFlow's own TF_CONFIG (set by Kubeflow Trainer, by the Job of `k8s/components/training-job`, or by hand) names the
workers; `trainer.make_steps` then takes the steps of this module, and everything else is the one trainer. Weights,
loss and stopping are the same in every process, and equal to those of one process with the same batches: a worker's
loss counts by the share of the batch's weight that it holds. One process per GPU; on CPUs one per machine.

    python -m barcast.training.multi_worker DATASET OUT [CONFIG]

DATASET is a folder of `datasets.save`, or the word `bars`: each worker then builds it from the workspace's bars.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from barcast.config.models import LossConfig
from barcast.datasets import Dataset
from barcast.errors import ConfigError, ModelError
from barcast.training.steps import TensorFlowSteps, Term
from barcast.training.targets import Targets


def place(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(this worker's number, number of workers) by TF_CONFIG; (0, 1) without it.

    Raises:
        ConfigError: TF_CONFIG is no JSON, or its task is none of its workers.
    """
    text = environment.get("TF_CONFIG", "")
    if not text:
        return 0, 1
    try:
        given = json.loads(text)
        workers = len(given["cluster"]["worker"])
        task = given["task"]
        index = int(task["index"])
        known = task["type"] == "worker" and 0 <= index < workers
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"TF_CONFIG cannot be read ({type(error).__name__}: {error}).",
            hint='It is like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            '"task": {"type": "worker", "index": 0}}.',
        ) from error
    if not known:
        raise ConfigError(
            f"TF_CONFIG says this is {task['type']} {index} of {workers} workers.",
            hint="Give each process type `worker` and an index from 0; there are no other types here.",
        )
    return index, workers


@cache
def strategy() -> Any:
    """TensorFlow's strategy of this process, connected to the other workers; None for one process.

    It must be made before TensorFlow computes anything.

    Raises:
        ConfigError: TF_CONFIG is wrong.
        ModelError: the workers cannot be joined.
    """
    if place()[1] == 1:
        return None
    import tensorflow as tf

    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        raise ModelError(
            f"The workers of TF_CONFIG cannot be joined: {str(error).splitlines()[0]}",
            hint="Start all of them, make the strategy before anything else, and check that their ports are reachable.",
        ) from error


def _sum(values: np.ndarray) -> np.ndarray:
    """The sum of an array over all workers; each waits for the others."""
    import tensorflow as tf

    found = strategy()

    @tf.function
    def reduce(local: Any) -> Any:
        def body(value: Any) -> Any:
            placed = tf.identity(value)  # an argument stands on no device yet, and the sum asks for one
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, placed)

        return found.run(body, args=(local,))

    return np.asarray(reduce(tf.constant(values)))


class MultiWorkerSteps(TensorFlowSteps):
    """The trainer's steps over this worker's share of the rows; the same arguments as `TensorFlowSteps`."""

    def __init__(
        self,
        network: Any,
        dataset: Dataset,
        targets: Targets,
        config: LossConfig,
        *,
        term: Term | None = None,
    ) -> None:
        super().__init__(network, dataset, targets, config, term=term)
        self.strategy = strategy()
        self.index, self.workers = place()

    def begin(self, optimiser: Any) -> None:
        """As there; all workers must hold the same weights now."""
        super().begin(optimiser)
        self._same_start()

    def _same_start(self) -> None:
        """All begin with the same weights: those of a seed, or of one checkpoint.

        Raises:
            ModelError: they do not.
        """
        ours = np.array([float(np.abs(np.asarray(v)).sum()) for v in self.network.weights], np.float64)
        if not np.allclose(_sum(ours), self.workers * ours, rtol=1e-6):
            raise ModelError(
                f"Worker {self.index} starts from other weights than the others.",
                hint="Give all workers the same dataset, configuration, seed and checkpoint.",
            )

    def _train_step(self, rows: Any) -> dict[str, Any]:
        import tensorflow as tf

        def gradients_of(rows: Any) -> tuple[list[Any], dict[str, Any]]:
            context = tf.distribute.get_replica_context()
            weight = tf.reduce_sum(tf.gather(self.targets["weight"], rows))
            share = weight / context.all_reduce(tf.distribute.ReduceOp.SUM, weight)
            with tf.GradientTape() as tape:
                total, found = self._loss(rows, training=True)
                scaled = self.optimiser.scale_loss(total * share)
            gradients = tape.gradient(scaled, self.variables)
            dense = [
                tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
                for g, v in zip(gradients, self.variables, strict=True)
            ]
            scalars = {name: value * share for name, value in {"loss": total, **found}.items()}
            reduced: tuple[list[Any], dict[str, Any]] = context.all_reduce(
                tf.distribute.ReduceOp.SUM, (dense, scalars)
            )
            return reduced

        gradients, found = self.strategy.run(gradients_of, args=(rows,))
        # Applied outside the strategy: each process keeps its own equal copy of the variables, clipped as one.
        self._update.apply(gradients)
        return dict(found)

    def train(self, rows: np.ndarray) -> dict[str, Any]:
        """One update on these rows, of which this worker computes every n-th.

        Raises:
            ModelError: fewer rows than workers.
        """
        if len(rows) < self.workers:
            raise ModelError(
                f"A batch of {len(rows)} rows cannot be shared by {self.workers} workers.",
                hint="Raise training.batch_size, or take fewer workers.",
            )
        return super().train(rows[self.index :: self.workers])

    def evaluate(self, rows: np.ndarray, batch_size: int = 1024) -> dict[str, float]:
        """Mean loss and parts over rows, each worker computing its share; the same numbers in all."""
        own = rows[self.index :: self.workers]
        found = super().evaluate(own, batch_size)
        names = sorted(found) if len(own) else sorted(super().evaluate(rows[:1], batch_size))
        sums = np.array([*(found.get(name, 0.0) * len(own) for name in names), len(own)], np.float64)
        total = _sum(sums)
        return {name: float(value / total[-1]) for name, value in zip(names, total, strict=False)}


def train(dataset_folder: Path | None, out: Path, settings: Any) -> Path | None:
    """Train the universal network with the other workers of TF_CONFIG; worker 0 writes.

    A run that was killed goes on from the checkpoint in `out`, which all workers must be able to read.

    Args:
        dataset_folder: written by `datasets.save`, readable by all workers; None builds from the workspace's bars.
        out: worker 0 keeps the checkpoint and the model here.

    Returns:
        The exported model's folder; None in the other workers.
    """
    from barcast import datasets, splits
    from barcast.bars.ingest import open_store
    from barcast.training import train_universal
    from barcast.training.prepare import from_bars

    strategy()  # before TensorFlow computes anything
    index, workers = place()
    if dataset_folder is not None:
        dataset = datasets.load(dataset_folder)
    else:
        dataset = from_bars(open_store(settings, settings.open_workspace()).read(), settings)
    fold = splits.holdout(dataset.rows, settings.splits)
    path = None
    if index == 0:
        model = train_universal(dataset, fold, settings, out / "fit", progress=print)
        path = model.export(out / "export")
    else:
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = out / "fit" / "checkpoint.npz"
            if checkpoint.exists():
                shutil.copy(checkpoint, scratch)
            train_universal(dataset, fold, settings, Path(scratch))
    if workers > 1:
        _sum(np.ones(1))  # one that left early would look to the others like one that died
    return path


def main(arguments: list[str]) -> int:
    """The command line in the module's docstring."""
    from barcast import logs
    from barcast.config import load
    from barcast.errors import BarcastError

    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    logs.configure()
    try:
        settings = load(Path(arguments[2]) if len(arguments) == 3 else None)
        path = train(None if arguments[0] == "bars" else Path(arguments[0]), Path(arguments[1]), settings)
    except BarcastError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"exported to {path}" if path else "done")
    return 0


if __name__ == "__main__":
    from barcast.training import (
        multi_worker,
    )  # not this copy of it, which `-m` made: all must share one strategy

    sys.exit(multi_worker.main(sys.argv[1:]))

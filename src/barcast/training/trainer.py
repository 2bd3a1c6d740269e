"""The one trainer: epochs of its own steps, validation, early stopping, checkpoints, recovery.

A built network, a dataset and row numbers go in; the network comes out with its best weights, together with
the learning curves. Every way of training (universal, transfer, continual, distillation) is this loop with
other rows, other trainable variables or an extra term in the loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from barcast import logs
from barcast.config.models import LossConfig, TrainingConfig
from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.models import losses
from barcast.models.presets import PRESETS, Preset
from barcast.training import checkpoints
from barcast.training.common import spread
from barcast.training.optimiser import adamw, learning_rate
from barcast.training.steps import TensorFlowSteps, Term
from barcast.training.targets import Targets

log = logs.get("training")


@dataclass(frozen=True)
class Plan:
    """Numbers of one run, after presets are resolved."""

    batch_size: int
    max_epochs: int
    patience_epochs: int
    peak_rate: float
    epoch_rows: int | None = None
    validation_rows: int | None = None

    @classmethod
    def of(cls, config: TrainingConfig, preset: str) -> Plan:
        base: Preset = PRESETS[preset]
        return cls(
            batch_size=config.batch_size or base.batch_size,
            max_epochs=config.max_epochs or base.max_epochs,
            patience_epochs=config.patience_epochs or base.patience_epochs,
            peak_rate=config.learning_rate,
            epoch_rows=config.max_epoch_rows or base.epoch_rows,
            validation_rows=config.max_validation_rows or base.validation_rows,
        )


@dataclass
class History:
    """Learning curves and what happened on the way.

    Attributes:
        epochs: one dict an epoch: `epoch, seconds, learning_rate, batch_size, loss, val_loss`, loss parts, and
            `judged, val_judged`, what decides which epoch is kept (`losses.judged`).
        best_epoch: epoch whose weights were kept; -1 for those given.
        best_loss, start_loss: `val_judged` of the weights kept, and of those given where `start_best` asked for it.
        events: restores, halved batches, resumes.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    start_loss: float | None = None
    seconds: float = 0.0
    events: list[str] = field(default_factory=list)


@dataclass
class _State:
    epoch: int = 0
    step: int = 0
    waited: int = 0
    rate_scale: float = 1.0
    batch_size: int = 0
    restarts: int = 0
    history: History = field(default_factory=History)


def fit(
    network: Any,
    dataset: Dataset,
    train: np.ndarray,
    validation: np.ndarray,
    targets: Targets,
    config: TrainingConfig,
    plan: Plan,
    *,
    seed: int,
    checkpoint: Path | None = None,
    steps: Any = None,
    term: Term | None = None,
    epoch_rows: Callable[[int, np.random.Generator], np.ndarray] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    progress: Callable[[str], None] | None = None,
    start_best: bool = False,
) -> History:
    """Train and leave the best weights in `network`.

    Args:
        train, validation: row numbers of `dataset`.
        checkpoint: file to resume from if there, written every `checkpoint_epochs`, removed when done.
        steps: of `make_steps` over the same network and dataset, to fit again without compiling all anew.
        term: extra loss, where no `steps` are given.
        epoch_rows: the rows of an epoch, already in order; all of `train` in random order when None.
        progress: told one line an epoch.
        start_best: the weights given count as a result of their own: training must beat them to be kept.
        on_epoch: called after each epoch with its numbers; may raise to end the run (a pruned trial).

    Raises:
        ModelError: the loss stays NaN after `nan_restarts` restores, or a checkpoint does not fit.
    """
    if plan.validation_rows is not None:
        validation = spread(validation, plan.validation_rows)
    optimiser = adamw(config)
    steps = steps or make_steps(network, dataset, targets, config.loss, term)
    steps.begin(optimiser)
    variables = checkpoints.all_variables(network) + list(optimiser.variables)
    weights = list(network.weights)
    mark = checkpoints.fingerprint(
        [list(v.shape) for v in variables],
        config.model_dump(mode="json"),
        vars(plan),
        seed,
        train,
        dataset.features[:: max(1, len(dataset.features) // 1000)],
    )
    state = _State(batch_size=min(plan.batch_size, len(train)))
    best = [np.asarray(w) for w in weights]
    if checkpoint is not None and checkpoint.exists():
        state, best = _resume(checkpoint, mark, variables)
    elif start_best:
        start_loss = losses.judged(steps.evaluate(validation), config.loss)
        state.history.best_loss = state.history.start_loss = start_loss
    started = time.perf_counter() - state.history.seconds

    def keep() -> None:
        if checkpoint is not None:
            state.history.seconds = time.perf_counter() - started
            saved = {**vars(state), "history": vars(state.history), "mark": mark}
            extra = {f"{i:04d}": value for i, value in enumerate(best)}
            checkpoints.save(checkpoint, variables=variables, extra=extra, state=saved)

    snapshot = [np.asarray(v) for v in variables]
    while state.epoch < plan.max_epochs and state.waited < plan.patience_epochs:
        began = time.perf_counter()
        try:
            learned, rate = _epoch(steps, optimiser, state, config, plan, train, seed, epoch_rows)
        except Exception as error:
            if not _out_of_memory(error) or state.batch_size <= 1:
                raise
            state.batch_size //= 2
            _say(state, f"epoch {state.epoch}: out of memory, batch halved to {state.batch_size}")
            _assign(variables, snapshot)
            continue
        found = steps.evaluate(validation)
        if not (math.isfinite(learned["loss"]) and math.isfinite(found["loss"])):
            state.restarts += 1
            if state.restarts > config.nan_restarts:
                raise ModelError(
                    f"The loss is not finite in epoch {state.epoch}, "
                    f"after {config.nan_restarts} restores with lower learning rates.",
                    hint="Lower training.learning_rate, or look for extreme values in the features.",
                )
            state.rate_scale *= 0.5
            _say(state, f"epoch {state.epoch}: loss not finite, restored at {state.rate_scale:g} of the rate")
            _assign(variables, snapshot)
            continue
        judged = losses.judged(found, config.loss)
        numbers = {
            "epoch": state.epoch,
            "seconds": time.perf_counter() - began,
            "learning_rate": rate,
            "batch_size": state.batch_size,
            **learned,
            **{f"val_{name}": value for name, value in found.items()},
            "judged": losses.judged(learned, config.loss),
            "val_judged": judged,
        }
        state.history.epochs.append(numbers)
        if judged < state.history.best_loss - 1e-6:
            state.history.best_loss, state.history.best_epoch, state.waited = judged, state.epoch, 0
            best = [np.asarray(w) for w in weights]
        else:
            state.waited += 1
        state.epoch += 1
        log.info("epoch", **{k: round(v, 5) for k, v in numbers.items()})
        snapshot = [np.asarray(v) for v in variables]
        if state.epoch % config.checkpoint_epochs == 0:
            keep()
        if progress is not None:
            progress(
                f"epoch {state.epoch}/{plan.max_epochs}: loss {numbers['judged']:.4f}, "
                f"validation {judged:.4f}, {numbers['seconds']:.1f} s"
            )
        if on_epoch is not None:
            on_epoch(state.epoch - 1, numbers)
    _assign(weights, best)
    state.history.seconds = time.perf_counter() - started
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return state.history


def make_steps(
    network: Any, dataset: Dataset, targets: Targets, loss: LossConfig, term: Term | None = None
) -> Any:
    """The steps of the Keras backend in use.

    Raises:
        ModelError: a backend without steps of its own.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        from barcast.training import multi_worker

        if multi_worker.place()[1] > 1:
            return multi_worker.MultiWorkerSteps(network, dataset, targets, loss, term=term)
        return TensorFlowSteps(network, dataset, targets, loss, term=term)
    if backend == "jax":
        from barcast.training.steps_jax import JaxSteps

        return JaxSteps(network, dataset, targets, loss, term=term)
    raise ModelError(
        f"The trainer has no steps for the Keras backend {backend!r}.",
        hint="Set KERAS_BACKEND to tensorflow or jax.",
    )


def _resume(path: Path, mark: str, variables: list[Any]) -> tuple[_State, list[np.ndarray]]:
    saved = checkpoints.read_state(path)
    found = saved.pop("mark", None)
    extra = checkpoints.restore(path, variables=variables)
    if found != mark:
        raise ModelError(
            f"The checkpoint {path.name} was written for other settings or other data.",
            hint="Delete it, or train into another folder.",
        )
    history = History(**saved.pop("history"))
    history.events.append(f"resumed at epoch {saved['epoch']}")
    return _State(**saved, history=history), [extra[name] for name in sorted(extra)]


def _epoch(
    steps: Any,
    optimiser: Any,
    state: _State,
    config: TrainingConfig,
    plan: Plan,
    train: np.ndarray,
    seed: int,
    epoch_rows: Callable[[int, np.random.Generator], np.ndarray] | None,
) -> tuple[dict[str, float], float]:
    """One pass; mean loss and parts, and the last learning rate."""
    random = np.random.default_rng([seed, state.epoch])
    rows = epoch_rows(state.epoch, random) if epoch_rows is not None else random.permutation(train)
    if plan.epoch_rows is not None:
        rows = rows[: plan.epoch_rows]
    size = min(state.batch_size, len(rows))
    batches = max(1, len(rows) // size)
    rates = state.rate_scale * np.array(
        [
            learning_rate(
                state.epoch * batches + number,
                plan.max_epochs * batches,
                peak=plan.peak_rate,
                warmup_share=config.warmup_share,
                last_share=config.min_learning_rate_share,
            )
            for number in range(batches)
        ]
    )
    found = steps.epoch(rows[: batches * size].reshape(batches, size), rates)
    state.step += batches
    return found, float(rates[-1])


def _out_of_memory(error: Exception) -> bool:
    # JAX says it in the text only.
    return (
        isinstance(error, MemoryError)
        or "ResourceExhausted" in type(error).__name__
        or "RESOURCE_EXHAUSTED" in str(error)
    )


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _say(state: _State, text: str) -> None:
    state.history.events.append(text)
    log.warning(text)

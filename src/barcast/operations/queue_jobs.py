"""What a worker does for a job: `renew` takes a model the whole way to the gate, `train` only makes an export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from barcast import clock, logs, names
from barcast.config import Config
from barcast.errors import DataError, ModelError, RefusedError, did_you_mean
from barcast.operations.queue import RECALIBRATE, Lease

_PAUSE_SECONDS = 5.0


def renew(config: Config, job: Lease) -> dict[str, Any]:
    """Run the pipeline `retraining` for `job.symbol` (or "universal"): newest bars, a new version, the gate.

    One run of a workspace goes on at a time on one machine; while another does, the job waits for its end.

    Returns:
        `run` and how it ended.

    Raises:
        RunFailedError: a step failed; with its message.
    """
    from barcast.operations.runs import new_run_id, outcome, run_pipeline

    mode = RECALIBRATE if job.reason == RECALIBRATE else "update"
    log = logs.get("queue")
    while True:
        run_id = new_run_id("retraining")
        try:
            for event in run_pipeline(config, "retraining", run_id, models=job.symbol, mode=mode):
                log.info("step", run=run_id, step=event.step, event_kind=event.event, text=event.text)
        except RefusedError:
            time.sleep(_PAUSE_SECONDS)
            continue
        return {"run": run_id, "mode": mode, "outcome": outcome(config, run_id)}


def train(config: Config, job: Lease) -> dict[str, Any]:
    """Train `job.symbol` on what the table of bars holds now; the export waits in the workspace's runs.

    For workers that run side by side and hand their exports to a pipeline of one's own.

    Returns:
        `model` (folder of the export), `trained_seconds` and other figures of the training.

    Raises:
        DataError: the symbol has no usable rows.
        ModelError: no universal model is live to start from.
    """
    from barcast import splits, training
    from barcast.bars.ingest import open_store
    from barcast.training.prepare import from_bars

    workspace = config.open_workspace()
    parent = live_universal(config)
    if parent is None:
        raise ModelError("There is no universal model to start from.", hint="Run `barcast run` first.")
    dataset = from_bars(open_store(config, workspace).read(), config)
    if job.symbol not in dataset.symbols:
        raise DataError(
            f"There are no usable rows of {job.symbol!r}.", hint=did_you_mean(job.symbol, dataset.symbols)
        )
    fold = splits.holdout(dataset.rows, config.splits)
    folder = workspace.runs / f"queue-{names.slug(job.symbol)}-{clock.now():%Y%m%dT%H%M%S}-{job.id}"
    model = training.train_symbol(
        training.TrainedModel.load(parent), dataset, job.symbol, fold, config, folder / "fit"
    )
    return {"model": str(model.export(folder / "export")), **model.summary()}


def live_universal(config: Config) -> Path | None:
    """The folder of the universal model that answers now."""
    from barcast.registry import Registry

    workspace = config.open_workspace()
    registry = Registry(workspace, config.registry)
    model = registry.state().models.get(registry.model_name(None))
    if model is None or model.champion is None:
        return None
    folder: Path = workspace.models / model.name / str(model.champion)
    return folder

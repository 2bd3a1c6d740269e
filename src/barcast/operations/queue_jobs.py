"""What a worker does for a job: train the symbol's own model from the live universal one and export it.

The export waits in the workspace's runs; going live is the gate's matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from barcast import clock, names
from barcast.config import Config
from barcast.errors import DataError, ModelError, did_you_mean
from barcast.operations.queue import Lease


def train(config: Config, job: Lease) -> dict[str, Any]:
    """Train `job.symbol` on what the table of bars holds now.

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

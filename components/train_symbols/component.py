"""Symbols' own models, by transfer from the universal one; a batch of symbols in one pod."""

from kfp import dsl

from components.step import step


@step
def train_symbols(
    config: str,
    data: str,
    batch: str,
    dataset: dsl.Input[dsl.Dataset],
    universal: dsl.Input[dsl.Model],
    models: dsl.Output[dsl.Model],
):
    """Fine-tune, calibrate and export one model per symbol of the batch.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        batch: the symbols, a JSON list.
        dataset: the folder from `build_dataset`.
        universal: the parent model.
        models: a folder with one exported model per symbol.
    """
    from barcast import steps

    models.metadata.update(
        steps.train_symbols(config, data, batch, dataset.path, universal.path, models.path)
    )

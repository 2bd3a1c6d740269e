"""Models of a batch in one pod: the ensemble, and symbols' own models by transfer."""

from kfp import dsl

from components.step import step


@step
def train_symbols(
    config: str,
    data: str,
    batch: str,
    dataset: dsl.Input[dsl.Dataset],
    linear: dsl.Input[dsl.Model],
    universal: dsl.Input[dsl.Model],
    models: dsl.Output[dsl.Model],
):
    """Fine-tune, calibrate and export one model per symbol of the batch, and join the ensemble where it is named.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        batch: the symbols, and `_ensemble`, a JSON list.
        dataset: the folder from `build_dataset`.
        linear: the linear baseline, a member of the ensemble.
        universal: the parent model.
        models: a folder with one exported model per name.
    """
    from barcast import steps

    models.metadata.update(
        steps.train_symbols(config, data, batch, dataset.path, linear.path, universal.path, models.path)
    )

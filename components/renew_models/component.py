"""New versions of live models on the newest bars; a batch of models in one pod."""

from kfp import dsl

from components.step import step


@step
def renew_models(
    config: str,
    run_id: str,
    batch: str,
    mode: str,
    dataset: dsl.Input[dsl.Dataset],
    linear: dsl.Input[dsl.Model],
    universal: dsl.Input[dsl.Model],
    own: dsl.Input[dsl.Model],
    models: dsl.Output[dsl.Model],
):
    """Learn on, start anew or calibrate again, and export.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        batch: the models, a JSON list of symbols, `universal` or `_linear`.
        mode: `update`, `anew` or `recalibrate`.
        dataset: the folder from `build_dataset`.
        linear: what answers now, from `live_models`.
        universal: likewise.
        own: a folder with symbols' own live models.
        models: a folder with one exported model per name of the batch.
    """
    from barcast import steps

    models.metadata.update(
        steps.renew_models(
            config, run_id, batch, mode, dataset.path, linear.path, universal.path, own.path, models.path
        )
    )

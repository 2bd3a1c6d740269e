"""TFX's sliced model analysis on predictions already made: no symbol, regime, hour or confidence band is let down."""

from kfp import dsl

from components.step import step


@step
def analyze(
    config: str, run_id: str, predictions: dsl.Input[dsl.Dataset], blessing: dsl.Output[dsl.Artifact]
):
    """Bless the universal model, or say on which slice it fails its thresholds.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        predictions: the per-row results from `evaluate`.
        blessing: verdict, sentence and table of slices, as JSON.
    """
    from barcast import steps

    steps.analyze(config, run_id, predictions.path, blessing.path)

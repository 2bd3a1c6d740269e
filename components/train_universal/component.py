"""The linear baseline and the universal network over all symbols."""

from kfp import dsl

from components.step import step


@step
def train_universal(
    config: str,
    data: str,
    dataset: dsl.Input[dsl.Dataset],
    linear: dsl.Output[dsl.Model],
    universal: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train, calibrate and export both models.

    Args:
        config: the run's configuration as JSON.
        data: content hash of the bars.
        dataset: the folder from `build_dataset`.
        linear: the exported linear baseline.
        universal: the exported universal network.
        metrics: training figures of the network.
    """
    from barcast import steps

    figures = steps.train_universal(config, data, dataset.path, linear.path, universal.path)
    for name, value in figures.items():
        metrics.log_metric(name, value)

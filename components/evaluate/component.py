"""Every candidate, every present champion and the baselines on the same held-out rows; the report."""

from kfp import dsl

from components.step import step


@step
def evaluate(
    config: str,
    run_id: str,
    bars: dsl.Input[dsl.Dataset],
    dataset: dsl.Input[dsl.Dataset],
    linear: dsl.Input[dsl.Model],
    universal: dsl.Input[dsl.Model],
    symbols: dsl.Input[list[dsl.Model]],
    only_own: bool,
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
):
    """Score the exported models and say how good they are after costs.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        bars: the snapshot from `ingest`.
        dataset: the folder from `build_dataset`.
        linear: the linear baseline.
        universal: the universal network.
        symbols: folders of new models.
        only_own: the two models before are no candidates, but what answers now.
        predictions: a folder with the per-row results of every model.
        metrics: the universal model's figures.
        confusion: its confusion matrix.
        report: one self-contained page.
    """
    from barcast import steps

    result = steps.evaluate(
        config,
        run_id,
        bars.path,
        dataset.path,
        linear.path,
        universal.path,
        [artifact.path for artifact in symbols],
        predictions.path,
        report.path,
        only_own,
    )
    for name, value in result["metrics"].items():
        metrics.log_metric(name, value)
    confusion.log_confusion_matrix(["SELL", "HOLD", "BUY"], result["confusion"])

"""Whether data, models and serving still hold; retrainings asked for, harmful models rolled back."""

from kfp import dsl

from components.step import step


@step
def monitor(
    config: str,
    run_id: str,
    findings: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    models: dsl.OutputPath(str),
) -> str:
    """Look once, and act within the configured limits.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        findings: all readings, alerts and actions, as JSON.
        metrics: number of alerts by severity and of actions by kind.
        report: the same for people.
        models: which models need only a new calibration, separated by commas.

    Returns:
        `recalibrate` where there are such models, else `done`.
    """
    from pathlib import Path

    from barcast import steps

    counts, named = steps.monitor(config, run_id, findings.path, report.path)
    for name, value in counts.items():
        metrics.log_metric(name, value)
    Path(models).write_text(",".join(named))
    return "recalibrate" if named else "done"

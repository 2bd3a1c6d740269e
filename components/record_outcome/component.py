"""The exit step: writes down how the run ended, whatever happened."""

from kfp import dsl

from components.step import step


@step
def record_outcome(status: dsl.PipelineTaskFinalStatus, config: str, run_id: str):
    """Append the run's outcome to the workspace.

    Args:
        status: filled in by the orchestrator.
        config: the run's configuration as JSON.
        run_id: the run's name.
    """
    from barcast import steps

    steps.record_outcome(config, run_id, status.state, status.error_message or "")

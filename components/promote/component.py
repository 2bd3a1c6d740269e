"""What was approved goes live: version directory, hashes, models.config, alias, ledger."""

from components.step import step


@step
def promote(config: str, run_id: str, plan: str) -> str:
    """Put each version of the plan live.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        plan: the approved versions, from the gate or from an approval.

    Returns:
        What went live, as JSON, for the canary.
    """
    from barcast import steps

    return steps.promote(config, run_id, plan)

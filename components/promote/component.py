"""What was approved goes live: version directory, hashes, models.config, alias, ledger."""

from components.step import step


@step
def promote(config: str, run_id: str) -> str:
    """Put every approved version live.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.

    Returns:
        What went live, as JSON, for the canary.
    """
    from barcast import steps

    return steps.promote(config, run_id)

"""What was approved goes live, or an earlier version again: directory, hashes, models.config, alias, ledger."""

from components.step import step


@step
def promote(config: str, run_id: str, rollback: str, to: int, by: str, reason: str) -> str:
    """Put every approved version live; with `rollback`, an earlier version of that model instead.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        rollback: whose earlier version serves again; empty: nobody's.
        to: the version to go back to; 0: the last good one.
        by: who rolls back.
        reason: why.

    Returns:
        What went live, as JSON, for the canary.
    """
    from barcast import steps

    return steps.promote(config, run_id, rollback, to, by, reason)

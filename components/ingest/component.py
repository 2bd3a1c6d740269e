"""Bars from the configured source into the Delta table; out comes the exact snapshot this run sees."""

from kfp import dsl

from components.step import step


@step
def ingest(config: str, run_id: str, bars: dsl.Output[dsl.Dataset], start: str = "", end: str = "") -> str:
    """Append the source's bars (idempotent) and write the snapshot as Parquet.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        bars: the snapshot; its metadata hold the table's version and content hash.
        start: ask the source for bars that close after this time only (ISO 8601, UTC).
        end: up to this time only.

    Returns:
        Hash of the snapshot's content and the user's own files: with the configuration, the key of every cached step.
    """
    from barcast import steps

    bars.metadata.update(steps.ingest(config, run_id, bars.path, start, end))
    return bars.metadata["cache_key"]

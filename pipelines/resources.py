"""What each kind of step asks of the cluster; one machine ignores it."""

from typing import Any


def light(task: Any, *, side_effects: bool = False) -> Any:
    """A step that moves data: one core, 4 GiB; retried. One with side effects is never cached."""
    task.set_cpu_request("500m").set_cpu_limit("2").set_memory_request("2Gi").set_memory_limit("4Gi")
    task.set_retry(num_retries=2, backoff_duration="30s")
    task.set_caching_options(not side_effects)
    return task


def heavy(task: Any) -> Any:
    """A step that trains or scores: two cores, 8 GiB; retried; cached by data and configuration."""
    task.set_cpu_request("2").set_cpu_limit("4").set_memory_request("4Gi").set_memory_limit("8Gi")
    task.set_retry(num_retries=1, backoff_duration="60s")
    task.set_caching_options(True)
    return task

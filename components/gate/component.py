"""Champion against challenger: each candidate is compared with whatever answers for its symbol now."""

from typing import NamedTuple

from kfp import dsl

from components.step import step


@step
def gate(
    config: str, run_id: str, candidates: str, predictions: dsl.Input[dsl.Dataset]
) -> NamedTuple("Gate", [("decision", str), ("plan", str)]):
    """Judge every candidate and set the challengers.

    Args:
        config: the run's configuration as JSON.
        run_id: the run's name.
        candidates: the versions from `register`.
        predictions: the per-row results from `evaluate`.

    Returns:
        decision: `promote` when the configuration approves by itself and somebody won, else `wait` or `keep`.
        plan: what to promote, as JSON.
    """
    from typing import NamedTuple

    from barcast import steps

    gate_outputs = NamedTuple("Gate", [("decision", str), ("plan", str)])
    return gate_outputs(*steps.gate(config, run_id, candidates, predictions.path))

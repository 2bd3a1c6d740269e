"""The infrastructure check: a model server loads the candidate and answers recorded requests.

Pure: the caller gives `ask`, a function that sends a request to a server which has loaded the candidate (the
    embedded
server here, TensorFlow Serving under TFX's InfraValidator on the cluster). Recorded requests in, a `Check`
out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from barcast.evaluation.gate_types import Check

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recorded:
    """A request that was once answered in process: inputs, and the outputs that must come back."""

    inputs: Arrays
    outputs: Arrays


def check(
    ask: Callable[[Arrays], Arrays],
    recorded: Sequence[Recorded],
    *,
    tolerance: float = 1e-4,
    limit_seconds: float = 5.0,
) -> Check:
    """Send every recorded request and compare the answers.

    A server that does not answer, answers NaN, leaves an output out, differs by more than `tolerance` or
    takes more than `limit_seconds` for one request fails the check; nothing is raised, so that a gate can
    hold and say why.
    """
    if not recorded:
        return Check("infrastructure", None, "No request was recorded for this model.", "hold")
    slowest = largest = 0.0
    for number, request in enumerate(recorded, start=1):
        began = time.perf_counter()
        try:
            answer = ask(request.inputs)
        except Exception as error:
            return Check("infrastructure", False, f"request {number}: the server failed: {error}", "hold")
        slowest = max(slowest, time.perf_counter() - began)
        for name, expected in request.outputs.items():
            problem, difference = _compare(name, answer.get(name), expected, tolerance)
            if problem:
                return Check("infrastructure", False, f"request {number}: {problem}", "hold")
            largest = max(largest, difference)
    detail = f"a model server answered {len(recorded)} recorded requests within {largest:.1g} of the in-process answers"
    if slowest > limit_seconds:
        return Check("infrastructure", False, f"{detail}, but the slowest took {slowest:.1f} s", "hold")
    return Check("infrastructure", True, f"{detail}, the slowest in {slowest * 1e3:.0f} ms", "hold")


def _compare(name: str, got: np.ndarray | None, expected: np.ndarray, tolerance: float) -> tuple[str, float]:
    if got is None:
        return f"output {name!r} is missing", 0.0
    if np.shape(got) != np.shape(expected):
        return f"output {name!r} has shape {np.shape(got)}, expected {np.shape(expected)}", 0.0
    if not np.issubdtype(np.asarray(got).dtype, np.number):
        return ("" if np.array_equal(got, expected) else f"output {name!r} differs"), 0.0
    if not np.isfinite(got).all():
        return f"output {name!r} holds NaN or infinity", 0.0
    difference = (
        float(np.max(np.abs(np.asarray(got, dtype=np.float64) - expected))) if np.size(expected) else 0.0
    )
    if difference > tolerance:
        return f"output {name!r} differs by {difference:.2g} from the in-process answer", difference
    return "", difference

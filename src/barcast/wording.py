"""Numbers in sentences."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 bar`, `2 bars`, `12,154 bars`; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def state_of_run(state: str) -> str:
    """`SUCCEEDED` as `succeeded`; Kubeflow's CANCELED, which JSON and files keep, as all our messages spell it."""
    return state.lower().replace("canceled", "cancelled")

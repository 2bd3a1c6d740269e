"""The errors a user can meet. Each says what came, what was expected and what to do.

The command line prints the message and the hint and leaves with the class's exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BarcastError(Exception):
    """Base of all errors that barcast raises on purpose.

    Args:
        message: what came and what was expected.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(BarcastError):
    """A setting is unknown, missing or out of range."""

    exit_code = 2


class DataError(BarcastError):
    """Bars, features or labels cannot be used as they are."""

    exit_code = 3


class QualityError(BarcastError):
    """A critical expectation failed; the report says which."""

    exit_code = 4


class ModelError(BarcastError):
    """A model cannot be trained, loaded or exported."""

    exit_code = 5


class RegistryError(BarcastError):
    """The registry, its ledger or a served version is not in the state an action needs."""

    exit_code = 6


class ServingError(BarcastError):
    """The model server or the online store does not answer as it must."""

    exit_code = 7


class ClusterError(BarcastError):
    """Kubeflow Pipelines or Kubernetes cannot be reached or refuses."""

    exit_code = 8


class RefusedError(BarcastError):
    """A request was understood and refused; the message names the rule."""

    exit_code = 9


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known word closest to `name`, or None when nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint sentence that suggests the nearest known word; empty when nothing is near."""
    close = nearest(name, known)
    return f"Did you mean {close!r}?" if close else ""


def first_line(error: BaseException | str) -> str:
    """The first line of an error's text; its type's name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

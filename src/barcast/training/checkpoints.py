"""Checkpoints that a killed run resumes from to the same numbers.

One .npz file holds every variable of network and optimiser (random states too) and the trainer's own state;
it is written under a temporary name and renamed, so that a kill leaves the old one or the new one, never a half.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from barcast.errors import ModelError


def all_variables(network: Any) -> list[Any]:
    """Every variable of the network in a fixed order, random states included."""
    return list(network.variables)


def fingerprint(*parts: Any) -> str:
    """Hash of what must be equal for a checkpoint to fit: plain values and arrays."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str(part.shape).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def save(path: Path, *, variables: list[Any], extra: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Write atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"v{i}": np.asarray(v) for i, v in enumerate(variables)}
    arrays |= {f"x_{name}": value for name, value in extra.items()}
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """The trainer's state inside a checkpoint.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(json.loads(bytes(file["state"])))
    except Exception as error:
        raise ModelError(
            f"The checkpoint {path.name} cannot be read ({error}).", hint="Delete it to start over."
        ) from error


def restore(path: Path, *, variables: list[Any]) -> dict[str, np.ndarray]:
    """Assign every variable; gives the extra arrays.

    Raises:
        ModelError: number or shapes differ: the checkpoint belongs to another architecture.
    """
    with np.load(path, allow_pickle=False) as file:
        stored = [file[f"v{i}"] for i in range(sum(name.startswith("v") for name in file.files))]
        if [v.shape for v in stored] != [tuple(v.shape) for v in variables]:
            raise ModelError(
                f"The checkpoint {path.name} belongs to another architecture "
                f"({len(stored)} variables, the network has {len(variables)}).",
                hint="Delete it, or train into another folder.",
            )
        for variable, value in zip(variables, stored, strict=True):
            variable.assign(value)
        return {name[2:]: file[name] for name in file.files if name.startswith("x_")}

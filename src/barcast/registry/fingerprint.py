"""The fingerprint of a version: a recorded request with the answer the evaluated model gave in process.

A promotion or rollback is believed when the server, asked the same over gRPC, answers the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barcast.errors import BarcastError, RegistryError

# (model name, version, inputs by name) -> outputs by name, asked of the running model server.
Ask = Callable[[str, int, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
COMPARED = ("probabilities", "confidence", "expected_return", "position_size")


@dataclass(frozen=True)
class Recorded:
    """A request and its answer.

    Attributes:
        inputs: `window` float32 (B, T, F) of raw features, `symbol_id` int32 (B).
        outputs: arrays (B, ...) of the model's answer; those of `COMPARED` are kept.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]

    def to_json(self) -> str:
        """Text that holds every bit of the arrays."""
        kept = {k: v for k, v in self.outputs.items() if k in COMPARED}
        if not kept:
            raise RegistryError(
                f"A recorded answer has none of {', '.join(COMPARED)}; got "
                f"{', '.join(self.outputs) or 'nothing'}.",
                hint="Record the outputs of serving_default.",
            )
        return json.dumps({"inputs": _pack(self.inputs), "outputs": _pack(kept)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recorded:
        """What `to_json` wrote."""
        raw = json.loads(text)
        return cls(_unpack(raw["inputs"]), _unpack(raw["outputs"]))

    def differences(self, answer: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Largest absolute difference per output; infinite where one is missing, misshapen or not finite."""
        worst: dict[str, float] = {}
        for name, expected in self.outputs.items():
            if name not in COMPARED:
                continue
            got = np.asarray(answer[name]) if name in answer else np.empty(0)
            if got.shape != expected.shape or not np.isfinite(got).all():
                worst[name] = float("inf")
            else:
                worst[name] = float(
                    np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
                )
        return worst


def _pack(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {
            "dtype": np.asarray(array).dtype.newbyteorder("<").str,
            "shape": list(np.shape(array)),
            "data": base64.b64encode(
                np.ascontiguousarray(array, dtype=np.asarray(array).dtype.newbyteorder("<")).tobytes()
            ).decode(),
        }
        for name, array in arrays.items()
    }


def _unpack(raw: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(base64.b64decode(item["data"]), dtype=item["dtype"]).reshape(item["shape"])
        for name, item in raw.items()
    }


def record(model_dir: Path) -> Recorded:
    """Ask the SavedModel in `model_dir` in this process: two seeded windows, symbol 0 (unknown).

    Raises:
        RegistryError: it cannot be loaded or lacks `serving_default`.
    """
    import tensorflow as tf

    from barcast.models import savedmodel

    try:
        signature = savedmodel.load(model_dir).signatures["serving_default"]
        specification = signature.structured_input_signature[1]
        shape = [2 if size is None else int(size) for size in specification["window"].shape]
        shape[0] = 2
        window = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        inputs = {"window": window, "symbol_id": np.zeros(2, np.int32)}
        answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
    except Exception as error:
        raise RegistryError(
            f"{model_dir} cannot be asked as a SavedModel: {type(error).__name__}: {error}",
            hint="Export the model again; its signature serving_default takes `window` and `symbol_id`.",
        ) from error
    return Recorded(inputs, {name: value.numpy() for name, value in answer.items()})


def store(path: Path, recorded: Recorded) -> str:
    """Write the fingerprint to `path` atomically; returns its SHA-256 for the ledger."""
    from barcast.durable import write_atomic

    text = recorded.to_json()
    write_atomic(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path, expected: str) -> Recorded:
    """The fingerprint in `path`.

    Raises:
        RegistryError: the file is missing or is not the one that was registered.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if hashlib.sha256(text.encode()).hexdigest() != expected:
        raise RegistryError(
            f"The recorded answer {path} is missing or was changed.",
            hint="`barcast models verify` says more.",
        )
    return Recorded.from_json(text)


def check(
    ask: Ask, model: str, version: int, recorded: Recorded, *, tolerance: float, timeout_seconds: float
) -> dict[str, float]:
    """Ask the server until the version answers, and compare.

    Returns:
        Largest absolute difference per output, and `seconds` until the first answer.

    Raises:
        RegistryError: no answer within `timeout_seconds`, or another answer than the recorded one.
    """
    start = time.monotonic()
    while True:
        try:
            answer = ask(model, version, recorded.inputs)
            break
        except (BarcastError, OSError) as error:
            if time.monotonic() - start > timeout_seconds:
                raise RegistryError(
                    f"{model} version {version} gave no answer within {timeout_seconds:g} s: {error}",
                    hint="Look at the model server's log.",
                ) from error
            time.sleep(0.05)
    seconds = time.monotonic() - start
    worst = recorded.differences(answer)
    if not worst or max(worst.values()) > tolerance:
        raise RegistryError(
            f"{model} version {version} answers differently from what was evaluated: {worst} "
            f"(allowed {tolerance:g}).",
            hint="The served files or the server are not those that were evaluated.",
        )
    return {**worst, "seconds": seconds}

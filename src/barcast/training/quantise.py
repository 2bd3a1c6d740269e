"""Recurrent matrices, nearly all weights of a network, stored in eight bits and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from barcast.errors import ModelError
from barcast.training.trained import TrainedModel, make_network

MATRICES = ("kernel", "recurrent_kernel")


def quantise_int8(model: TrainedModel) -> TrainedModel:
    """A copy whose recurrent matrices, nearly all of its weights, are stored in eight bits.

    Each column keeps a scale of its own; an answer unpacks them to float32, so that the served signatures and the
    arithmetic stay as they are. The copy cannot be trained further; `full_precision` undoes it for that.

    Raises:
        ModelError: no network.
    """
    if model.info.kind != "network":
        raise ModelError(f"A {model.info.kind} model has no recurrent matrices.", hint="Pass a network.")
    network = make_network("network", replace(model.architecture, int8=True), model.info.seed)
    for ours, theirs in zip(network.recurrent, model.network.recurrent, strict=True):
        for name in MATRICES:
            codes, scale = int8_codes(np.asarray(getattr(theirs, name), dtype=np.float32))
            getattr(ours, f"{name}_codes").assign(codes)
            getattr(ours, f"{name}_scale").assign(scale)
        ours.bias.assign(np.asarray(theirs.bias))
    _copy_others(model.network, network)
    info = replace(model.info, facts={**model.info.facts, "quantised": "int8"})
    return TrainedModel(network, info, dict(model.reference), model.neighbours)


def full_precision(model: TrainedModel) -> TrainedModel:
    """A copy whose recurrent matrices are floats again, so that it can be trained on; others as they are."""
    if not model.architecture.int8:
        return model
    network = make_network("network", replace(model.architecture, int8=False), model.info.seed)
    for ours, theirs in zip(network.recurrent, model.network.recurrent, strict=True):
        for name in MATRICES:
            codes = np.asarray(getattr(theirs, f"{name}_codes"), dtype=np.float32)
            getattr(ours, name).assign(codes * np.asarray(getattr(theirs, f"{name}_scale")))
        ours.bias.assign(np.asarray(theirs.bias))
    _copy_others(model.network, network)
    return TrainedModel(network, model.info, dict(model.reference), model.neighbours)


def _copy_others(source: Any, target: Any) -> None:
    """Every weight outside the recurrent layers."""
    stored = {w.path.split("/", 1)[1]: np.asarray(w) for w in source.weights}
    for weight in target.weights:
        path = weight.path.split("/", 1)[1]
        if not path.startswith("lstm_"):
            weight.assign(stored[path])


def int8_codes(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int8, the matrix's shape) and scales (1, columns): matrix ~ codes x scale, off by half a step at most."""
    limit = np.abs(kernel).max(axis=0, keepdims=True)
    scale = np.where(limit > 0, limit / 127.0, 1.0).astype(np.float32)
    return np.clip(np.round(kernel / scale), -127, 127).astype(np.int8), scale


def weight_bytes(model: TrainedModel) -> int:
    """Bytes of all weights as stored."""
    return sum(np.asarray(w).nbytes for w in model.network.weights)

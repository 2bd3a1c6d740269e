"""A trained model and all that belongs to it: answers, predictions of rows, saving, loading, export.

Files written: `model.json` (what it is), `weights.npz` (variables by path), `reference.npz` (training
    statistics).
An exported SavedModel carries the same files under `assets.extra/`, so that a served version can be the
parent of the next one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.errors import ModelError
from barcast.models import savedmodel
from barcast.models.presets import Architecture
from barcast.training.answering import FORMAT, Answering, ModelInfo, read_description


def make_network(kind: str, architecture: Architecture, seed: int) -> Any:
    """A built, untrained model of this kind."""
    from barcast.models.ensemble import Ensemble
    from barcast.models.linear import LinearNetwork
    from barcast.models.network import Network

    kinds: dict[str, Any] = {"network": Network, "linear": LinearNetwork, "ensemble": Ensemble}
    if kind not in kinds:
        raise ModelError(f"Model kind {kind!r} is not known.", hint=f"It is one of {sorted(kinds)}.")
    return kinds[kind](architecture, seed=seed).build_once()


@dataclass
class TrainedModel(Answering):
    """A Keras model with `answer`, its description and its training reference.

    Attributes:
        reference: arrays of `reference.npz` (mean, scale, distance, linear coefficients).
        neighbours: content of `neighbours.npz`, empty where none was made.
    """

    network: Any
    info: ModelInfo
    reference: dict[str, np.ndarray] = field(default_factory=dict)
    neighbours: bytes = b""
    _answer: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    @property
    def architecture(self) -> Architecture:
        found: Architecture = self.network.architecture
        return found

    def ask(self, windows: np.ndarray, symbol_ids: np.ndarray) -> dict[str, Any]:
        """Outputs of windows (B, T, F) and ids as this model knows them (B,), from the network in this process."""
        import tensorflow as tf

        if self._answer is None:
            self._answer = savedmodel.answering(self.network)
        return dict(self._answer(tf.constant(windows), tf.constant(symbol_ids)))

    def summary(self) -> dict[str, float]:
        """The few numbers of the fit that a run's metrics show."""
        facts = self.info.facts
        wanted = {
            "training_seconds": facts.get("training_seconds"),
            "epochs": len(facts["epochs"]) if "epochs" in facts else None,
            "best_validation_loss": facts.get("best_validation_loss"),
            "parameters": facts.get("parameters"),
            "effective_train_rows": facts.get("effective_train_rows"),
            "temperature": facts.get("calibration", {}).get("temperature"),
        }
        return {name: float(value) for name, value in wanted.items() if value is not None}

    def with_facts(self, **facts: Any) -> TrainedModel:
        """The same model with more facts in its description."""
        return replace(self, info=replace(self.info, facts={**self.info.facts, **facts}))

    def files(self) -> dict[str, bytes]:
        """Content of the model's own files, by name."""
        described = {
            "format": FORMAT,
            "info": asdict(self.info),
            "architecture": self.architecture.to_dict(),
        }
        serving = {
            "feature_names": list(self.info.feature_names),
            "symbol_ids": {symbol: i + 1 for i, symbol in enumerate(self.info.symbols)},
            "model_kind": self.info.kind,
            "symbol": self.info.symbol,
            "horizon_bars": self.info.horizon_bars,
            "lookback_bars": self.info.lookback_bars,
            "expected_duration_bars": self.info.facts.get("expected_duration_bars", self.info.horizon_bars),
            "members": list(getattr(self.network, "names", ())),
        }
        found = {
            "model.json": json.dumps(described, indent=1, sort_keys=True).encode(),
            "serving.json": json.dumps(serving, indent=1).encode(),
            "weights.npz": _npz(weights_by_name(self.network)),
            "reference.npz": _npz(self.reference),
        }
        return found | ({"neighbours.npz": self.neighbours} if self.neighbours else {})

    def save(self, folder: Path) -> Path:
        """Write the model's own files (no SavedModel) into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            temporary = folder / f".{name}.tmp"
            temporary.write_bytes(content)
            temporary.replace(folder / name)
        return folder

    def export(self, path: Path) -> Path:
        """Write the served form: a SavedModel with the model's own files in `assets.extra/`.

        Raises:
            ModelError: the folder exists.
        """
        return savedmodel.export(
            self.network, Path(path), mean=self.reference["mean"], extra=self.files(), answer=self._answer
        )

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """A model from `save`'s folder or from an exported SavedModel.

        Raises:
            ModelError: missing, corrupted, or of another format.
        """
        folder = Path(folder)
        if not (folder / "model.json").is_file():
            folder = folder / savedmodel.EXTRA
        if not (folder / "model.json").is_file():
            raise ModelError(f"No model in {folder}.", hint="Give a folder written by save or export.")
        try:
            info, described = read_description(folder)
            architecture = Architecture.from_dict(described)
            weights = _read_npz(folder / "weights.npz")
            reference = _read_npz(folder / "reference.npz")
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"The model in {folder} is corrupted ({type(error).__name__}: {error}).",
                hint="Restore it or train again; the model in use is untouched.",
            ) from error
        network = make_network(info.kind, architecture, info.seed)
        load_weights(network, weights)
        neighbours = folder / "neighbours.npz"
        return cls(network, info, reference, neighbours.read_bytes() if neighbours.is_file() else b"")


def weights_by_name(network: Any) -> dict[str, np.ndarray]:
    """Every weight under its position and its path without the model's own name, which Keras numbers.

    Random states are no weights: answers never read them.
    """
    return {f"{i:04d}/{_plain(w.path)}": np.asarray(w) for i, w in enumerate(network.weights)}


def load_weights(network: Any, weights: dict[str, np.ndarray]) -> None:
    """Assign weights written by `weights_by_name`.

    Raises:
        ModelError: a weight is missing or has another shape.
    """
    for i, variable in enumerate(network.weights):
        value = weights.get(f"{i:04d}/{_plain(variable.path)}")
        if value is None or value.shape != tuple(variable.shape):
            raise ModelError(
                f"The stored weights do not fit: {variable.path} should have shape {tuple(variable.shape)}, "
                f"stored is {None if value is None else value.shape}.",
                hint="They belong to another architecture.",
            )
        variable.assign(value)


def _plain(path: str) -> str:
    """A variable's path without the model's own name."""
    return path.split("/", 1)[1] if "/" in path else path


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    numbered: dict[str, Any]
    # Named positions with a list of names: array names may hold characters that a zip member must not.
    names = sorted(arrays)
    if all(name.replace("_", "").isalnum() for name in names):
        numbered = {name: arrays[name] for name in names}
    else:
        numbered = {f"a{i}": arrays[name] for i, name in enumerate(names)} | {"names": np.array(names)}
    np.savez(buffer, **numbered)
    return buffer.getvalue()


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        if "names" in file.files:
            return {str(name): file[f"a{i}"] for i, name in enumerate(file["names"])}
        return {name: file[name] for name in file.files}

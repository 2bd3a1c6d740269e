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
import polars as pl

from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.labels import Thresholds
from barcast.models import savedmodel
from barcast.models.presets import Architecture
from barcast.training.predictions import predictions_frame

FORMAT = 1
FILES = ("model.json", "weights.npz", "reference.npz", "serving.json", "neighbours.npz")


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and how it came to be; plain values only.

    Attributes:
        kind: "network", "linear" or "ensemble".
        symbol: its symbol; None for a universal model.
        symbols: known symbols, id = 1 + position.
        cutoff: ISO time before which all training labels had ended.
        facts: counts, seconds, curves: whatever a model card may quote.
    """

    kind: str
    symbol: str | None
    feature_names: tuple[str, ...]
    symbols: tuple[str, ...]
    lookback_bars: int
    horizon_bars: int
    thresholds: Thresholds
    seed: int
    cutoff: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelInfo:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{**plain, "thresholds": Thresholds(**values["thresholds"])})


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
class TrainedModel:
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

    def check(self, dataset: Dataset) -> None:
        """Refuse a dataset of another feature generation.

        Raises:
            ModelError: names, their order or the look-back differ.
        """
        if dataset.feature_names != self.info.feature_names:
            pairs = zip(dataset.feature_names, self.info.feature_names, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            where = "in number" if at is None else f"at position {at} ({dataset.feature_names[at]})"
            raise ModelError(
                f"The model knows {len(self.info.feature_names)} features; "
                f"the {len(dataset.feature_names)} given differ {where}.",
                hint="Use the model's own feature generation, in its order.",
            )
        if dataset.lookback_bars != self.info.lookback_bars:
            raise ModelError(
                f"Windows of {dataset.lookback_bars} bars came, the model reads {self.info.lookback_bars}.",
                hint="Build the dataset with the model's lookback_bars.",
            )

    def check_symbols(self, dataset: Dataset) -> None:
        """Refuse a dataset whose symbols are numbered otherwise: ids are append-only.

        Raises:
            ModelError: the shorter list is not the beginning of the longer one.
        """
        known, given = self.info.symbols, dataset.symbols
        if known[: len(given)] != given[: len(known)]:
            raise ModelError(
                f"The dataset's symbols {given} number differently from the model's {known}.",
                hint="Build the dataset with symbols=model.info.symbols: ids are append-only.",
            )

    def symbol_ids(self, dataset: Dataset) -> np.ndarray:
        """Ids of the dataset's rows as THIS model knows them; 0 where it does not, (n,) int32."""
        known = {symbol: i + 1 for i, symbol in enumerate(self.info.symbols)}
        table = np.array([0] + [known.get(symbol, 0) for symbol in dataset.symbols], dtype=np.int32)
        ids: np.ndarray = table[dataset.symbol_id]
        return ids

    def answers(self, dataset: Dataset, rows: np.ndarray, *, batch_size: int = 512) -> dict[str, np.ndarray]:
        """The contract's outputs (and `confidence_logit`) of the given rows, arrays with len(rows) first.

        Raises:
            ModelError: features of another generation, or an unknown value in a window.
        """
        import tensorflow as tf

        self.check(dataset)
        if self._answer is None:
            shape = (None, self.info.lookback_bars, len(self.info.feature_names))
            spec = [tf.TensorSpec(shape, tf.float32), tf.TensorSpec([None], tf.int32)]
            self._answer = tf.function(self.network.answer, input_signature=spec)
        ids = self.symbol_ids(dataset)[rows]
        parts = []
        for start in range(0, len(rows), batch_size):
            windows = dataset.windows(rows[start : start + batch_size])
            if not np.isfinite(windows).all():
                raise ModelError(
                    "A window holds NaN or infinite values.", hint="Drop rows with unknown features first."
                )
            found = self._answer(tf.constant(windows), tf.constant(ids[start : start + batch_size]))
            parts.append({name: value.numpy() for name, value in found.items()})
        if not parts:
            raise ModelError("No rows to answer for.", hint="Pass at least one row.")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def predictions(
        self,
        dataset: Dataset,
        rows: np.ndarray,
        *,
        fold: int = 0,
        name: str | None = None,
        thresholds: Thresholds | None = None,
    ) -> pl.DataFrame:
        """Frame "Predictions" of the given rows.

        Args:
            fold: number written into each row.
            name: text of column `model`; the kind, or "symbol" for a symbol's own network, when None.
            thresholds: of the classes in `label`; the model's own when None. Models that are compared must be
                given the same ones.
        """
        found = self.answers(dataset, rows)
        label = dataset.classes(thresholds or self.info.thresholds)[rows]
        return predictions_frame(
            dataset.rows[rows], found, label, fold=fold, name=name or self.default_name()
        )

    def default_name(self) -> str:
        """How reports call this model: linear, universal or symbol."""
        if self.info.kind != "network":
            return self.info.kind
        return "universal" if self.info.symbol is None else "symbol"

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
        return savedmodel.export(self.network, Path(path), mean=self.reference["mean"], extra=self.files())

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
            described = json.loads((folder / "model.json").read_text())
            if described["format"] != FORMAT:
                raise ModelError(f"Model format {described['format']} is not {FORMAT}.", hint="Train again.")
            info = ModelInfo.from_dict(described["info"])
            architecture = Architecture.from_dict(described["architecture"])
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

"""What every model can be asked, wherever its answers come from: its rows, its checks, its frame of predictions.

`TrainedModel` asks the network in this process; `ExportedModel` asks a SavedModel as a model server would load it.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.datasets import Dataset
from barcast.errors import ModelError
from barcast.labels import Thresholds
from barcast.models import savedmodel
from barcast.training.predictions import predictions_frame

FORMAT = 1


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


def one_thread_an_operation() -> None:
    """BlockLSTM is a chain of small products: sharing each among threads costs a third of the time on two cores.

    TensorFlow reads this at its first operation.
    """
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"


def in_batches(
    ask: Callable[[np.ndarray], Mapping[str, Any]], rows: np.ndarray, batch_size: int = 512
) -> dict[str, np.ndarray]:
    """The answers of all rows, asked a batch at a time.

    Raises:
        ModelError: no rows.
    """
    if not len(rows):
        raise ModelError("No rows to answer for.", hint="Pass at least one row.")
    parts = [ask(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


class Answering(ABC):
    """A model that answers for rows of a dataset."""

    info: ModelInfo

    @abstractmethod
    def ask(self, windows: np.ndarray, symbol_ids: np.ndarray) -> dict[str, Any]:
        """Outputs of windows (B, T, F) and ids as this model knows them (B,)."""

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
        """The contract's outputs of the given rows, arrays with len(rows) first.

        Raises:
            ModelError: features of another generation, or an unknown value in a window.
        """
        self.check(dataset)
        ids = self.symbol_ids(dataset)

        def ask(part: np.ndarray) -> dict[str, Any]:
            windows = dataset.windows(part)
            if not np.isfinite(windows).all():
                raise ModelError(
                    "A window holds NaN or infinite values.", hint="Drop rows with unknown features first."
                )
            return self.ask(windows, ids[part])

        return in_batches(ask, rows, batch_size)

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


def read_description(folder: Path) -> tuple[ModelInfo, dict[str, Any]]:
    """What a folder's `model.json` says: the description and the architecture.

    Raises:
        ModelError: it has another format.
    """
    described = json.loads((folder / "model.json").read_text())
    if described["format"] != FORMAT:
        raise ModelError(f"Model format {described['format']} is not {FORMAT}.", hint="Train again.")
    return ModelInfo.from_dict(described["info"]), described["architecture"]


@dataclass(frozen=True)
class ExportedModel(Answering):
    """An exported SavedModel: what is scored through it is what a server will answer.

    Attributes:
        folder: the SavedModel, with the model's own files in `assets.extra/`.
    """

    folder: Path
    info: ModelInfo

    @classmethod
    def load(cls, folder: Path) -> ExportedModel:
        """The model in an exported folder.

        Raises:
            ModelError: missing, corrupted, or of another format.
        """
        folder = Path(folder)
        one_thread_an_operation()
        savedmodel.load(folder)
        try:
            info, _ = read_description(folder / savedmodel.EXTRA)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The model in {folder} is corrupted ({type(error).__name__}: {error}).",
                hint="Restore it or train again; the model in use is untouched.",
            ) from error
        return cls(folder, info)

    def ask(
        self, windows: np.ndarray, symbol_ids: np.ndarray, *, signature: str = "serving_default"
    ) -> dict[str, Any]:
        """Outputs of one signature; windows (B, T, F) and ids as this model knows them (B,)."""
        return savedmodel.predict(self.folder, windows, symbol_ids, signature=signature)

"""Similar windows of the past: embeddings of training rows stored beside the model, searched by cosine
distance.

Only rows whose label had ended before the training cutoff are stored, so what "followed" was known to
nobody's future.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from barcast.errors import ServingError

_ARRAYS = ("embeddings", "symbols", "event_timestamps", "forward_log_returns", "labels")
NAME = "neighbours.npz"


@dataclass(frozen=True)
class Neighbour:
    """One stored row.

    Attributes:
        event_us: bar close, microseconds since 1970 UTC.
        distance: cosine distance, 0..2.
    """

    symbol: str
    event_us: int
    distance: float
    forward_log_return: float
    label: int


class NeighbourIndex:
    """Stored rows, searched by brute force (a few thousand rows take well under a millisecond)."""

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        symbols: NDArray[np.str_],
        event_timestamps: NDArray[np.int64],
        forward_log_returns: NDArray[np.float64],
        labels: NDArray[np.int8],
    ) -> None:
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        self._unit = embeddings / np.where(norms > 0, norms, 1.0)
        self._symbols, self._times = symbols, event_timestamps
        self._returns, self._labels = forward_log_returns, labels

    def __len__(self) -> int:
        return len(self._unit)

    def search(
        self, embedding: NDArray[np.floating], count: int, *, before_us: int, apart_us: int = 0
    ) -> list[Neighbour]:
        """The nearest rows, nearest first.

        Args:
            embedding: (E,).
            before_us: only rows whose bar closed before this time.
            apart_us: rows of one symbol nearer in time than this count as one (the nearest of them).
        """
        norm = float(np.linalg.norm(embedding))
        if norm == 0 or len(self) == 0 or embedding.shape[0] != self._unit.shape[1]:
            return []
        distance = 1.0 - self._unit @ (np.asarray(embedding, dtype=np.float64) / norm)
        distance[self._times >= before_us] = np.inf
        found: list[Neighbour] = []
        for i in np.argsort(distance, kind="stable"):
            if len(found) == count or not np.isfinite(distance[i]):
                break
            symbol, at = str(self._symbols[i]), int(self._times[i])
            if any(n.symbol == symbol and abs(n.event_us - at) < apart_us for n in found):
                continue
            value = float(max(0.0, distance[i]))
            found.append(Neighbour(symbol, at, value, float(self._returns[i]), int(self._labels[i])))
        return found


def write(
    path: Path,
    embeddings: NDArray[np.floating],
    symbols: NDArray[np.str_] | list[str],
    event_timestamps: NDArray[np.int64],
    forward_log_returns: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> None:
    """Store rows beside a model version.

    Args:
        path: `<version>/assets.extra/neighbours.npz`.
        embeddings: (N, E).
        symbols: (N,) names.
        event_timestamps: (N,) bar closes, microseconds since 1970 UTC.
        forward_log_returns: (N,) what followed over the horizon.
        labels: (N,) 0 SELL, 1 HOLD, 2 BUY.
    """
    count = len(embeddings)
    if not count == len(symbols) == len(event_timestamps) == len(forward_log_returns) == len(labels):
        raise ServingError("The arrays of similar windows differ in length; give one entry per row.")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        embeddings=np.asarray(embeddings, dtype=np.float32),
        symbols=np.asarray(symbols, dtype=np.str_),
        event_timestamps=np.asarray(event_timestamps, dtype=np.int64),
        forward_log_returns=np.asarray(forward_log_returns, dtype=np.float64),
        labels=np.asarray(labels, dtype=np.int8),
    )


def load(path: Path) -> NeighbourIndex | None:
    """The rows stored beside a version; None where there are none.

    Raises:
        ServingError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return NeighbourIndex(*(arrays[name] for name in _ARRAYS))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ServingError(f"{path} cannot be read ({error}).", hint="Promote the version again.") from error

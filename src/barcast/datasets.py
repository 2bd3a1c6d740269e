"""Rows ready for training: features once, windows gathered by index, never materialised sixty times.

The features frame and the labels frame go in; out comes one contiguous (N, F) matrix, and for each usable
row the position of its window's last bar in it. A window that holds an unknown value or spans a long gap is
dropped and counted. `symbol_id` 0 stands for an unknown symbol; ids grow with `symbols` and never change their meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from barcast.errors import DataError
from barcast.labels import Thresholds, classify, infer_interval_seconds, missing_bars

KEYS = ("symbol", "event_timestamp", "created_timestamp")
TARGETS = (
    "label_start_timestamp",
    "label_end_timestamp",
    "forward_log_return",
    "volatility",
    "duration_bars",
    "touch",
)
REGIMES = ("regime", "volatility_regime", "trend_strength")


@dataclass(frozen=True)
class Dataset:
    """Windows by index over one feature matrix.

    Attributes:
        features: (N, F) float32, rows of a symbol contiguous and in the order of time.
        feature_names: F names, the FeatureService's order.
        lookback_bars: T.
        window_end: (n,) int64, position in `features` of each row's last bar.
        symbol_id: (n,) int32, 1 + position in `symbols`.
        symbols: known symbols, append-only.
        rows: (n,) frame with `symbol, event_timestamp`, and where labels were given their targets, where
            regimes were given `regime, volatility_regime` (Int8 codes) and `trend_strength`.
        dropped: rows left out, by reason.
    """

    features: np.ndarray
    feature_names: tuple[str, ...]
    lookback_bars: int
    window_end: np.ndarray
    symbol_id: np.ndarray
    symbols: tuple[str, ...]
    rows: pl.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.window_end)

    @property
    def num_features(self) -> int:
        return int(self.features.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays; near the raw features, for windows are not stored."""
        return int(self.features.nbytes + self.window_end.nbytes + self.symbol_id.nbytes)

    def windows(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), T, F) float32 windows of the given rows: for small numbers of rows."""
        offsets = np.arange(1 - self.lookback_bars, 1)
        gathered: np.ndarray = self.features[self.window_end[rows][:, None] + offsets]
        return gathered

    def column(self, name: str) -> np.ndarray:
        """One column of `rows` as an array (n,)."""
        return self.rows[name].to_numpy()

    def classes(self, thresholds: Thresholds) -> np.ndarray:
        """(n,) int8 classes under `thresholds`; -1 where the outcome is not known."""
        found = classify(self.rows, thresholds)["label"].fill_null(-1)
        return found.to_numpy()

    def of_symbol(self, symbol: str) -> np.ndarray:
        """Positions of one symbol's rows, (k,) int64, empty for an unknown symbol."""
        return np.flatnonzero((self.rows["symbol"] == symbol).to_numpy())

    def broken(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows whose window holds NaN or infinite values; `build` makes none."""
        bad = np.zeros(len(self.features) + 1, dtype=np.int64)
        for start in range(0, len(self.features), 16384):
            piece = self.features[start : start + 16384]
            bad[start + 1 : start + 1 + len(piece)] = ~np.isfinite(piece).all(axis=1)
        bad = np.cumsum(bad)
        after = self.window_end[rows] + 1
        found: np.ndarray = rows[bad[after] > bad[after - self.lookback_bars]]
        return found

    def only(self, symbol: str) -> tuple[Dataset, np.ndarray]:
        """One symbol's rows over its own bars, a view of these, and the rows' positions here (k,) int64."""
        rows = self.of_symbol(symbol)
        found = self.take(rows)
        if not len(rows):
            return replace(found, features=self.features[:0]), rows
        first, last = found.window_end.min() - self.lookback_bars + 1, found.window_end.max()
        bars = self.features[first : last + 1]
        return replace(found, features=bars, window_end=found.window_end - first), rows

    def numbered(self, known: Sequence[str]) -> Dataset:
        """The same rows with symbols numbered as a model does that knows `known`; those new to it come after."""
        symbols = _ids(list(self.symbols), known)
        table = np.array([0, *(symbols.index(symbol) + 1 for symbol in self.symbols)], dtype=np.int32)
        return replace(self, symbol_id=table[self.symbol_id], symbols=symbols)

    def take(self, rows: np.ndarray) -> Dataset:
        """The same features with these rows only."""
        return replace(
            self, window_end=self.window_end[rows], symbol_id=self.symbol_id[rows], rows=self.rows[rows]
        )


def build(
    features: pl.DataFrame,
    labels: pl.DataFrame | None = None,
    *,
    lookback_bars: int,
    symbols: Sequence[str] | None = None,
    regimes: pl.DataFrame | None = None,
    interval_seconds: float | None = None,
    expected_times: Mapping[str, pl.Series] | None = None,
    max_gap_bars: int = 6,
) -> Dataset:
    """Join features, labels and regimes into rows with windows.

    Args:
        features: frame "Features" (null where not yet known).
        labels: frame of `labels.make`; rows whose label is not valid are dropped. None: every row with a
            whole window is kept, without targets (for predicting).
        lookback_bars: T.
        symbols: known symbols in the order of their ids; symbols that are new are appended sorted.
        regimes: frame of `models.regime`, joined by key; missing rows become null.
        interval_seconds, expected_times, max_gap_bars: how gaps are measured, as in `labels.make`.

    Raises:
        DataError: no rows, duplicate keys, a feature never known, an infinite value, or nothing left.
    """
    names = tuple(c for c in features.columns if c not in KEYS)
    if features.is_empty() or not names:
        raise DataError("There are no feature rows to build a dataset from.", hint="Compute features first.")
    features = features.sort("symbol", "event_timestamp")
    if features.select("symbol", "event_timestamp").is_duplicated().any():
        raise DataError(
            "Feature rows repeat a (symbol, event_timestamp).", hint="Keep one row for each symbol and bar."
        )
    matrix = np.ascontiguousarray(
        features.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy(), dtype=np.float32
    )
    unknown: np.ndarray = np.isnan(matrix)
    never = [name for name, gone in zip(names, np.all(unknown, axis=0), strict=True) if gone]
    if never:
        raise DataError(f"Features never known: {', '.join(never[:5])}.", hint="Fix or remove them.")
    infinite = np.isinf(matrix).any(axis=0)
    if infinite.any():
        raise DataError(
            f"Features with infinite values: {', '.join(np.array(names)[infinite][:5])}.",
            hint="A feature must be finite or null.",
        )
    ids = _ids(features["symbol"].unique().sort().to_list(), symbols)
    usable, reasons = _usable(
        features,
        np.any(unknown, axis=1).reshape(-1),
        lookback_bars,
        interval_seconds,
        expected_times,
        max_gap_bars,
    )
    rows = features.select("symbol", "event_timestamp").with_columns(
        pl.Series("_end", np.arange(features.height)), pl.Series("_usable", usable)
    )
    dropped = reasons
    if labels is not None:
        keep = labels.filter(pl.col("valid")).select("symbol", "event_timestamp", *TARGETS)
        joined = rows.join(keep, on=["symbol", "event_timestamp"], how="left", maintain_order="left")
        rows = joined.filter(pl.col("_usable") & pl.col("forward_log_return").is_not_null())
        dropped |= {"label": int(joined["_usable"].sum()) - rows.height}
    else:
        rows = rows.filter(pl.col("_usable"))
    if regimes is not None:
        rows = rows.join(
            regimes.select("symbol", "event_timestamp", *REGIMES),
            on=["symbol", "event_timestamp"],
            how="left",
            maintain_order="left",
        )
    if rows.is_empty():
        raise DataError(
            f"No row has a whole window of {lookback_bars} bars and a label; dropped: {dropped}.",
            hint="Use a longer history or a shorter look-back.",
        )
    symbol_id = rows["symbol"].replace_strict({s: i + 1 for i, s in enumerate(ids)}, return_dtype=pl.Int32)
    return Dataset(
        features=matrix,
        feature_names=names,
        lookback_bars=lookback_bars,
        window_end=rows["_end"].to_numpy().astype(np.int64),
        symbol_id=symbol_id.to_numpy(),
        symbols=ids,
        rows=rows.drop("_end", "_usable"),
        dropped=dropped,
    )


def save(dataset: Dataset, folder: Path) -> Path:
    """Write a dataset as .npy and Parquet files.

    One that stands there already is taken away first: who dies half-way leaves no mixture of both that looks finished,
    and who still reads the old features, which stay in their file, keeps them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", "features.npy", "index.npz", "rows.parquet"):
        (folder / name).unlink(missing_ok=True)
    np.save(folder / "features.npy", dataset.features)
    np.savez(folder / "index.npz", window_end=dataset.window_end, symbol_id=dataset.symbol_id)
    dataset.rows.write_parquet(folder / "rows.parquet")
    about = {
        "feature_names": dataset.feature_names,
        "lookback_bars": dataset.lookback_bars,
        "symbols": dataset.symbols,
        "dropped": dataset.dropped,
    }
    # Written last: a folder without it was not finished.
    (folder / "dataset.json").write_text(json.dumps(about, indent=1))
    return folder


def load(folder: Path) -> Dataset:
    """A dataset written by `save`; the feature matrix stays in its file and is read as it is used.

    Raises:
        DataError: the folder was not finished, or cannot be read.
    """
    folder = Path(folder)
    if not (folder / "dataset.json").is_file():
        raise DataError(f"No dataset in {folder}.", hint="Run the step that builds it again.")
    try:
        about = json.loads((folder / "dataset.json").read_text())
        with np.load(folder / "index.npz", allow_pickle=False) as index:
            window_end, symbol_id = index["window_end"], index["symbol_id"]
        return Dataset(
            # Worker processes of one machine then share its pages.
            features=np.load(folder / "features.npy", allow_pickle=False, mmap_mode="r"),
            feature_names=tuple(about["feature_names"]),
            lookback_bars=int(about["lookback_bars"]),
            window_end=window_end,
            symbol_id=symbol_id,
            symbols=tuple(about["symbols"]),
            rows=pl.read_parquet(folder / "rows.parquet"),
            dropped=about["dropped"],
        )
    except Exception as error:
        raise DataError(f"The dataset in {folder} is corrupted ({error}).", hint="Build it again.") from error


def _ids(present: list[str], known: Sequence[str] | None) -> tuple[str, ...]:
    listed = list(known or ())
    return tuple(listed + [symbol for symbol in present if symbol not in listed])


def _usable(
    features: pl.DataFrame,
    unknown: np.ndarray,
    lookback: int,
    seconds: float | None,
    expected: Mapping[str, pl.Series] | None,
    max_gap: int,
) -> tuple[np.ndarray, dict[str, int]]:
    """Which rows have a whole window without unknown values or long gaps, (N,) bool; counts of the others."""
    n = features.height
    if n < 2:
        return np.zeros(n, dtype=bool), {"short": n, "unknown": 0, "gap": 0}
    seconds = seconds or infer_interval_seconds(features)
    symbol = features["symbol"].rle_id().to_numpy()
    gaps = np.zeros(n, dtype=bool)
    for part in np.split(np.arange(n), np.flatnonzero(np.diff(symbol)) + 1):
        times = features["event_timestamp"][part]
        closes = None if expected is None else expected[features["symbol"][int(part[0])]]
        gaps[part] = missing_bars(times, interval_seconds=seconds, expected=closes) > max_gap
    row = np.arange(n)
    first = row - lookback + 1
    whole = (first >= 0) & (symbol[np.maximum(first, 0)] == symbol)
    bad, broken = np.cumsum(unknown), np.cumsum(gaps)
    at = np.maximum(first, 0)
    clean = bad - bad[at] + unknown[at] == 0
    joined = broken - broken[at] == 0
    counts = {
        "short": int((~whole).sum()),
        "unknown": int((whole & ~clean).sum()),
        "gap": int((whole & clean & ~joined).sum()),
    }
    return whole & clean & joined, counts


def uniqueness(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Average uniqueness of the rows' labels within their symbol, (len(rows),) in (0, 1].

    A label that lives over bars with c concurrent labels counts 1/c at each (López de Prado, Advances in
    Financial Machine Learning, chapter 4). Their sum is the effective sample size.
    """
    start = dataset.window_end[rows] + 1
    stop = start + np.maximum(dataset.column("duration_bars")[rows].astype(np.int64), 1)
    size = int(stop.max()) + 1
    # Symbols lie apart in the matrix; a label reaching past its symbol's end is pending, hence never here.
    alive = np.cumsum(np.bincount(start, minlength=size + 1) - np.bincount(stop, minlength=size + 1)).astype(
        np.float64
    )
    share = np.concatenate(
        [[0.0], np.cumsum(np.divide(1.0, alive, out=np.zeros_like(alive), where=alive > 0))]
    )
    average: np.ndarray = (share[stop] - share[start]) / (stop - start)
    return average

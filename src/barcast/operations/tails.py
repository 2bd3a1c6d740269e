"""The last look-back rows of each symbol, as arrays: what a window is cut from at every close."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast.errors import DataError

TIME = pl.Datetime("us", "UTC")
_ARRAYS = ("times", "known", "factors", "values")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Taken:
    """Rows and windows, in one order.

    Attributes:
        rows: features frame, the newest row of each symbol whose window is whole.
        windows: (n, T, F) float32, window i ends with row i.
    """

    rows: pl.DataFrame
    windows: npt.NDArray[np.float32]


class Tails:
    """Rows of every symbol, oldest first, at most `length` of each.

    Args:
        names: F features.
        length: T.

    Attributes:
        of: per symbol `times` and `known` (n,) us since 1970, `factors` (n, 2) the price and volume factor that each
            row's bar came with, `values` (n, F) float32.
        version: of the table of bars, the one that the rows were last held against.
    """

    def __init__(self, names: Sequence[str], length: int) -> None:
        self.names, self.length = list(names), length
        self.of: dict[str, dict[str, Array]] = {}
        self.version = -1

    @property
    def newest_time(self) -> datetime | None:
        """The newest row's close; None without rows."""
        newest = max((int(tail["times"][-1]) for tail in self.of.values()), default=None)
        return None if newest is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest)

    def add(self, rows: pl.DataFrame, bars: pl.DataFrame) -> None:
        """Take rows in; one of a known time replaces the one before.

        Args:
            rows: features frame.
            bars: the bars they came from, as traded; a row without its bar keeps the factors it had.
        """
        if rows.height > 2 * self.length * max(rows["symbol"].n_unique(), 1):
            rows = rows.group_by("symbol", maintain_order=True).tail(self.length)
        keys = rows.select("symbol", "event_timestamp", "created_timestamp").join(
            bars.select("symbol", "event_timestamp", "price_factor", "volume_factor"),
            on=["symbol", "event_timestamp"],
            how="left",
            maintain_order="left",
        )
        found = {
            "times": keys["event_timestamp"].dt.timestamp("us").to_numpy(),
            "known": keys["created_timestamp"].dt.timestamp("us").to_numpy(),
            "factors": keys.select("price_factor", "volume_factor").to_numpy().astype(np.float64),
            "values": rows.select(self.names).to_numpy().astype(np.float32, copy=False),
        }
        names, which = np.unique(rows["symbol"].to_numpy(), return_inverse=True)
        for k, name in enumerate(names):
            mine = which == k
            self._merge(str(name), {key: values[mine] for key, values in found.items()})

    def know(self, bars: pl.DataFrame) -> bool:
        """Whether there is a row for each of these bars."""
        times = bars["event_timestamp"].dt.timestamp("us")
        return all(
            s in self.of and t in self.of[s]["times"] for s, t in zip(bars["symbol"], times, strict=True)
        )

    def _merge(self, symbol: str, new: dict[str, Array]) -> None:
        old = self.of.get(symbol)
        if old is None:
            old = {key: values[:0] for key, values in new.items()}
        again = np.isin(old["times"], new["times"])
        for at in np.flatnonzero(np.isnan(new["factors"][:, 0])):
            before = old["factors"][old["times"] == new["times"][at]]
            new["factors"][at] = before[0] if len(before) else 1.0
        joined = {key: np.concatenate([old[key][~again], new[key]]) for key in _ARRAYS}
        order = np.argsort(joined["times"], kind="stable")[-self.length :]
        self.of[symbol] = {key: values[order] for key, values in joined.items()}

    def newest(self, symbols: Sequence[str]) -> Taken:
        """The newest row and window of these symbols, where the window is whole."""
        whole = [
            s
            for s in dict.fromkeys(symbols)
            if s in self.of
            and len(self.of[s]["times"]) == self.length
            and np.isfinite(self.of[s]["values"]).all()
        ]
        if not whole:
            return Taken(pl.DataFrame(), np.empty((0, self.length, len(self.names)), np.float32))
        windows = np.stack([self.of[s]["values"] for s in whole])
        stamps = {
            name: pl.Series(name, [int(self.of[s][key][-1]) for s in whole]).cast(TIME)
            for name, key in (("event_timestamp", "times"), ("created_timestamp", "known"))
        }
        keys = pl.DataFrame({"symbol": whole, **stamps})
        return Taken(keys.hstack(pl.DataFrame(windows[:, -1], schema=self.names)), windows)

    def factors(self) -> pl.DataFrame:
        """symbol, event_timestamp, price_factor, volume_factor of every row's bar."""
        parts = [
            pl.DataFrame({"symbol": symbol, "event_timestamp": tail["times"]}).hstack(
                pl.DataFrame(tail["factors"], schema=["price_factor", "volume_factor"])
            )
            for symbol, tail in self.of.items()
        ]
        return pl.concat(parts).with_columns(pl.col("event_timestamp").cast(TIME))

    def rescale(self, symbol: str, price: float, volume: float) -> None:
        """The factors of a symbol's bars were multiplied."""
        self.of[symbol]["factors"] = self.of[symbol]["factors"] * (price, volume)

    def save(self, path: Path) -> None:
        """Write all rows to a file, whole or not at all."""
        arrays: dict[str, Any] = {
            f"{k}_{key}": tail[key] for k, tail in enumerate(self.of.values()) for key in _ARRAYS
        }
        arrays["version"] = np.int64(self.version)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            np.savez(file, symbols=np.array(list(self.of)), names=np.array(self.names), **arrays)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Take over rows that `save` wrote.

        Raises:
            DataError: missing, damaged, or of other features.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names, symbols = file["names"].tolist(), file["symbols"].tolist()
                version = int(file["version"])
                of = {s: {key: file[f"{k}_{key}"] for key in _ARRAYS} for k, s in enumerate(symbols)}
        except Exception as error:
            raise DataError(
                f"The stream's rows in {path} cannot be read: {error}.", hint="Delete the file."
            ) from error
        if names != self.names:
            raise DataError(f"The stream's rows in {path} are of other features.", hint="Delete the file.")
        self.of, self.version = of, version

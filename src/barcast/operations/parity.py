"""Is a value the same wherever it is met? Bars are replayed, and each stage is compared with the one before.

bars → batch row and streamed row → Feast's offline row, online row and window → the tensor that reached the
model server. The replay has stores of its own: what is being served stays untouched.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast import names
from barcast.bars.calendars import calendars_of
from barcast.bars.schema import adjusted
from barcast.config import Config
from barcast.errors import DataError
from barcast.workspace import Workspace

Values = npt.NDArray[np.float32]
RELATIVE, ABSOLUTE = 1e-6, 1e-9


@dataclass
class Comparison:
    """Two stages side by side.

    Attributes:
        name: what equals what.
        tolerance: relative difference that counts as equal; 0 means bit for bit.
        rows: rows or windows compared.
        values: single values compared.
        mismatches: values that differ (known on one side only counts too).
        max_relative_difference: the largest seen.
        first: where the first mismatch was.
    """

    name: str
    tolerance: float
    rows: int = 0
    values: int = 0
    mismatches: int = 0
    max_relative_difference: float = 0.0
    first: str = ""

    def add(self, one: Values, other: Values, when: datetime, feature_names: tuple[str, ...]) -> None:
        """Compare arrays whose last axis is the features; NaN stands for null."""
        self.rows += 1
        if one.shape != other.shape:
            self.values += one.size
            self._count(one.size, f"{when:%F %R}: shapes {one.shape} and {other.shape}")
            return
        self.values += one.size
        if np.array_equal(one, other, equal_nan=True):
            return
        left, right = one.astype(np.float64), other.astype(np.float64)
        difference = np.abs(left - right)
        size = np.maximum(np.abs(left), np.abs(right))
        both = np.isnan(left) & np.isnan(right)
        limit = self.tolerance * size + (ABSOLUTE if self.tolerance else 0.0)
        bad = ~(difference <= limit) & ~both
        known = np.where(np.isnan(difference) | (size == 0), 0.0, difference / np.where(size == 0, 1.0, size))
        self.max_relative_difference = max(self.max_relative_difference, float(known.max()))
        if bad.any():
            place = np.argwhere(bad)[0]
            values = f"{one[tuple(place)]} and {other[tuple(place)]}"
            self._count(int(bad.sum()), f"{when:%F %R} {feature_names[place[-1]]}: {values}")

    def _count(self, number: int, where: str) -> None:
        self.mismatches += number
        self.first = self.first or where


@dataclass
class Parity:
    """The result of a replay.

    Attributes:
        symbol: whose rows were compared.
        start, end: first and last replayed bar close.
        bars: replayed bars.
        not_served: replayed bars whose row or window was not complete (warm-up), as in live operation.
        model_answers: requests that a running model server answered.
        comparisons: stage by stage.
    """

    symbol: str
    start: datetime
    end: datetime
    bars: int = 0
    not_served: int = 0
    model_answers: int = 0
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        """Of all stages together."""
        return sum(comparison.mismatches for comparison in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, times in ISO 8601."""
        plain = {**asdict(self), "mismatches": self.mismatches}
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in plain.items()}


def replay(
    bars: pl.DataFrame,
    symbol: str,
    config: Config,
    *,
    days: float = 30,
    served: Workspace | None = None,
    endpoint: str | None = None,
) -> Parity:
    """Replay the last days of a symbol through every stage and compare.

    Args:
        bars: bars as traded of all symbols of the workspace; peers feed the cross-symbol features.
        symbol: whose rows are compared.
        config: the workspace's configuration.
        days: how far back the replay begins, in calendar days before the last bar. As many bars before it as warm-up
            and look-back need, twice over (bars may be missing), feed both engines.
        served: the workspace whose live model is asked, with `endpoint`.
        endpoint: host:port of a running model server; without one the requests are received and not answered.

    Raises:
        DataError: no bars of the symbol, or none of its rows is complete.
    """
    from barcast import features

    own = bars.filter(pl.col("symbol") == symbol)
    if own.height == 0:
        known = ", ".join(bars["symbol"].unique().sort().head(5))
        raise DataError(f"There are no bars of {symbol!r}.", hint=f"The table holds {known}.")
    end: Any = own["event_timestamp"].max()
    start = end - timedelta(days=days)
    history = 2 * (features.warmup_bars(config.interval, config.features) + config.lookback_bars)
    before = own.filter(pl.col("event_timestamp") < start)["event_timestamp"].sort().tail(history)
    first = before[0] if len(before) else start
    bars = bars.filter(pl.col("event_timestamp").is_between(first, end))
    with tempfile.TemporaryDirectory(prefix="barcast-parity-") as folder:
        return _Replay(bars, symbol, config, start, end, Path(folder), served, endpoint).run()


class _Replay:
    """One replay; the stages' objects and what they gave last."""

    def __init__(
        self,
        bars: pl.DataFrame,
        symbol: str,
        config: Config,
        start: datetime,
        end: datetime,
        folder: Path,
        served: Workspace | None,
        endpoint: str | None,
    ) -> None:
        from barcast import features
        from barcast.adapters.feast import FeatureStore
        from barcast.operations.parity_recorder import Recorder
        from barcast.serving.client import ModelClient

        self.symbol, self.config, self.start = symbol, config, start
        self.bars = adjusted(bars)
        self.result = Parity(symbol, start, end)
        calendars = calendars_of(config)
        self.batch = features.compute(
            self.bars, interval=config.interval, calendar=calendars, config=config.features
        ).filter(pl.col("symbol") == symbol)
        self.engine = features.StreamEngine(config.interval, calendars, config.features)
        workspace = Workspace(f"{config.workspace[:50]}_parity", folder)
        self.store = FeatureStore(workspace, config)
        self.model = live_model(served, symbol) if served is not None and endpoint else None
        self.recorder = Recorder(endpoint if self.model else None)
        self.client = ModelClient
        self.names = self.store.names
        self.window: deque[Values] = deque(maxlen=config.lookback_bars)

    def run(self) -> Parity:
        compare = {
            "batch row = streamed row": RELATIVE,
            "batch row = Feast's offline row": 0.0,
            "streamed row = Feast's online row": 0.0,
            "batch window = Feast's window": RELATIVE,
            "streamed window = Feast's window": 0.0,
            "Feast's window = tensor at the model server": 0.0,
        }
        rows, offline, online, batch_window, window, tensor = (
            Comparison(name, tolerance) for name, tolerance in compare.items()
        )
        self.result.comparisons = [rows, offline, online, batch_window, window, tensor]
        whole = _values(self.batch, self.names)
        place = {moment: i for i, moment in enumerate(self.batch["event_timestamp"])}
        self.store.apply()
        self.store.clear()  # in a shared store an earlier replay may have left newer rows
        self.store.apply()
        self.store.write_offline(self.batch)
        stored = _values(self.store.training_rows(self.batch.select("symbol", "event_timestamp")), self.names)
        with self.recorder as recorder, self.client(recorder.endpoint, deadline_seconds=30) as client:
            for moment, row in self._streamed():
                i = place[moment]
                values = _values(row, self.names)[0]
                self.result.bars += 1
                rows.add(whole[i], values, moment, self.names)
                offline.add(whole[i], stored[i], moment, self.names)
                if len(self.window) < self.config.lookback_bars or not np.isfinite(self.window).all():
                    self.result.not_served += 1
                    continue
                streamed = np.stack(self.window)
                self.store.push(row, streamed[None])
                found = self.store.online([self.symbol], as_of=moment)[self.symbol]
                online.add(
                    values, _values(self.store.online_rows([self.symbol]), self.names)[0], moment, self.names
                )
                window.add(streamed, found.window, moment, self.names)
                batch_window.add(whole[i + 1 - len(streamed) : i + 1], found.window, moment, self.names)
                model = self.model or names.model_name(self.config.workspace, None)
                ids = np.zeros(1, dtype=np.int32)
                client.predict(model, {"window": found.window[None], "symbol_id": ids})
                tensor.add(found.window, recorder.windows.pop()[0], moment, self.names)
        self.store.clear()
        self.result.model_answers = self.recorder.answers
        if self.result.not_served == self.result.bars:
            raise DataError(
                f"None of the {self.result.bars} replayed bars of {self.symbol!r} has a complete window.",
                hint="It needs more history than the features' warm-up and the look-back together.",
            )
        return self.result

    def _streamed(self) -> Iterator[tuple[datetime, pl.DataFrame]]:
        """Replayed close times with the symbol's streamed row; the window is kept up."""
        past = self.bars.filter(pl.col("event_timestamp") < self.start)
        if past.height:
            before = self.engine.warm(past).filter(pl.col("symbol") == self.symbol)
            self.window.extend(_values(before.tail(self.config.lookback_bars), self.names))
        coming = self.bars.filter(pl.col("event_timestamp") >= self.start).sort("event_timestamp", "symbol")
        for group in coming.partition_by("event_timestamp", maintain_order=True):
            row = self.engine.update(group).filter(pl.col("symbol") == self.symbol)
            if row.height:
                self.window.append(_values(row, self.names)[0])
                yield row["event_timestamp"][0], row


def live_model(workspace: Workspace, symbol: str) -> str | None:
    """The served model that answers for a symbol: its own, the ensemble, the universal one, the baseline; None when
    nothing is live."""
    from barcast.serving.live import LiveReader

    table = LiveReader(workspace.models, workspace.name).read()
    for name in (
        names.model_name(workspace.name, symbol),
        names.ensemble_name(workspace.name),
        names.model_name(workspace.name, None),
        names.linear_name(workspace.name),
    ):
        if table.stable(name) is not None:
            return name
    return None


def _values(frame: pl.DataFrame, feature_names: tuple[str, ...]) -> Values:
    """The features as float32 (n, F), null as NaN."""
    return (
        frame.select(pl.col(list(feature_names)).cast(pl.Float32)).to_numpy().astype(np.float32, copy=False)
    )

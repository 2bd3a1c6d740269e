"""The live loop: each close goes from the feed to features, the online store, a prediction and a decision.

bars of one close → streaming features → windows → prediction (handed over in memory) → push to the online store.
The push comes after the answer, as it takes longer; nothing older than the newest bar is ever answered from.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import polars as pl

from barcast import logs, tracing
from barcast.bars.calendar import Calendar
from barcast.bars.feed import Batch
from barcast.bars.ingest import open_store
from barcast.bars.live import open_log
from barcast.bars.schema import adjusted
from barcast.config import Config
from barcast.errors import BarcastError
from barcast.serving.caches import Window
from barcast.serving.predictor import Predictor, open_predictor
from barcast.serving.types import Prediction

_log = logs.get("live")


class Live:
    """Follows the feed of one workspace; call it with each batch.

    Args:
        config: the workspace's configuration.
        predictor: a predictor of one's own; closed with this object.
        endpoint: model server, host:port; default from the configuration.
    """

    def __init__(
        self, config: Config, *, predictor: Predictor | None = None, endpoint: str | None = None
    ) -> None:
        from barcast.adapters.feast import FeatureStore

        self.config = config
        self.workspace = config.open_workspace()
        self.store = FeatureStore(self.workspace, config)
        self.store.apply()
        self.predictor = predictor or open_predictor(config, self.workspace, endpoint)
        self._warm()

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.predictor.close()

    def _warm(self) -> None:
        """Engine and windows from the table and from what still waits in the feed's log."""
        from barcast.features import StreamEngine, warmup_bars

        config = self.config
        bars = open_store(config, self.workspace)
        need = warmup_bars(config.interval, config.features) + config.lookback_bars + 1
        history = bars.latest(None, need) if bars.exists else pl.DataFrame()
        waiting = open_log(config, self.workspace).pending()
        history = pl.concat([history, waiting]) if bars.exists else waiting
        history = history.unique(["symbol", "event_timestamp"], keep="last").sort("symbol", "event_timestamp")
        self.engine = StreamEngine(config.interval, Calendar.of(config.universe.calendar), config.features)
        rows = self.engine.warm(adjusted(history)).sort("symbol", "event_timestamp")
        self._tails = {
            str(part["symbol"][0]): self._values(part.tail(config.lookback_bars))
            for part in rows.partition_by("symbol")
        }
        self._seen: Any = history["event_timestamp"].max()
        self.predictor.book.refresh()  # now, not between a close and its answer
        if history.height:
            self.predictor.book.update(history)

    def __call__(self, batch: Batch) -> list[Prediction]:
        """Take one close; the answers for its symbols.

        None for bars that time has overtaken, and none where features or stores fail: the bars are safe in the feed's
        log, the fault is logged, and the loop begins again from what is stored.
        """
        known = self._seen is not None and batch.event_timestamp <= self._seen
        if batch.kind in ("late", "correction") or known:
            # A bar of the past changes what follows from it: begin again from what is stored by now.
            _log.info("warmed up again", kind=batch.kind, bar=str(batch.event_timestamp))
            self._warm()
            return []
        close = batch.event_timestamp.isoformat()
        with (
            tracing.span("bar", close=close, symbols=batch.bars.height, kind=batch.kind),
            logs.bound(bar=close),
        ):
            try:
                return self._step(batch)
            except BarcastError as error:
                _log.error("no answer to this close", error=str(error))
                self._warm()
                return []

    def _step(self, batch: Batch) -> list[Prediction]:
        at = batch.event_timestamp
        with tracing.span("features"):
            rows = self.engine.update(adjusted(batch.bars))
            symbols = [str(s) for s in rows["symbol"]]
            for symbol, new in zip(symbols, self._values(rows), strict=True):
                before = self._tails.get(symbol, np.empty((0, len(new)), np.float32))
                self._tails[symbol] = np.concatenate([before, new[None]])[-self.config.lookback_bars :]
            self._seen = at
        whole = [
            s for s in symbols
            if len(self._tails[s]) == self.config.lookback_bars and np.isfinite(self._tails[s]).all()
        ]  # fmt: skip
        self.predictor.observe(batch.bars, [Window.of(s, at, self._tails[s]) for s in whole])
        answers = self.predictor.predict(symbols)
        if whole:
            with tracing.span("push", symbols=len(whole)):
                kept = rows.filter(pl.col("symbol").is_in(whole))
                try:
                    self.store.push(kept, np.stack([self._tails[s] for s in kept["symbol"]]))
                except (
                    BarcastError
                ) as error:  # the answer is given; the next push brings this window's bar too
                    _log.warning("push failed", error=str(error), bar=str(at))
        return answers

    def _values(self, rows: pl.DataFrame) -> np.ndarray:
        values: np.ndarray = rows.select(self.store.names).to_numpy().astype(np.float32)
        return values

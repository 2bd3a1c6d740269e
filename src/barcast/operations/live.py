"""The live loop: each close goes from the feed to features, the online store, a prediction and a decision.

bars of one close → streaming features → windows → prediction (handed over in memory) → push to the online store.
The push comes after the answer, as it takes longer; nothing older than the newest bar is ever answered from.
"""

from __future__ import annotations

from types import TracebackType

from barcast import logs, tracing
from barcast.bars.feed import Batch
from barcast.config import Config
from barcast.errors import BarcastError
from barcast.operations.stream import LiveStream
from barcast.operations.tails import Taken
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
        self.stream = LiveStream(config, self.workspace)
        self._push(self.stream.begin())
        self.moved()

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.keep()
        self.predictor.close()

    def __call__(self, batch: Batch) -> list[Prediction]:
        """Take one close; the answers for its symbols.

        None for bars that time has overtaken, and none where features or stores fail: the bars are safe in the feed's
        log, the fault is logged, and the next close is taken up from what is stored.
        """
        close = batch.event_timestamp.isoformat()
        with (
            tracing.span("bar", close=close, symbols=batch.bars.height, kind=batch.kind),
            logs.bound(bar=close),
        ):
            try:
                return self._step(batch)
            except BarcastError as error:
                _log.error("no answer to this close", error=str(error))
                return []

    def moved(self) -> None:
        """Bars went from the log to the table: read it now, not between a close and its answer."""
        self.predictor.book.refresh()

    def _step(self, batch: Batch) -> list[Prediction]:
        with tracing.span("features"):
            taken = self.stream.take(batch)
        if taken is None or batch.kind in ("late", "correction"):
            # The past changed: windows are made anew, and nobody asks for an answer to it.
            self._push(taken or self.stream.newest(batch.bars["symbol"].to_list()))
            return []
        keys = taken.rows.select("symbol", "event_timestamp").iter_rows() if taken.rows.height else []
        windows = [Window.of(s, at, window) for (s, at), window in zip(keys, taken.windows, strict=True)]
        self.predictor.observe(batch.bars, windows)
        answers = self.predictor.predict([str(s) for s in batch.bars["symbol"]])
        with tracing.span("push", symbols=taken.rows.height):
            self._push(taken)
        return answers

    def _push(self, taken: Taken) -> None:
        """Write rows and windows online; a failure is logged, for the next push brings newer ones."""
        if not taken.rows.height:
            return
        try:
            self.store.push(taken.rows, taken.windows)
        except BarcastError as error:
            _log.warning("push failed", error=str(error))

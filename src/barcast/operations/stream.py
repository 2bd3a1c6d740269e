"""The stream behind the live loop: each close of the feed becomes one row and one window a symbol.

batch of the feed → streaming engine → the last look-back rows of each symbol → their windows. State is kept in a
folder, so that a restart goes on where it stopped; what the table gained meanwhile is worked in first. Without usable
state, or when the past changed in a way that the state cannot follow (another program put a corrected or a missing bar
into the table), the stream is warmed up from the whole table: correlations, higher intervals and recursive features
reach far further back than a look-back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import polars as pl

from barcast import intervals, logs
from barcast.bars.calendars import calendars_of
from barcast.bars.feed import Batch
from barcast.bars.ingest import open_store
from barcast.bars.live import open_log
from barcast.bars.schema import PRICES, adjusted
from barcast.config import Config
from barcast.errors import DataError
from barcast.features import StreamEngine
from barcast.operations.tails import Tails, Taken
from barcast.workspace import Workspace

log = logs.get("operations.stream")
_KEY = ["symbol", "event_timestamp"]
_FACTORS = ["price_factor", "volume_factor"]


class LiveStream:
    """Rows and windows of a workspace's live bars; `begin` first, then `take` each batch.

    Args:
        config, workspace: whose bars and features.

    Attributes:
        names: F names in the order of the windows' last axis.
        warmed: how often history was run from the table's beginning.
    """

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self.warmed = 0
        self._config = config
        self._folder = workspace.state / "stream"
        self._bars, self._log = open_store(config, workspace), open_log(config, workspace)
        self._calendars = calendars_of(config)
        self._engine = self._new_engine()
        self.names = self._engine.plan.names
        self._tails = Tails(self.names, config.lookback_bars)
        self._version = -1
        self._kept = time.monotonic()

    def begin(self) -> Taken:
        """Take up the kept state, or warm up from the table; the newest windows of all symbols."""
        self._log.flush(self._bars)
        if self._bars.exists:
            if not self._taken_up():
                self._warm_up()
            self.keep()
        return self.newest(self._engine.symbols)

    def take(self, batch: Batch) -> Taken | None:
        """The rows and windows that this batch completes; None where its bars were known already.

        A late or corrected bar that the engine refuses (`features.late_bars`) begins the stream again from the table.
        """
        symbols = batch.bars["symbol"].to_list()
        if self._restated():
            self._warm_up()
            return self.newest(symbols)
        newest = self._engine.newest
        past = newest is not None and batch.event_timestamp <= newest
        if past and batch.kind not in ("late", "correction"):
            if self._tails.know(batch.bars):
                return None  # a warm-up has met them in the table
            self._warm_up()  # back-filled for a symbol that had stopped before the others
            return self.newest(symbols)
        try:
            rows = self._engine.update(adjusted(batch.bars))
        except DataError as error:
            log.warning(
                "the stream begins again", close=str(batch.event_timestamp), kind=batch.kind, why=str(error)
            )
            self._warm_up()
            return None
        self._tails.add(rows, batch.bars)
        if time.monotonic() - self._kept > self._config.source.feed.flush_seconds:
            self.keep()
        return self.newest(symbols)

    def keep(self) -> None:
        """Write the state; a crash in between is noticed when it is read."""
        if self._engine.newest is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tails.version = self._version
        self._tails.save(self._folder / "rows.npz")
        self._engine.save(self._folder / "engine")
        self._kept = time.monotonic()

    def newest(self, symbols: Sequence[str]) -> Taken:
        """The newest row and window of these symbols, where the window is whole."""
        return self._tails.newest(symbols)

    def _new_engine(self) -> StreamEngine:
        return StreamEngine(self._config.interval, self._calendars, self._config.features)

    def _taken_up(self) -> bool:
        """Whether the kept state fits the table; bars that the table has gained since are worked in."""
        if not (self._folder / "engine").exists():
            return False
        try:
            self._engine.load(self._folder / "engine")
            self._tails.load(self._folder / "rows.npz")
        except DataError as error:
            log.warning("the stream's state cannot be used; warming up from the table", why=str(error))
            return False
        self._version = self._bars.version
        newest = self._engine.newest
        assert newest is not None
        if self._tails.newest_time != newest or self._past_changed(self._tails.version):
            return False
        if self._other_factors():
            return False
        if set(self._bars.symbols()) - set(self._engine.symbols):  # their past is missing in the state
            return False
        rest = self._bars.read(start=newest)
        if rest.height:
            self._tails.add(self._engine.warm(adjusted(rest)), rest)
        return True

    def _warm_up(self) -> None:
        """A new engine over the whole table, and what waits in the log for it."""
        self._log.flush(self._bars)
        self._engine, self._tails = self._new_engine(), Tails(self.names, self._config.lookback_bars)
        bars = self._bars.read()
        self._tails.add(self._engine.warm(adjusted(bars)), bars)
        self._version = self._bars.version
        self.warmed += 1

    def _restated(self) -> bool:
        """Bring the engine to factors that others than the feed wrote; whether that needs a warm-up instead, as other
        prices of theirs do."""
        commits = self._bars.commits_after(self._version)
        if not commits:
            return False
        before, self._version = self._version, int(commits[-1]["version"])
        if all(commit.get("origin") == "live" for commit in commits):
            return False
        return self._past_changed(before) or self._other_factors()

    def _past_changed(self, before: int) -> bool:
        """Whether the table, since its version `before`, got other prices or bars of a time that was streamed already.

        Other factors are the matter of `_other_factors`. What the feed itself brought in time changes no past.
        """
        newest, commits = self._engine.newest, self._bars.commits_after(before)
        if newest is None or self._bars.stands_at(before):
            return False
        quiet = ("replaced", "late")
        if commits and all(
            commit.get("origin", "live") == "live" and not any(int(commit.get(name, 0)) for name in quiet)
            for commit in commits
        ):
            return False
        try:
            old = self._bars.read(end=newest, version=before)
        except DataError:
            return True  # cleaned away: nobody knows
        now = self._bars.read(end=newest).join(old, on=_KEY, how="left", suffix="_before")
        differs = pl.any_horizontal(pl.col(name) != pl.col(f"{name}_before") for name in (*PRICES, "volume"))
        came = now.filter(pl.col("close_before").is_null())
        return now.filter(differs).height > 0 or not self._tails.know(came)

    def _other_factors(self) -> bool:
        """As `_restated`, by a look into the table.

        Where all remembered bars of a symbol changed by one ratio, every bar of the state is on the old scale and new
        bars are brought to it. Where only some did, a bar was streamed before its split was known.
        """
        if not self._tails.of:
            return False
        came = self._tails.factors()
        first: Any = came["event_timestamp"].min()
        present = self._bars.read(start=first - intervals.parse(self._config.interval))
        both = came.join(present.select(*_KEY, *_FACTORS), on=_KEY, suffix="_now")
        ratios = both.select(
            "symbol", *((pl.col(f"{name}_now") / pl.col(name)).round(9).alias(name) for name in _FACTORS)
        )
        changed = ratios.filter(pl.any_horizontal(pl.col(name) != 1 for name in _FACTORS))
        for (symbol,), part in ratios.filter(pl.col("symbol").is_in(changed["symbol"].implode())).group_by(
            "symbol"
        ):
            ratio = part.select(_FACTORS).unique()
            log.warning("history was restated", symbol=symbol, ratios=ratio.to_dicts())
            if ratio.height > 1:
                return True
            price, volume = ratio.row(0)
            self._engine.rescale(str(symbol), price, volume)
            self._tails.rescale(str(symbol), price, volume)
        return False

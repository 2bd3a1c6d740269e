"""History through the live door: a source whose clock is the replay's, at any speed.

replay = Replay(bars, speed=60)            # one minute of history in a second; speed=inf: as fast as it goes
feed = Feed(replay, symbols, "5m", calendar, now=replay.now, sleep=replay.sleep)
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from barcast.bars.sources.base import between, selected
from barcast.errors import ConfigError, DataError


class Replay:
    """Bars that become visible as the replay's clock passes their `created_timestamp`.

    The clock starts when it is first read. What `fetch` shows and `ended` says is as of its last reading, so that a
    fast replay never runs ahead of its reader; after the last bar it moves only by sleeps.

    Args:
        bars: history (`BARS`).
        start: where the clock begins; default: the first close, so that the second close is the first live one.
        speed: seconds of history in a second; `math.inf` jumps from sleep to sleep.
    """

    def __init__(self, bars: pl.DataFrame, *, start: datetime | None = None, speed: float = math.inf) -> None:
        if bars.height == 0:
            raise DataError("There are no bars to replay.", hint="Ingest some first.")
        if not speed > 0:
            raise ConfigError(f"Replay speed {speed} is not above 0.", hint="60 plays a minute in a second.")
        self._bars, self._speed = bars, speed
        first, last = bars["event_timestamp"].min(), bars["created_timestamp"].max()
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        self._start, self._end = start or first, last
        self._read = self._start
        self._began: float | None = None
        self._jumped = timedelta()

    def now(self) -> datetime:
        """The replay's time."""
        played = 0.0
        if not math.isinf(self._speed):
            moment = time.monotonic()
            self._began = moment if self._began is None else self._began
            span = max((self._end - self._start).total_seconds(), 0.0)
            played = min((moment - self._began) * self._speed, span)
        self._read = self._start + timedelta(seconds=played) + self._jumped
        return self._read

    def sleep(self, seconds: float) -> None:
        """Let that much of the replay's time pass."""
        if math.isinf(self._speed) or self.ended():
            self._jumped += timedelta(seconds=seconds)
        else:
            time.sleep(seconds / self._speed)

    def ended(self) -> bool:
        """Whether all bars have become visible."""
        return self._read >= self._end

    def symbols(self) -> list[str]:
        return sorted(self._bars["symbol"].unique())

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars as `Source.fetch` says, as far as the replay's clock has come."""
        wanted = selected(self.symbols(), symbols)
        known = self._bars.filter(pl.col("symbol").is_in(wanted), pl.col("created_timestamp") <= self._read)
        return between(known, start, end)

"""Live bars kept: feed → durable log → table, with a call for each batch (features, predictions)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from barcast import intervals
from barcast.bars.calendars import calendars_of
from barcast.bars.feed import Batch, Feed, Health
from barcast.bars.ingest import open_store
from barcast.bars.log import BarLog
from barcast.bars.replay import Replay
from barcast.bars.sources import open_source
from barcast.errors import ConfigError
from barcast.workspace import Workspace

if TYPE_CHECKING:
    from barcast.config import Config


_STILL_KINDS = ("sample", "simulator")  # all their bars are there from the start


@dataclass(frozen=True)
class Followed:
    """What a feed brought until it ended.

    Attributes:
        batches, bars: counts.
        health: failures, reconnects, duplicates, corrections, clock skew.
    """

    batches: int
    bars: int
    health: Health


def log_path(workspace: Workspace) -> Path:
    """The file of the workspace's log of live bars."""
    return workspace.logs / "bars.sqlite"


def open_log(config: Config, workspace: Workspace) -> BarLog:
    """The workspace's log of live bars."""
    feed = config.source.feed
    return BarLog(log_path(workspace), flush_bars=feed.flush_bars, flush_seconds=feed.flush_seconds)


def refuse_still(config: Config) -> None:
    """Only a source that brings new bars can be followed (a file may grow).

    Raises:
        ConfigError: the configured source never has a new bar.
    """
    if config.source.kind in _STILL_KINDS:
        raise ConfigError(
            f"The source {config.source.kind!r} has no live bars; there is nothing to follow.",
            hint="Use a live source (ccxt, ib), or play stored bars: `barcast bars feed --replay SPEED`.",
        )


def replay_feed(config: Config, workspace: Workspace, *, speed: float, start: datetime | None = None) -> Feed:
    """The table's bars through the live door again, at `speed` times real time; nothing is stored."""
    replay = Replay(open_store(config, workspace).read(), start=start, speed=speed)
    return Feed(
        replay,
        replay.symbols(),
        config.interval,
        calendars_of(config),
        config=config.source.feed,
        now=replay.now,
        sleep=replay.sleep,
    )


def follow(
    config: Config,
    workspace: Workspace,
    *,
    on_batch: Callable[[Batch], None] | None = None,
    on_moved: Callable[[], None] | None = None,
    stop: Event | None = None,
    replay: Replay | None = None,
    max_batches: int | None = None,
) -> Followed:
    """Follow the configured source from the table's last bars until `stop` is set (or a replay ends).

    A batch is durable in the local log before `on_batch` sees it. The log is moved to the table when it is due (at
    every close of bars at least `flush_seconds` long), at the start (what a crash left) and at the end; `on_moved` is
    called when it was due, between two closes.

    Raises:
        ConfigError: the source never has a new bar.
        DataError: the source failed more often than `source.feed.max_failures`, or a bar broke a row rule.
    """
    if replay is None:
        refuse_still(config)
    store, kept = open_store(config, workspace), open_log(config, workspace)
    kept.flush(store)
    calendars = calendars_of(config)
    source = replay or open_source(
        config.source, interval=config.interval, calendar=config.universe.calendar, calendars=calendars
    )
    live = {"now": replay.now, "sleep": replay.sleep} if replay else {}
    if replay is None:
        source = getattr(
            source, "inner", source
        )  # the configured span is about history; the feed asks by symbol
    wanted = [s for s in source.symbols() if not config.source.symbols or s in config.source.symbols]
    feed = Feed(
        source,
        wanted,
        config.interval,
        calendars,
        after=store.last_timestamps() if store.exists else None,
        config=config.source.feed,
        **live,  # type: ignore[arg-type]
    )
    batches = bars = 0
    try:
        for batch in feed.run(stop):
            kept.append(batch.bars)
            batches, bars = batches + 1, bars + batch.bars.height
            if on_batch is not None:
                on_batch(batch)
            # Bars that come seldom are moved at each close, so that readers of the table are never a bar behind.
            if kept.due() or intervals.seconds(config.interval) >= config.source.feed.flush_seconds:
                kept.flush(store)
                if on_moved is not None:
                    on_moved()
            if max_batches is not None and batches >= max_batches:
                break
    finally:
        kept.flush(store)
    return Followed(batches, bars, feed.health)

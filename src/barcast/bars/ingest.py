"""From the configured source into the bar store: for the pipeline's step and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from barcast import intervals
from barcast.bars.calendars import calendars_of
from barcast.bars.sources import open_source
from barcast.bars.store import BarStore
from barcast.bars.universe import Universe, open_universe
from barcast.errors import DataError
from barcast.workspace import Workspace

if TYPE_CHECKING:
    from barcast.config import Config

LIVE_KINDS = ("ccxt", "ib")
_OVERLAP_BARS = 3  # asked for again, since exchanges correct their newest bars


@dataclass(frozen=True)
class Ingested:
    """What came in.

    Attributes:
        store: the table, ready to read.
        added, replaced, unchanged: bars, as `AppendReport` counts them.
        gaps: expected bars that are missing around what came (`Calendar.gaps`).
        notice: a sentence if the universe was chosen in hindsight, else empty.
    """

    store: BarStore
    added: int
    replaced: int
    unchanged: int
    gaps: pl.DataFrame
    notice: str


def open_store(config: Config, workspace: Workspace) -> BarStore:
    """The workspace's bar store."""
    return BarStore(workspace.bars, config.interval, calendar=calendars_of(config))


def ingest(
    config: Config,
    workspace: Workspace,
    *,
    symbols: Sequence[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Ingested:
    """Fetch from the configured source and append; running it again adds nothing new.

    An exchange is asked only for what the table lacks at its end; other sources give everything they have.
    Symbols carry the present name of the universe.

    Raises:
        DataError: the source has no such symbol, no bars, or bars that break a rule. Nothing is stored then.
    """
    source = open_source(
        config.source,
        interval=config.interval,
        calendar=config.universe.calendar,
        calendars=calendars_of(config),
    )
    store = open_store(config, workspace)
    wanted = list(symbols) if symbols is not None else source.symbols()
    universe = open_universe(config.universe, source_kind=config.source.kind, symbols=wanted)
    if config.source.kind in LIVE_KINDS and start is None and store.exists:
        bars = _new_bars(source, store, wanted, end)
    else:
        bars = source.fetch(wanted, start, end)
    bars = universe.renamed(bars)
    if bars.height == 0 and not store.exists:
        raise DataError(
            f"The source '{config.source.kind}' gave no bars of {', '.join(wanted[:5])}.",
            hint="Check symbols, start and end in the section `source`.",
        )
    report = store.append(bars, origin=config.source.kind)
    return Ingested(
        store, report.added, report.replaced, report.unchanged, report.gaps, _notice(universe, bars, store)
    )


def _new_bars(source: object, store: BarStore, symbols: list[str], end: datetime | None) -> pl.DataFrame:
    from barcast.bars.schema import empty
    from barcast.bars.sources import Source

    assert isinstance(source, Source)
    last = store.last_timestamps()
    back = _OVERLAP_BARS * intervals.parse(store.interval)
    parts = [source.fetch([s], last[s] - back if s in last else None, end) for s in symbols]
    return pl.concat([empty(), *parts])


def _notice(universe: Universe, bars: pl.DataFrame, store: BarStore) -> str:
    first = (bars if bars.height else store.read())["event_timestamp"].min()
    return universe.hindsight(first.date()) if isinstance(first, datetime) else ""

"""Are the data there and in time: bars by their calendar, features of the online store by the bars."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from barcast.operations.monitoring.collect import Collected, ago
from barcast.operations.monitoring.types import Reading


def judge(collected: Collected) -> list[Reading]:
    """Readings of bars and features."""
    if collected.bars.is_empty():
        return [Reading(name="late_closes", value=None, text="there are no bars yet")]
    return [_late(collected), _gaps(collected), _future(collected), *_features(collected)]


def _late(collected: Collected) -> Reading:
    """The most expected closes that a listed symbol is behind."""
    from barcast.bars.universe import open_universe

    config, settings = collected.config, collected.settings
    universe = open_universe(config.universe, source_kind=config.source.kind, symbols=list(collected.last))
    listed = set(universe.members(collected.as_of.date()))
    due = collected.as_of - timedelta(seconds=config.source.feed.deadline_seconds)
    missing = {
        symbol: len(universe.calendar_of(symbol).close_times(last, due, config.interval))
        for symbol, last in collected.last.items()
        if symbol in listed
    }
    worst = max(missing, key=lambda s: missing[s], default="")
    number = missing.get(worst, 0)
    late = number > settings.stale_bars
    several = sum(n > settings.stale_bars for n in missing.values())
    text = f"{worst} is {number} closes behind" if number else "every listed symbol is up to date"
    return Reading(
        name="late_closes",
        value=float(number),
        bound=settings.stale_bars,
        alert="BarsLate" if late else "",
        text=f"{text}; {several} of {len(missing)} symbols are late" if late else text,
    )


def _gaps(collected: Collected) -> Reading:
    """Missing bars among those expected over the newest window."""
    from barcast.bars.calendars import calendars_of, gaps

    config = collected.config
    recent = collected.bars.group_by("symbol", maintain_order=True).tail(collected.settings.window_bars)
    missing = int(gaps(recent, config.interval, calendars_of(config))["missing_bars"].sum())
    share = missing / (missing + recent.height)
    bound = config.quality.max_gap_share
    return Reading(
        name="gap_share",
        value=share,
        bound=bound,
        alert="BarsMissing" if share > bound else "",
        text=f"{missing} bars are missing between the newest {recent.height}",
    )


def _future(collected: Collected) -> Reading:
    """Bars that close after this machine's clock."""
    limit = collected.now + timedelta(seconds=collected.config.source.feed.max_clock_skew_seconds)
    ahead = collected.bars.filter(pl.col("event_timestamp") > limit)
    last = max(collected.last.values())
    return Reading(
        name="future_bars",
        value=float(ahead.height),
        bound=0.0,
        alert="BarsFromFuture" if ahead.height else "",
        text=f"the newest closes {last:%Y-%m-%d %H:%M} UTC, the clock says {collected.now:%Y-%m-%d %H:%M} UTC"
        if ahead.height
        else f"the newest bar closed {ago(last, collected.now)} ago",
    )


def _features(collected: Collected) -> list[Reading]:
    """How far the online store's windows are behind the bars."""
    if not collected.workspace.feast.exists() and collected.config.feast.feature_store_yaml is None:
        return []
    from barcast import intervals
    from barcast.adapters.feast import FeatureStore

    config = collected.config
    found = FeatureStore(collected.workspace, config).online(list(collected.last), strict=False)
    step = intervals.seconds(config.interval)
    behind = {
        symbol: (collected.last[symbol] - row.event_timestamp) / timedelta(seconds=step)
        for symbol, row in found.items()
    }
    worst = max(behind, key=lambda s: behind[s], default="")
    value, bound = behind.get(worst, 0.0), max(collected.settings.stale_bars, 1.0)
    absent = len(collected.last) - len(found)
    text = (
        f"{worst}'s window is {value:.0f} bars behind its newest bar"
        if value > 0
        else "windows are up to date"
    )
    return [
        Reading(
            name="feature_lag_bars",
            value=value,
            bound=bound,
            alert="FeaturesStale" if value > bound else "",
            text=text + (f"; {absent} symbols have none (warm-up)" if absent else ""),
        )
    ]

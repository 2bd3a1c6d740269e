"""What monitoring reads, once a look: bars, labels, features, the prediction log and the registry's state."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from barcast import clock, labels
from barcast.bars.ingest import LIVE_KINDS, open_store
from barcast.bars.schema import adjusted, empty
from barcast.config import Config
from barcast.known_outcomes import known_outcomes

if TYPE_CHECKING:
    from barcast.registry import Registry
    from barcast.registry.state import Model


@dataclass
class References:
    """Features of training periods, kept between the looks of one process: by the end of the training.

    What a look did not ask for (its models were replaced) is dropped after it.
    """

    frames: dict[datetime, pl.DataFrame] = field(default_factory=dict)
    asked: set[datetime] = field(default_factory=set)

    def forget_the_rest(self) -> None:
        """Keep what was asked for since the last call."""
        self.frames = {until: frame for until, frame in self.frames.items() if until in self.asked}
        self.asked = set()


class Collected:
    """One look's view of the workspace; each part is read when first asked for.

    Args:
        references: kept from look to look.
    """

    def __init__(self, config: Config, references: References) -> None:
        self.config = config
        self.settings = config.operations.monitoring
        self.workspace = config.open_workspace()
        self.now = clock.now()
        self.live = config.source.kind in LIVE_KINDS
        self._references = references

    @cached_property
    def bars(self) -> pl.DataFrame:
        """All bars in force, as traded, those still in the feed's log included."""
        store = open_store(self.config, self.workspace)
        stored = store.read() if store.exists else empty()
        log = self.workspace.logs / "bars.sqlite"
        if not log.exists():
            return stored
        from barcast.bars.live import open_log

        waiting = open_log(self.config, self.workspace).pending()
        return (
            pl.concat([stored, waiting])
            .unique(["symbol", "event_timestamp"], keep="last", maintain_order=True)
            .sort("symbol", "event_timestamp")
        )

    @cached_property
    def last(self) -> dict[str, datetime]:
        """Close of each symbol's newest bar."""
        return dict(self.bars.group_by("symbol").agg(pl.col("event_timestamp").max()).iter_rows())

    @property
    def as_of(self) -> datetime:
        """The wall clock where bars come in live, else the newest bar's close."""
        return self.now if self.live or not self.last else max(self.last.values())

    @cached_property
    def outcomes(self) -> pl.DataFrame:
        """Usable labels of all bars, without classes (each model has its own limits)."""
        if self.bars.is_empty():
            return pl.DataFrame()
        return known_outcomes(adjusted(self.bars), self.config)

    @cached_property
    def answers(self) -> pl.DataFrame:
        """The prediction log; no rows where nothing was answered."""
        path = self.workspace.logs / "predictions.db"
        if not path.exists():
            return pl.DataFrame()
        from barcast.serving.prediction_log import PredictionLog

        log = PredictionLog(path)
        try:
            return log.predictions()
        finally:
            log.close()

    @cached_property
    def registry(self) -> Registry | None:
        """The registry; None before anything was registered."""
        if not self.workspace.ledger.exists():
            return None
        from barcast.registry import Registry

        return Registry(self.workspace, self.config)

    @cached_property
    def models(self) -> list[Model]:
        """Live models."""
        if self.registry is None:
            return []
        found = self.registry.state().models
        return [found[name] for name in sorted(found) if found[name].champion is not None]

    def thresholds(self, model: Model) -> labels.Thresholds | None:
        """The class limits that the live version was trained with; None where its files do not say."""
        extra = self.workspace.models / model.name / str(model.champion) / "assets.extra"
        try:
            described = json.loads((extra / "model.json").read_text(encoding="utf-8"))
            return labels.Thresholds(**described["info"]["thresholds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def trained_until(self, model: Model) -> datetime | None:
        """End of what the live version was trained on."""
        assert model.champion is not None
        text = model.versions[model.champion].registered.details.get("trained_until")
        return datetime.fromisoformat(str(text)) if text else None

    def reference(self, until: datetime) -> pl.DataFrame:
        """Features of the `reference_bars` closes up to `until`, all symbols."""
        self._references.asked.add(until)
        if until not in self._references.frames:
            times = self.bars["event_timestamp"].unique().sort()
            times = times.filter(times <= until).tail(self.settings.reference_bars)
            self._references.frames[until] = self._features(times)
        return self._references.frames[until]

    @cached_property
    def recent(self) -> pl.DataFrame:
        """Features of the newest `window_bars` closes, all symbols."""
        return self._features(self.bars["event_timestamp"].unique().sort().tail(self.settings.window_bars))

    def _features(self, times: pl.Series) -> pl.DataFrame:
        """Feature rows at the given closes, computed from the bars that lead to them."""
        from barcast import features
        from barcast.bars import calendars_of

        config = self.config
        if times.is_empty():
            return pl.DataFrame()
        first, last = times[0], times[-1]
        before = self.bars["event_timestamp"].unique().sort()
        warm = features.warmup_bars(config.interval, config.features)
        start = before.filter(before < first).tail(warm)
        begin = start[0] if len(start) else first
        part = self.bars.filter(pl.col("event_timestamp").is_between(begin, last))
        computed = features.compute(
            adjusted(part),
            interval=config.interval,
            calendar=calendars_of(config),
            config=config.features,
        )
        return computed.filter(pl.col("event_timestamp") >= first)


def ago(moment: datetime, now: datetime) -> str:
    """A readable age."""
    seconds = (now - moment) / timedelta(seconds=1)
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

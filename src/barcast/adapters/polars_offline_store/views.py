"""A retrieval over several feature views: what each view asks of its source, and the answers put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from feast import FeatureView
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID

from barcast.adapters.polars_offline_store.files import ParquetFiles
from barcast.adapters.polars_offline_store.joins import answering_rows, as_utc, utc
from barcast.errors import DataError

ENTITY_EVENT = "__entity_event"


@dataclass(frozen=True)
class View:
    """One feature view of a retrieval; `features` maps source column -> output column."""

    name: str
    source: DataSource
    repo_path: Path | None
    keys: dict[str, str]
    event: str
    created: str | None
    ttl: timedelta | None
    features: dict[str, str]

    @property
    def join(self) -> tuple[Any, ...]:
        """Views that agree in this have the same answering rows."""
        return (self.source.name, tuple(self.keys.items()), self.event, self.created, self.ttl)


def view_of(
    view: FeatureView, feature_refs: Sequence[str], full_feature_names: bool, repo_path: Path | None
) -> View:
    source = view.batch_source
    if source is None:
        raise DataError(
            f"Feature view {view.name!r} has no batch source.", hint="It can only be read online."
        )
    stored = {new: old for old, new in source.field_mapping.items()}
    projection: Any = view.projection
    prefix = projection.name_to_use()
    shown = projection.name_alias or view.name
    wanted = [ref.split(":", 1)[1] for ref in feature_refs if ref.startswith(f"{prefix}:")]
    keys = {
        stored.get(e.name, e.name): projection.join_key_map.get(e.name, e.name)
        for e in view.entity_columns
        if e.name != DUMMY_ENTITY_ID
    }
    return View(
        name=view.name,
        source=source,
        repo_path=repo_path,
        keys=keys,
        event=stored.get(source.timestamp_field, source.timestamp_field),
        created=stored.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        ttl=view.ttl,
        features={stored.get(n, n): f"{shown}__{n}" if full_feature_names else n for n in wanted},
    )


def join(
    entities: pl.DataFrame, views: Sequence[View], created_before_entity: bool, moment: datetime | None
) -> pl.DataFrame:
    """Entity rows with each view's features; views on the same rows are read together."""
    groups: dict[tuple[Any, ...], list[View]] = {}
    for view in views:
        groups.setdefault(view.join, []).append(view)
    answers: dict[str, pl.Series] = {}
    for members in groups.values():
        head = members[0]
        found = ParquetFiles.of(head.source, head.repo_path)
        rows = answering_rows(
            found,
            entities,
            entity_event=ENTITY_EVENT,
            keys=head.keys,
            event=head.event,
            created=head.created,
            ttl=head.ttl,
            created_before_entity=created_before_entity,
            known_at=moment,
        )
        columns = list(dict.fromkeys(c for view in members for c in view.features))
        hit = rows >= 0
        needed, position = np.unique(rows[hit], return_inverse=True)
        taken = found.take(needed, columns) if found.paths else empty(columns)
        place = np.full(len(rows), -1, dtype=np.int64)
        place[hit] = position
        index = pl.Series(np.where(hit, place, 0)).set(pl.Series(~hit), None)
        in_order = len(needed) == len(rows) and bool(hit.all()) and bool((np.diff(place) == 1).all())
        for view in members:
            for column, shown in view.features.items():
                values = taken[column]
                answers[shown] = values.rename(shown) if in_order else values.gather(index).rename(shown)
    kept = entities.drop(ENTITY_EVENT)
    return kept.with_columns(answers[name] for view in views for name in view.features.values())


def all_entities(views: Sequence[View], start: datetime | None, end: datetime | None) -> pl.DataFrame:
    frames = []
    for view in views:
        found = ParquetFiles.of(view.source, view.repo_path)
        if not found.paths:
            continue
        scan = found.scan()
        rows = scan.select(
            *[pl.col(s).alias(e) for s, e in view.keys.items()],
            as_utc(view.event, scan.collect_schema()[view.event]).alias("event_timestamp"),
        )
        if start is not None:
            rows = rows.filter(pl.col("event_timestamp") >= utc(start))
        if end is not None:
            rows = rows.filter(pl.col("event_timestamp") <= utc(end))
        frames.append(rows.unique().collect(engine="streaming"))
    if not frames:
        raise DataError("The offline store holds no rows yet.", hint="Write features first.")
    merged = pl.concat(frames, how="diagonal").unique()
    return merged.sort([*[c for c in merged.columns if c != "event_timestamp"], "event_timestamp"])


def empty(columns: Sequence[str]) -> pl.DataFrame:
    """No rows of these columns, of unknown type."""
    return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))

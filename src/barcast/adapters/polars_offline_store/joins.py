"""Which feature row answers an entity row: the point-in-time rules, on narrow key frames.

Rules, as in Feast's own stores: the row's keys equal the entity's; its event time is at or before the
entity's and, with a TTL, not older than it (both ends included); of several, the latest event time wins, then
the latest created time, then the last written. Times are microseconds in UTC; a time without zone is UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from barcast.adapters.polars_offline_store.files import ROW, ParquetFiles

_KEY, _EVENT, _CREATED, _POSITION, _RANK, _KNOWN = (
    "__key",
    "__event",
    "__created",
    "__position",
    "__rank",
    "__known",
)


def as_utc(column: str, dtype: pl.DataType) -> pl.Expr:
    """The column as microseconds in UTC, whatever its unit and zone.

    Raises:
        TypeError: the column holds no times.
    """
    expr = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        aware = (
            expr.dt.replace_time_zone("UTC") if dtype.time_zone is None else expr.dt.convert_time_zone("UTC")
        )
        return aware.dt.cast_time_unit("us")
    if dtype == pl.Date:
        return expr.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype == pl.String:
        return expr.str.to_datetime(time_unit="us", time_zone="UTC")
    raise TypeError(f"Column {column!r} holds {dtype}, expected times.")


def answering_rows(
    files: ParquetFiles,
    entities: pl.DataFrame,
    *,
    entity_event: str,
    keys: Mapping[str, str],
    event: str,
    created: str | None,
    ttl: timedelta | None,
    created_before_entity: bool,
    known_at: datetime | None,
) -> np.ndarray:
    """For each entity row the number of the feature row that answers it, -1 where none does; int64 (n,).

    Args:
        files: the source.
        entities: entity rows; `entity_event` is UTC microseconds.
        keys: source column -> entity column.
        event, created: time columns of the source.
        ttl: how long a row answers after its event time; None or zero means for ever.
        created_before_entity: only rows created at or before the entity's time; Feast calls it
            filter_by_created_timestamp.
        known_at: only rows created at or before this moment.
    """
    none = np.full(entities.height, -1, dtype=np.int64)
    if not files.paths or entities.height == 0:
        return none
    scan = files.scan()
    schema = scan.collect_schema()
    wanted = entities.select(
        *[pl.col(e).alias(s) for s, e in keys.items()],
        pl.col(entity_event).alias(_EVENT),
        pl.int_range(pl.len(), dtype=pl.Int64).alias(_POSITION),
    ).drop_nulls([*keys, _EVENT])
    if wanted.height == 0:
        return none
    for name in keys:
        if wanted.schema[name] != schema[name]:
            wanted = wanted.with_columns(pl.col(name).cast(schema[name]))
    # Keys become small numbers: the frame of a large source stays narrow.
    groups = wanted.select(list(keys)).unique(maintain_order=True).with_row_index(_KEY) if keys else None
    if groups is not None:
        wanted = wanted.join(groups, on=list(keys))
    else:
        wanted = wanted.with_columns(pl.lit(0, dtype=pl.UInt32).alias(_KEY))

    rows = scan.select(
        *keys,
        as_utc(event, schema[event]).alias(_EVENT),
        *([as_utc(created, schema[created]).alias(_CREATED)] if created else []),
        pl.col(ROW),
    )
    last, first = wanted[_EVENT].max(), wanted[_EVENT].min()
    rows = rows.filter(pl.col(_EVENT) <= last)
    if ttl:
        rows = rows.filter(pl.col(_EVENT) + ttl >= first)
    if known_at is not None and created:
        rows = rows.filter(pl.col(_CREATED) <= known_at)
    if groups is not None:
        rows = rows.join(groups.lazy(), on=list(keys), how="inner").drop(list(keys))
    else:
        rows = rows.with_columns(pl.lit(0, dtype=pl.UInt32).alias(_KEY))
    order = [_KEY, _EVENT, *([_CREATED] if created else []), ROW]
    known = rows.select(order).collect(engine="streaming").sort(order, nulls_last=False)

    if created_before_entity and created:
        # A row is eligible from max(event, created) on; of those the best (event, created) wins.
        best = known.drop_nulls(_CREATED)
        eligible = (
            best.select(_KEY, pl.max_horizontal(_EVENT, _CREATED).alias(_KNOWN))
            .with_row_index(_RANK)
            .sort(_KEY, _KNOWN, _RANK)
            .with_columns(pl.col(_RANK).cum_max().over(_KEY))
        )
        known = eligible.select(_KEY, _KNOWN).hstack(best.select(_EVENT, ROW)[eligible[_RANK]])
        known = known.unique([_KEY, _KNOWN], keep="last", maintain_order=True)
    else:
        known = known.unique([_KEY, _EVENT], keep="last", maintain_order=True)
        known = known.with_columns(pl.col(_EVENT).alias(_KNOWN))
    joined = (
        wanted.select(_POSITION, _KEY, pl.col(_EVENT).alias(_KNOWN))
        .sort(_KNOWN)
        .join_asof(
            known.select(_KEY, _KNOWN, _EVENT, ROW).sort(_KNOWN),
            on=_KNOWN,
            by=_KEY,
            strategy="backward",
            check_sortedness=False,
        )
        .drop_nulls(ROW)
    )
    if ttl:
        joined = joined.filter(pl.col(_EVENT) + ttl >= pl.col(_KNOWN))
    none[joined[_POSITION].to_numpy()] = joined[ROW].cast(pl.Int64).to_numpy()
    return none


def latest_rows(
    files: ParquetFiles,
    *,
    keys: list[str],
    event: str,
    created: str | None,
    start: datetime,
    end: datetime,
    known_at: datetime | None,
) -> np.ndarray:
    """Numbers of the latest row of each key with start <= event time <= end; ascending int64."""
    if not files.paths:
        return np.zeros(0, dtype=np.int64)
    scan = files.scan()
    schema = scan.collect_schema()
    rows = scan.select(
        *keys,
        as_utc(event, schema[event]).alias(_EVENT),
        *([as_utc(created, schema[created]).alias(_CREATED)] if created else []),
        pl.col(ROW),
    ).filter(pl.col(_EVENT).is_between(utc(start), utc(end)))
    if known_at is not None and created:
        rows = rows.filter(pl.col(_CREATED) <= known_at)
    order = [_EVENT, *([_CREATED] if created else []), ROW]
    known = rows.collect(engine="streaming").sort(order, nulls_last=False)
    latest = known.unique(keys, keep="last") if keys else known.tail(1)
    return np.sort(latest[ROW].cast(pl.Int64).to_numpy())


def utc(moment: datetime) -> datetime:
    """Aware, in UTC; a naive time is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

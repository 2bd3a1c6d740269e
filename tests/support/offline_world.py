"""A small Feast project over Parquet files, for any offline store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RepoConfig
from feast import FeatureStore as Feast
from feast.data_format import ParquetFormat
from feast.types import Float32, Int64, String
from feast.value_type import ValueType

START = datetime(2024, 3, 9, tzinfo=UTC)


def make_store(folder: Path, offline: str, ttl: timedelta, *, several: bool = False) -> Feast:
    """A project over `rows.parquet` (and `other.parquet`) in `folder`."""
    folder.mkdir(exist_ok=True)
    store = Feast(
        config=RepoConfig(
            project="small",
            provider="local",
            registry=str(folder / f"{offline[:4]}.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": offline},
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)

    def view(name: str, file: str, life: timedelta, *columns: Field) -> FeatureView:
        return FeatureView(
            name=name,
            entities=[symbol],
            ttl=life,
            schema=[Field(name="symbol", dtype=String), *columns],
            source=FileSource(
                name=f"{name}_source",
                path=str(folder / file),
                file_format=ParquetFormat(),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )

    views = [view("rows", "rows.parquet", ttl, Field(name="a", dtype=Float32), Field(name="n", dtype=Int64))]
    if several:
        views.append(view("more", "rows.parquet", ttl, Field(name="b", dtype=Float32)))
        views.append(view("other", "other.parquet", timedelta(0), Field(name="c", dtype=Float32)))
    store.apply([symbol, *views, FeatureService(name="all", features=views)])
    return store


def write_rows(path: Path, rows: list[tuple[str, datetime, datetime | None]], column: str = "a") -> None:
    """Rows whose values are their numbers, so that the answering row can be told."""
    pl.DataFrame(
        {
            "symbol": [r[0] for r in rows],
            "event_timestamp": [r[1] for r in rows],
            "created_timestamp": [r[2] for r in rows],
            column: [float(i) for i in range(len(rows))],
            "b": [float(-i) for i in range(len(rows))],
            "n": list(range(len(rows))),
        },
        schema={
            "symbol": pl.String,
            "event_timestamp": pl.Datetime("us", "UTC"),
            "created_timestamp": pl.Datetime("us", "UTC"),
            column: pl.Float32,
            "b": pl.Float32,
            "n": pl.Int64,
        },
    ).write_parquet(path)

"""Feast's PostgreSQL offline store, able to be written: Feast's own only reads.

Rows go in by COPY, a whole frame at a time; Feast's queries take them out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.infra.utils.postgres.connection_utils import _get_conn
from feast.types import Bytes, Float32, Int64
from psycopg import sql

from barcast.adapters.feast_definitions import CREATED, EVENT, SYMBOL, Definitions
from barcast.errors import DataError

_TYPES: dict[Any, str] = {Float32: "real", Int64: "bigint", Bytes: "bytea"}
_TIME = "%Y-%m-%d %H:%M:%S%.6f%:z"


class WritablePostgreSQLOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """`offline_store` of feature_store.yaml; the other keys are those of Feast's PostgreSQL store."""

    type: Literal["barcast.adapters.feast_postgres.WritablePostgreSQLOfflineStore"] = (
        "barcast.adapters.feast_postgres.WritablePostgreSQLOfflineStore"  # type: ignore[assignment]
    )


class WritablePostgreSQLOfflineStore(PostgreSQLOfflineStore):
    """PostgreSQL offline store with `offline_write_batch`, so that pushes and pipelines can add history."""

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's table, all or none.

        Raises:
            DataError: the view's source is not a PostgreSQL table.
        """
        source = feature_view.batch_source
        if not isinstance(source, PostgreSQLSource) or not source._postgres_options._table:
            raise DataError(
                f"Feature view {feature_view.name!r} has no PostgreSQL table to write to.",
                hint="Give it a PostgreSQLSource with `table`.",
            )
        if "__index_level_0__" in table.column_names:  # Feast passes pandas' index on
            table = table.drop_columns(["__index_level_0__"])
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in frame.columns)
        statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT csv)").format(
            sql.Identifier(source._postgres_options._table), columns
        )
        with _get_conn(config.offline_store) as connection, connection.cursor() as cursor:
            with cursor.copy(statement) as stream:
                for part in frame.iter_slices(50_000):
                    stream.write(part.write_csv(include_header=False, datetime_format=_TIME))
            connection.commit()
        if progress:
            progress(table.num_rows)


def create_tables(config: RepoConfig, definitions: Definitions) -> None:
    """Make the sources' tables and their index; a feature that a table lacks is added as a column."""
    fields = {field.name: field for view in definitions.rows for field in view.features}
    windows = {field.name: field for field in definitions.windows.features}
    with _get_conn(config.offline_store) as connection, connection.cursor() as cursor:
        source: Any
        for source, columns in ((definitions.rows_source, fields), (definitions.windows_source, windows)):
            table = sql.Identifier(source._postgres_options._table)
            cursor.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} ({} text NOT NULL, {} timestamptz NOT NULL, "
                    "{} timestamptz)"
                ).format(table, *(sql.Identifier(name) for name in (SYMBOL, EVENT, CREATED)))
            )
            for name, field in columns.items():
                cursor.execute(
                    sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(
                        table, sql.Identifier(name), sql.SQL(_TYPES[field.dtype])
                    )
                )
            cursor.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} ({}, {} DESC, {} DESC)").format(
                    sql.Identifier(f"{source._postgres_options._table}_keys"),
                    table,
                    *(sql.Identifier(name) for name in (SYMBOL, EVENT, CREATED)),
                )
            )
        connection.commit()


def drop_tables(config: RepoConfig, definitions: Definitions) -> None:
    """Remove the sources' tables with all rows."""
    source: Any
    with _get_conn(config.offline_store) as connection, connection.cursor() as cursor:
        for source in (definitions.rows_source, definitions.windows_source):
            table = sql.Identifier(source._postgres_options._table)
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        connection.commit()


def as_known_at(view: FeatureView, as_of: datetime) -> FeatureView:
    """The view over only those rows that were created at or before `as_of`."""
    source: Any = view.batch_source
    moment = as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of
    past = copy.copy(view)
    past.batch_source = PostgreSQLSource(
        name=source.name,
        query=f"SELECT * FROM {source.get_table_query_string()} "
        f"WHERE {CREATED} <= '{moment.isoformat()}'::timestamptz",
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
    )
    return past

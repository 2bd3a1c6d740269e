"""What Feast calls: historical retrieval, pulls for materialisation, writes. The rules live in `joins`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, OnDemandFeatureView
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from barcast.adapters.polars_offline_store import files
from barcast.adapters.polars_offline_store.files import ParquetFiles
from barcast.adapters.polars_offline_store.job import PolarsRetrievalJob
from barcast.adapters.polars_offline_store.joins import as_utc, latest_rows, utc
from barcast.adapters.polars_offline_store.views import ENTITY_EVENT, all_entities, empty, join, view_of
from barcast.errors import DataError

TYPE = "barcast.adapters.polars_offline_store.PolarsOfflineStore"
_known_at: ContextVar[datetime | None] = ContextVar("polars_offline_store_known_at", default=None)


@contextmanager
def known_at(moment: datetime | None) -> Iterator[None]:
    """Retrievals made inside see only rows created at or before `moment`: a past training set, reproduced."""
    token = _known_at.set(None if moment is None else utc(moment))
    try:
        yield
    finally:
        _known_at.reset(token)


class PolarsOfflineStoreConfig(FeastConfigBaseModel):
    """`offline_store` of feature_store.yaml."""

    type: Literal["barcast.adapters.polars_offline_store.PolarsOfflineStore"] = (
        "barcast.adapters.polars_offline_store.PolarsOfflineStore"
    )


class PolarsOfflineStore(OfflineStore):
    """Feast offline store over Parquet FileSources."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PolarsRetrievalJob:
        """Point-in-time join; the answer keeps the entity rows' order, duplicates and columns.

        Without `entity_df` the entity rows are all keys and event times of the views between the two dates.

        Raises:
            DataError: `entity_df` is a query, or lacks a join key.
        """
        if isinstance(entity_df, str):
            raise DataError(
                "The Polars offline store takes entity rows as a frame, not as a query.",
                hint="Pass a pandas DataFrame with the join keys and event_timestamp.",
            )
        moment = _known_at.get()
        views = [view_of(v, feature_refs, full_feature_names, config.repo_path) for v in feature_views]
        if entity_df is None:
            entities = all_entities(views, start_date, end_date)
            event = "event_timestamp"
        else:
            entities = pl.from_pandas(entity_df)
            event = infer_event_timestamp_from_entity_df(
                dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
            )
        for view in views:
            lost = sorted(set(view.keys.values()) - set(entities.columns))
            if lost:
                raise DataError(
                    f"The entity rows lack the join keys {lost} of view {view.name!r}.",
                    hint=f"Columns given: {entities.columns}.",
                )
        entities = entities.with_columns(as_utc(event, entities.schema[event]).alias(ENTITY_EVENT))

        def run() -> pl.DataFrame:
            return join(entities, views, filter_by_created_timestamp, moment)

        times = entities[ENTITY_EVENT]
        return PolarsRetrievalJob(
            run,
            repo_path=config.repo_path,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[c for c in entities.columns if c not in (event, ENTITY_EVENT)],
                min_event_timestamp=_time(times.min()),
                max_event_timestamp=_time(times.max()),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> PolarsRetrievalJob:
        """The latest row of each key between the dates (both included), for materialisation."""
        moment = _known_at.get()
        keys = [k for k in join_key_columns if k != DUMMY_ENTITY_ID]

        def run() -> pl.DataFrame:
            found = ParquetFiles.of(data_source, config.repo_path)
            rows = latest_rows(
                found,
                keys=keys,
                event=timestamp_field,
                created=created_timestamp_column or None,
                start=start_date,
                end=end_date,
                known_at=moment,
            )
            columns = _columns(keys, feature_name_columns, timestamp_field, created_timestamp_column, found)
            return found.take(rows, columns) if found.paths else empty(columns)

        return PolarsRetrievalJob(run, repo_path=config.repo_path)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PolarsRetrievalJob:
        """All rows between the dates (both included), as stored."""
        keys = [k for k in join_key_columns if k != DUMMY_ENTITY_ID]

        def run() -> pl.DataFrame:
            found = ParquetFiles.of(data_source, config.repo_path)
            columns = _columns(keys, feature_name_columns, timestamp_field, created_timestamp_column, found)
            if not found.paths:
                return empty(columns)
            scan = found.scan()
            event = as_utc(timestamp_field, scan.collect_schema()[timestamp_field])
            if start_date:
                scan = scan.filter(event >= utc(start_date))
            if end_date:
                scan = scan.filter(event <= utc(end_date))
            return scan.select(columns).collect(engine="streaming")

        return PolarsRetrievalJob(run, repo_path=config.repo_path)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's source; its folder is made with the first rows."""
        if "__index_level_0__" in table.column_names:  # Feast passes pandas' index on
            table = table.drop_columns(["__index_level_0__"])
        files.append(ParquetFiles.of(feature_view.batch_source, config.repo_path), table)
        if progress:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Add a file of logged features to the destination's folder."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise DataError(
                f"The Polars offline store logs features to files, not to {type(destination).__name__}.",
                hint="Use feast.infra.offline_stores.file_source.FileLoggingDestination.",
            )
        folder = Path(FileSource.get_uri_for_file_path(config.repo_path, destination.path))
        table = pq.read_table(data) if isinstance(data, Path) else data
        files.write(folder / f"{uuid.uuid4().hex}.parquet", table)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """A source may be empty before its first write; what is there must have its time column."""
        if not isinstance(data_source, FileSource):
            return
        found = ParquetFiles.of(data_source, config.repo_path)
        if found.paths and data_source.timestamp_field not in found.columns():
            raise DataError(
                f"Source {data_source.name!r} has no column {data_source.timestamp_field!r}.",
                hint=f"Its columns are {found.columns()}.",
            )


def _columns(
    keys: Sequence[str], features: Sequence[str], event: str, created: str | None, found: ParquetFiles
) -> list[str]:
    if not features:
        return found.columns()
    return list(dict.fromkeys([*keys, *features, event, *([created] if created else [])]))


def _time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None

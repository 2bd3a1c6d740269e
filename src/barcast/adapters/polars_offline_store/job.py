"""What a retrieval hands over: nothing is read until the result is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
from feast import OnDemandFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from barcast.adapters.polars_offline_store import files
from barcast.errors import DataError


class PolarsRetrievalJob(RetrievalJob):
    """A retrieval that runs when asked.

    Args:
        run: reads and joins; gives the result frame.
        repo_path: folder that relative paths begin at.
    """

    def __init__(
        self,
        run: Callable[[], pl.DataFrame],
        *,
        repo_path: str | Path | None,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        super().__init__()
        self._run = run
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    def to_polars(self) -> pl.DataFrame:
        """The result as a Polars frame, without a copy; on-demand views are not applied."""
        return self._run()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table = self._run().to_arrow(compat_level=pl.CompatLevel.oldest())
        # Feast's type map knows `string`, not `large_string`.
        fields = [
            pa.field(f.name, pa.string()) if pa.types.is_large_string(f.type) else f for f in table.schema
        ]
        fields = [pa.field(f.name, pa.binary()) if pa.types.is_large_binary(f.type) else f for f in fields]
        return table.cast(pa.schema(fields))

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """Write the result, on-demand features included, where a saved dataset keeps it.

        Raises:
            SavedDatasetLocationAlreadyExists: something is there and `allow_overwrite` is false.
            DataError: the storage is not a file storage.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise DataError(
                f"The Polars offline store saves datasets as files, not to {type(storage).__name__}.",
                hint="Use feast.infra.offline_stores.file_source.SavedDatasetFileStorage.",
            )
        uri = storage.file_options.uri
        path = Path(FileSource.get_uri_for_file_path(self._repo_path, uri))
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=uri)
        table = self.to_arrow(timeout=timeout)
        if path.suffix == ".parquet":
            files.write(path, table)
            return
        old = list(path.glob("*.parquet")) if path.is_dir() else []
        files.write(path / files.next_name(old), table)
        for file in old:
            file.unlink()

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

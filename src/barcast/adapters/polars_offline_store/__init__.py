"""A Feast offline store on Polars and Parquet, through Feast's documented OfflineStore interface.

In feature_store.yaml its type is `barcast.adapters.polars_offline_store.PolarsOfflineStore`. `files` finds,
reads and writes Parquet; `joins` decides which row answers; `views` puts several views together; `store` is
what Feast calls; `job` hands the result over.
"""

from barcast.adapters.polars_offline_store.job import PolarsRetrievalJob
from barcast.adapters.polars_offline_store.store import (
    TYPE,
    PolarsOfflineStore,
    PolarsOfflineStoreConfig,
    known_at,
)

__all__ = ["TYPE", "PolarsOfflineStore", "PolarsOfflineStoreConfig", "PolarsRetrievalJob", "known_at"]

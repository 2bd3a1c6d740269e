"""The embedded online store: SQLite with one record per symbol and view, a Feast OnlineStore.

A push or a materialisation writes here; the prediction engine reads from here. Feast's own SQLite store keeps
one record per feature (160 upserts for a row) and lets an old row replace a newer one. Here a row is one
record, so a write is one upsert and a read one look-up, and the newer row wins: by event, then created time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import FeastConfigBaseModel
from pydantic import StrictStr

from barcast import logs

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
_log = logs.get(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEYS_PER_QUERY = 500  # SQLite's limit of bound values is 999 in old builds
_CHECKPOINT_BYTES = 8 << 20
TYPE = "barcast.adapters.feast_sqlite.PackedSqliteOnlineStore"


class PackedSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store` of feature_store.yaml."""

    type: Literal["barcast.adapters.feast_sqlite.PackedSqliteOnlineStore"] = (
        "barcast.adapters.feast_sqlite.PackedSqliteOnlineStore"
    )
    path: StrictStr = "data/online.db"
    """Database file; relative to the feature repository."""
    durable: bool = False
    """Wait for the disk at every write. Without it a power cut may lose the last rows, never the database."""


class PackedSqliteOnlineStore(OnlineStore):
    """Feast online store on SQLite (write-ahead log), safe to use from several threads and processes."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._since_checkpoint = 0
        self._checkpointing = threading.Lock()

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; a row older than the stored one (event time, then created time) changes nothing.

        Only the features named in a row are replaced, as in Feast's own stores.
        """
        name = _quoted(config, table)
        connection = self._connection(config)
        order = [feature.name for feature in table.features]
        whole, whole_text = set(order), _names(order)
        records: list[tuple[Any, ...]] = []
        size = 0
        connection.execute("BEGIN IMMEDIATE")
        try:
            for entity_key, values, event, created in data:
                key = _key(config, entity_key)
                if values.keys() == whole:
                    names = order
                else:
                    self._upsert(connection, name, records)  # the stored row may be one of this batch
                    records.clear()
                    values = {**self._stored(connection, name, key), **values}
                    names = list(values)
                payload = RepeatedValue(val=[values[n] for n in names]).SerializeToString()
                size += len(payload)
                text = whole_text if names is order else _names(names)
                records.append(
                    (key, _micros(event), _micros(created) if created is not None else None, text, payload)
                )
            self._upsert(connection, name, records)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._checkpoint(config, size)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Rows in the order of the keys, each with its event time (aware, UTC); (None, None) where absent."""
        name = _quoted(config, table)
        connection = self._connection(config)
        keys = [_key(config, entity_key) for entity_key in entity_keys]
        found: dict[bytes, tuple[datetime | None, dict[str, Value] | None]] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            rows = connection.execute(
                f"SELECT entity_key, event_us, names, vals FROM {name} WHERE entity_key IN ({marks})", part
            )
            for key, event_us, names, payload in rows:
                values = dict(zip(json.loads(names), RepeatedValue.FromString(payload).val, strict=True))
                if requested_features is not None:
                    values = {n: values[n] for n in requested_features if n in values}
                found[key] = (_EPOCH + timedelta(microseconds=event_us), values)
        return [found.get(key, (None, None)) for key in keys]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Create the tables of the views that stay, drop those of the views that go."""
        connection = self._connection(config)
        for table in tables_to_keep:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_quoted(config, table)} (entity_key BLOB PRIMARY KEY, "
                "event_us INTEGER NOT NULL, created_us INTEGER, names TEXT NOT NULL, vals BLOB NOT NULL)"
            )
        for table in tables_to_delete:
            connection.execute(f"DROP TABLE IF EXISTS {_quoted(config, table)}")

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop every view's table."""
        self.update(config, tables, [], entities, [], partial=False)

    def _upsert(self, connection: sqlite3.Connection, name: str, records: list[tuple[Any, ...]]) -> None:
        connection.executemany(
            f"INSERT INTO {name} AS old (entity_key, event_us, created_us, names, vals) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT(entity_key) DO UPDATE SET event_us = excluded.event_us, "
            "created_us = excluded.created_us, names = excluded.names, vals = excluded.vals "
            "WHERE excluded.event_us > old.event_us OR (excluded.event_us = old.event_us AND "
            "coalesce(excluded.created_us, excluded.event_us) >= coalesce(old.created_us, old.event_us))",
            records,
        )

    def _stored(self, connection: sqlite3.Connection, name: str, key: bytes) -> dict[str, Value]:
        row = connection.execute(f"SELECT names, vals FROM {name} WHERE entity_key = ?", (key,)).fetchone()
        if row is None:
            return {}
        return dict(zip(json.loads(row[0]), RepeatedValue.FromString(row[1]).val, strict=True))

    def _checkpoint(self, config: RepoConfig, written: int) -> None:
        """Now and then carry the log into the database, in a thread: no write waits for it."""
        self._since_checkpoint += written
        if self._since_checkpoint < _CHECKPOINT_BYTES or not self._checkpointing.acquire(blocking=False):
            return
        self._since_checkpoint = 0

        def run() -> None:
            try:
                self._connection(config).execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.Error as error:
                _log.warning("checkpoint failed, the next one will do its work", error=str(error))
            finally:
                connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
                if connection is not None:
                    connection.close()
                self._checkpointing.release()

        threading.Thread(target=run, name="online-store-checkpoint", daemon=True).start()

    def _connection(self, config: RepoConfig) -> sqlite3.Connection:
        """This thread's connection: SQLite connections may not be shared by threads that write at once."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            path = Path(config.online_store.path)
            if not path.is_absolute() and config.repo_path is not None:
                path = Path(config.repo_path) / path
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # `_checkpoint` does it
            connection.execute(f"PRAGMA synchronous={'FULL' if config.online_store.durable else 'NORMAL'}")
            self._local.connection = connection
        return connection


def _quoted(config: RepoConfig, table: FeatureView) -> str:
    name = compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
    return '"' + name.replace('"', '""') + '"'


def _key(config: RepoConfig, entity_key: EntityKey) -> bytes:
    return bytes(serialize_entity_key(entity_key, config.entity_key_serialization_version))


def _names(names: Sequence[str]) -> str:
    return json.dumps(list(names), separators=(",", ":"))


def _micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC; a naive time is UTC, as Feast's interface says."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)

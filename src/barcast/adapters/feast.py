"""The feature store of a workspace: what trainers, pipelines and the prediction engine call instead of Feast.

Features frames go in at `write_offline` (history) and `push` (live); they come out at `training_rows`
(point-in-time correct, for training sets) and `online` (the window of now). `materialize` carries history to
the online store.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from barcast import clock
from barcast.adapters import feast_checks, feast_config, feast_materialize, feast_online
from barcast.adapters.feast_checks import TIME
from barcast.adapters.feast_definitions import EVENT, SYMBOL, WINDOW
from barcast.adapters.feast_materialize import Materialized, quiet
from barcast.adapters.feast_online import (
    Float32,
    Freshness,
    MissingWindowError,
    OnlineRow,
    StaleWindowError,
)
from barcast.adapters.polars_offline_store import PolarsRetrievalJob, known_at
from barcast.bars.calendar import Calendar
from barcast.bars.universe import Universe, open_universe
from barcast.config import Config
from barcast.errors import ConfigError, ServingError, first_line
from barcast.workspace import Workspace

__all__ = ["FeatureStore", "Materialized", "MissingWindowError", "OnlineRow", "StaleWindowError"]

_ROWS_AT_ONCE = 100_000  # bounds the memory of a write


class FeatureStore:
    """Feast for one workspace.

    Args:
        workspace: where state lives; its name is the Feast project.
        config: interval, generation, look-back and the section `feast`.
        feature_names: F names in the order of the model's input; by default those of `barcast.features`.
        cross_symbol: names that depend on other symbols; by default what `barcast.features` says.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: Config,
        feature_names: Sequence[str] | None = None,
        *,
        cross_symbol: Collection[str] | None = None,
    ) -> None:
        self.workspace = workspace
        self.config = config
        self.repo = feast_config.repo_config(workspace, config)
        self.names, self.definitions = feast_config.definitions_of(
            self.repo, workspace, config, feature_names, cross_symbol
        )
        self.shape = (config.lookback_bars, len(self.names))
        self._freshness = Freshness(config.interval, config.feast.max_age_bars, self._calendar)

    @cached_property
    def feast(self) -> Any:
        """The `feast.FeatureStore` underneath."""
        from feast import FeatureStore as Feast

        return Feast(config=self.repo)

    def apply(self) -> None:
        """Write the definitions to Feast's registry, make the stores ready; repeating changes nothing."""
        with self._answering("offline store or registry"):
            if feast_config.is_postgres(self.repo):
                from barcast.adapters.feast_postgres import create_tables

                create_tables(self.repo, self.definitions)
            with quiet():
                self.feast.apply(self.definitions.objects())
        self.__dict__.pop("views", None)

    def clear(self) -> None:
        """Remove this workspace's rows from both stores; the definitions stay in the registry."""
        self.provider.teardown_infra(self.repo.project, [*self.views, self.definitions.windows], [])
        if feast_config.is_postgres(self.repo):
            from barcast.adapters.feast_postgres import drop_tables

            drop_tables(self.repo, self.definitions)
        else:
            for source in (self.definitions.rows_source, self.definitions.windows_source):
                shutil.rmtree(source.path, ignore_errors=True)  # type: ignore[attr-defined]

    def write_offline(self, features: pl.DataFrame) -> int:
        """Add feature rows to the offline store; returns how many were new or different.

        Args:
            features: symbol, event_timestamp, created_timestamp and the F features.

        Rows equal to what is stored are left out, so a repeated run adds nothing. A row with another value at
        the same symbol and event time stands beside the old one; the later created answers from then on.

        Raises:
            DataError: a column is missing or unknown, a key is null, a feature is NaN or infinite.
        """
        rows = feast_checks.history(features, self.names)
        written = 0
        for part in rows.iter_slices(_ROWS_AT_ONCE):
            stored = self.training_rows(part.select(SYMBOL, EVENT))
            same = pl.all_horizontal(pl.col(n).eq_missing(pl.col(f"{n}__stored")) for n in self.names)
            beside = part.hstack(stored.select(pl.col(self.names).name.suffix("__stored")))
            changed = beside.filter(~same).select(part.columns)
            if changed.height:
                table = changed.to_arrow(compat_level=pl.CompatLevel.oldest())
                self.provider.ingest_df_to_offline_store(self.views[0], table)
            written += changed.height
        return written

    def training_rows(self, entities: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
        """Each entity row with the features that hold at its time; order, duplicates and columns are kept.

        Args:
            entities: symbol, event_timestamp and any other columns.
            as_of: only rows created at or before it; reproduces a past training set.

        Returns:
            The columns of `entities` and the F features (null where no row answers within the TTL).
        """
        views = list(self.views)
        refs = [f"{view.name}:{field.name}" for view in views for field in view.features]
        keys = entities.select(SYMBOL, pl.col(EVENT).cast(TIME))
        if as_of is not None and feast_config.is_postgres(self.repo):
            from barcast.adapters.feast_postgres import as_known_at

            views = [as_known_at(view, as_of) for view in views]
        with self._answering("offline store"), quiet(), known_at(as_of):
            job = self.provider.get_historical_features(
                self.repo, views, refs, keys.to_pandas(), self.feast.registry, self.repo.project, False
            )
            found = frame_of(job)
        features = [pl.col(name).cast(pl.Float32) for name in self.names]
        if isinstance(job, PolarsRetrievalJob):
            found = found.select(features)
        else:  # SQL answers in any order
            found = found.with_columns(pl.col(EVENT).cast(TIME)).unique([SYMBOL, EVENT])
            found = keys.join(found, on=[SYMBOL, EVENT], how="left", maintain_order="left").select(features)
        return entities.hstack(found)

    def materialize(self, as_of: datetime | None = None) -> Materialized:
        """Carry the latest row and window of every symbol to the online store.

        Every run looks at all keys of the offline store, not at what came since the last run, so a late or
        corrected row is never lost; the online store keeps what is newer, so nothing is set back.

        Args:
            as_of: nothing later than this; the present by default.
        """
        return feast_materialize.run(self, as_of or clock.now())

    def push(self, rows: pl.DataFrame, windows: Float32 | None = None) -> None:
        """Write live rows and their windows online; they can be read when this returns.

        Args:
            rows: features frame, one row a symbol.
            windows: float32 (n, T, F), window i ends with row i; without it only the rows are written.

        Raises:
            DataError: a column is missing, a value is null, a window has another shape or another last row.
        """
        symbols, events, created, values = feast_checks.live(rows, self.names)
        if not symbols:
            return
        if windows is not None:
            whole = feast_checks.windows(windows, values, self.shape)
            self.write_windows(symbols, events, created, whole)
        for view, columns in self._columns:
            names = [self.names[i] for i in columns]
            self._write(view, feast_online.row_records(symbols, events, created, names, values[:, columns]))

    def write_windows(
        self, symbols: Sequence[str], ends: Sequence[datetime], created: Sequence[datetime], windows: Float32
    ) -> None:
        """Write windows float32 (n, T, F) online, ending at `ends`, known at `created`."""
        records = feast_online.window_records(symbols, ends, created, windows)
        self._write(self.definitions.windows, records)

    def online(
        self, symbols: Sequence[str], as_of: datetime | None = None, *, strict: bool = True
    ) -> dict[str, OnlineRow]:
        """The window of each symbol, read as one record.

        Args:
            symbols: whose.
            as_of: the moment that freshness is judged at; the present by default.
            strict: refuse stale and missing windows; otherwise mark the stale and leave out the missing.

        Raises:
            MissingWindowError, StaleWindowError: with the symbols and their ages (strict only).
            DataError: a stored window has another shape.
        """
        now = as_of or clock.now()
        found: dict[str, OnlineRow] = {}
        for symbol, (_, values) in zip(symbols, self._read(self.definitions.windows, symbols), strict=True):
            if values and values[WINDOW].bytes_val:
                end, created, window = feast_online.read_window(symbol, values, self.shape)
                stale = self._freshness.stale(symbol, end, now)
                found[symbol] = OnlineRow(symbol, end, created, window[-1], window, now - end, stale)
        if strict:
            self._refuse(symbols, found)
        return found

    def online_rows(self, symbols: Sequence[str]) -> pl.DataFrame:
        """The latest row of each symbol from the row views: symbol, event_timestamp, F features.

        Null where the store has no row of the symbol.
        """
        values = np.full((len(symbols), len(self.names)), np.nan, dtype=np.float32)
        times: list[datetime | None] = [None] * len(symbols)
        for view, columns in self._columns:
            fields = [field.name for field in view.features]
            for i, (time, found) in enumerate(self._read(view, symbols)):
                if found and any(value.WhichOneof("val") for value in found.values()):
                    times[i] = time
                    known = (found[name] for name in fields)
                    values[i, columns] = [v.float_val if v.HasField("float_val") else np.nan for v in known]
        keys = pl.DataFrame({SYMBOL: list(symbols), EVENT: times}, schema={SYMBOL: pl.String, EVENT: TIME})
        return keys.hstack(pl.DataFrame(values, schema=list(self.names), nan_to_null=True))

    @cached_property
    def views(self) -> tuple[Any, ...]:
        """The row views as registered, checked against this generation.

        Raises:
            ConfigError: nothing is registered, or another feature set.
        """
        from feast.errors import FeastObjectNotFoundException
        from google.protobuf.message import DecodeError

        views = []
        for view in self.definitions.rows:
            try:
                known = self.feast.registry.get_feature_view(view.name, self.repo.project)
            except FeastObjectNotFoundException:
                raise ConfigError(
                    f"Feast project {self.repo.project!r} has no feature view {view.name!r}.",
                    hint="Call FeatureStore.apply(), or run `feast apply` in feature_repo.",
                ) from None
            except DecodeError as error:
                raise ConfigError(
                    f"Feast's registry ({self.repo.registry.path}) is damaged: {error}.",
                    hint="Remove the file and apply the definitions again; no features are lost.",
                ) from error
            if [f.name for f in known.features] != [f.name for f in view.features]:
                raise ConfigError(
                    f"Feast project {self.repo.project!r} was registered with other features: {view.name!r} "
                    f"has {len(known.features)}, expected {len(view.features)} in this generation's order.",
                    hint="Apply the definitions again; for a changed feature set start a new generation.",
                )
            views.append(known)
        return tuple(views)

    @cached_property
    def _universe(self) -> Universe:
        return open_universe(self.config.universe, source_kind=self.config.source.kind)

    @property
    def provider(self) -> Any:
        """Feast's provider, once the registered views are known to fit."""
        _ = self.views
        return self.feast._get_provider()

    @cached_property
    def _columns(self) -> list[tuple[Any, list[int]]]:
        """Each row view with the places of its features in the generation's order."""
        place = {name: i for i, name in enumerate(self.names)}
        return [(view, [place[f.name] for f in view.features]) for view in self.definitions.rows]

    def _write(self, view: Any, records: list[Any]) -> None:
        with self._answering():
            self.provider.online_write_batch(self.repo, view, records, None)

    def _read(self, view: Any, symbols: Sequence[str]) -> list[Any]:
        keys = [feast_online.entity_key(symbol) for symbol in symbols]
        with self._answering():
            answers: list[Any] = self.provider.online_read(
                self.repo, view, keys, [field.name for field in view.features]
            )
        return answers

    @contextlib.contextmanager
    def _answering(self, store: str = "online store") -> Iterator[None]:
        """Turn a store's own failure into a message that says which store."""
        try:
            yield
        except Exception as error:
            database = type(error).__module__.split(".")[0] in ("redis", "psycopg", "sqlalchemy")
            if not database and not isinstance(error, sqlite3.Error | OSError):
                raise
            kind = self.repo.online_store.type if store == "online store" else self.repo.offline_store.type
            if type(error).__module__.startswith("sqlalchemy"):  # only Feast's registry is reached by it
                store, kind = "feature store's registry", "SQL"
            raise ServingError(
                f"The {store} ({kind}) does not answer: {first_line(error)}",
                hint="Check that it runs and that its address in feature_store.yaml is right.",
            ) from error

    def _calendar(self, symbol: str) -> Calendar:
        return self._universe.calendar_of(symbol)

    def _refuse(self, symbols: Sequence[str], found: Mapping[str, OnlineRow]) -> None:
        missing = [symbol for symbol in symbols if symbol not in found]
        if missing:
            raise MissingWindowError(
                f"The online store holds no window of {', '.join(missing[:5])}.",
                hint=f"Push or materialise its features; it needs {self.shape[0]} bars after the warm-up.",
            )
        told = [
            f"{r.symbol} ({r.age} old, last bar {r.event_timestamp:%F %R} UTC)"
            for r in found.values()
            if r.stale
        ]
        if told:
            raise StaleWindowError(
                f"Stale windows are refused: {', '.join(told[:5])}; at most {self.config.feast.max_age_bars} "
                f"bars of {self.config.interval} may have closed since.",
                hint="Check the feed, or raise feast.max_age_bars.",
            )


def frame_of(job: Any) -> pl.DataFrame:
    """A retrieval's result as a Polars frame."""
    found = job.to_polars() if isinstance(job, PolarsRetrievalJob) else pl.from_arrow(job.to_arrow())
    assert isinstance(found, pl.DataFrame)
    return found

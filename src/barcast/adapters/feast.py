"""The feature store of a workspace: what trainers, pipelines and the prediction engine call instead of Feast.

Features frames go in at `write_offline` (history) and `push` (live); they come out at `training_rows` (point-in-time
correct, for training sets) and `online` (the window of now). `materialize` carries history to the online store.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast import clock, intervals, logs
from barcast.adapters import feast_config, feast_online
from barcast.adapters.feast_definitions import CREATED, EVENT, SYMBOL, Definitions, define
from barcast.adapters.feast_online import (
    Float32,
    Freshness,
    MissingWindowError,
    OnlineRow,
    StaleWindowError,
)
from barcast.adapters.polars_offline_store import PolarsRetrievalJob, known_at
from barcast.bars.calendar import Calendar
from barcast.config import Config
from barcast.errors import ConfigError, DataError, ServingError
from barcast.workspace import Workspace

__all__ = ["FeatureStore", "Materialized", "MissingWindowError", "OnlineRow", "StaleWindowError"]

_log = logs.get(__name__)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Materialized:
    """What a materialisation did.

    Attributes:
        rows: symbols whose latest row was offered to the online store.
        windows: symbols whose window was written.
        without_window: symbol -> why it has none (too few rows, a null feature).
    """

    rows: int
    windows: int
    without_window: Mapping[str, str]


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
        if feature_names is None:
            feature_names, found = catalogue_names(config)
            cross_symbol = found if cross_symbol is None else cross_symbol
        self.workspace = workspace
        self.config = config
        self.names = tuple(feature_names)
        self.shape = (config.lookback_bars, len(self.names))
        self.repo = feast_config.repo_config(workspace, config)
        self.definitions: Definitions = define(
            self.names,
            interval=config.interval,
            generation=config.generation,
            lookback_bars=config.lookback_bars,
            source=feast_config.source_factory(self.repo, workspace.features, config.feast.owner),
            ttl_bars=config.feast.ttl_bars,
            owner=config.feast.owner,
            cross_symbol=cross_symbol or (),
        )
        self._freshness = Freshness(config.interval, config.feast.max_age_bars, self._calendar)

    @cached_property
    def feast(self) -> Any:
        """The `feast.FeatureStore` underneath."""
        from feast import FeatureStore as Feast

        return Feast(config=self.repo)

    def apply(self) -> None:
        """Write the definitions to Feast's registry and make the stores ready. Repeating it changes nothing."""
        if feast_config.is_postgres(self.repo):
            from barcast.adapters.feast_postgres import create_tables

            create_tables(self.repo, self.definitions)
        with _quiet():
            self.feast.apply(self.definitions.objects())
        self.__dict__.pop("_views", None)

    def write_offline(self, features: pl.DataFrame) -> int:
        """Add feature rows to the offline store; returns how many were new or different.

        Args:
            features: symbol, event_timestamp, created_timestamp and the F features.

        Rows equal to what is stored are left out, so repeating a run adds nothing. A row with another value at the
        same symbol and event time stands beside the old one; the later created wins from its created time on.

        Raises:
            DataError: a column is missing or unknown, a key is null, a feature is NaN or infinite.
        """
        rows = self._checked(features)
        changed = self._changed(rows)
        if changed.height:
            table = changed.to_arrow(compat_level=pl.CompatLevel.oldest())
            self._provider.ingest_df_to_offline_store(self._views[0], table)
        return changed.height

    def training_rows(self, entities: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
        """Each entity row with the features that hold at its time; order, duplicates and columns are kept.

        Args:
            entities: symbol, event_timestamp and any other columns.
            as_of: only rows created at or before it; reproduces a past training set.

        Returns:
            The columns of `entities` and the F features (null where no row answers within the TTL).
        """
        views = list(self._views)
        refs = [f"{view.name}:{field.name}" for view in views for field in view.features]
        frame = entities.with_columns(pl.col(EVENT).cast(pl.Datetime("us", "UTC"))).to_pandas()
        if as_of is not None and feast_config.is_postgres(self.repo):
            from barcast.adapters.feast_postgres import as_known_at

            views = [as_known_at(view, as_of) for view in views]
        with _quiet(), known_at(as_of):
            job = self._provider.get_historical_features(
                self.repo, views, refs, frame, self.feast.registry, self.repo.project, False
            )
            found = job.to_polars() if isinstance(job, PolarsRetrievalJob) else pl.from_arrow(job.to_arrow())
        assert isinstance(found, pl.DataFrame)
        if not isinstance(
            job, PolarsRetrievalJob
        ):  # SQL answers in no order, without the repeated rows' order
            found = found.with_columns(pl.col(EVENT).cast(pl.Datetime("us", "UTC"))).unique([SYMBOL, EVENT])
            found = entities.join(
                found.select(SYMBOL, EVENT, *self.names),
                on=[SYMBOL, EVENT],
                how="left",
                maintain_order="left",
            )
        kept = [c for c in entities.columns if c not in self.names]
        return found.select(*kept, *[pl.col(n).cast(pl.Float32) for n in self.names])

    def materialize(self, as_of: datetime | None = None) -> Materialized:
        """Carry the latest row and window of every symbol to the online store.

        Every run looks at all keys of the offline store, not at what came since the last run, so a late or corrected
        row is never lost; the online store keeps whatever is newer, so nothing is set back.

        Args:
            as_of: nothing later than this; the present by default.
        """
        end = as_of or clock.now()
        views = [view.name for view in self._views]
        with _quiet():
            self.feast.materialize(
                start_date=_BEGINNING, end_date=end, feature_views=views, disable_event_timestamp=True
            )
        keys = self._latest_keys(end)
        if keys.height == 0:
            return Materialized(0, 0, {})
        rows = self.training_rows(keys)
        symbols, ends, created, windows = [], [], [], []
        without: dict[str, str] = {}
        for (symbol,), group in rows.group_by(SYMBOL, maintain_order=True):
            values = group.select(self.names).to_numpy().astype(np.float32, copy=False)
            if len(values) < self.shape[0]:
                without[str(symbol)] = f"{len(values)} rows, {self.shape[0]} needed"
            elif not np.isfinite(values).all():
                lost = [n for n in self.names if group[n].null_count()]
                without[str(symbol)] = f"null in {', '.join(lost[:3])}" + (
                    " and others" if len(lost) > 3 else ""
                )
            else:
                symbols.append(str(symbol))
                ends.append(group[EVENT][-1])
                created.append(group[CREATED].max())
                windows.append(values)
        if symbols:
            records = feast_online.window_records(symbols, ends, created, np.stack(windows))
            self._write(self.definitions.windows, records)
        if without:
            _log.warning("symbols without a window", symbols=without)
        return Materialized(keys[SYMBOL].n_unique(), len(symbols), without)

    def push(self, rows: pl.DataFrame, windows: Float32 | None = None) -> None:
        """Write live rows and their windows online; they can be read when this returns.

        Args:
            rows: features frame, one row a symbol.
            windows: float32 (n, T, F), window i ends with row i; without it only the rows are written.

        Raises:
            DataError: a column is missing, a value is null, a window has another shape or another last row.
        """
        rows = self._checked(rows)
        if rows.height == 0:
            return
        if rows.select(pl.any_horizontal(pl.col(self.names).null_count() > 0)).item():
            lost = [n for n in self.names if rows[n].null_count()]
            raise DataError(
                f"Rows with null features cannot be served: {', '.join(lost[:5])}.",
                hint="Push a symbol once its warm-up is over.",
            )
        if windows is not None:
            self._write(self.definitions.windows, self._window_records(rows, windows))
        for view in self.definitions.rows:
            self._write(view, feast_online.row_records(rows, [f.name for f in view.features]))

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
        view = self.definitions.windows
        keys = [feast_online.entity_key(symbol) for symbol in symbols]
        names = [field.name for field in view.features]
        with self._answering():
            answers = self._provider.online_read(self.repo, view, keys, names)
        found: dict[str, OnlineRow] = {}
        for symbol, (_, values) in zip(symbols, answers, strict=True):
            if not values or not values[feast_online.WINDOW].bytes_val:
                continue
            end, created, window = feast_online.read_window(symbol, values, self.shape)
            stale = self._freshness.stale(symbol, end, now)
            found[symbol] = OnlineRow(symbol, end, created, window[-1], window, now - end, stale)
        if strict:
            self._refuse(symbols, found)
        return found

    def online_rows(self, symbols: Sequence[str]) -> pl.DataFrame:
        """The latest row of each symbol from the row views: symbol, event_timestamp, F features (null: absent)."""
        keys = [feast_online.entity_key(symbol) for symbol in symbols]
        columns: dict[str, list[float | None]] = {}
        times: list[datetime | None] = [None] * len(keys)
        for view in self.definitions.rows:
            names = [field.name for field in view.features]
            with self._answering():
                answers = self._provider.online_read(self.repo, view, keys, names)
            times = [time or new for time, (new, _) in zip(times, answers, strict=True)]
            for name in names:
                columns[name] = [
                    values[name].float_val if values and values[name].HasField("float_val") else None
                    for _, values in answers
                ]
        return pl.DataFrame(
            {SYMBOL: list(symbols), EVENT: times, **{name: columns[name] for name in self.names}},
            schema={
                SYMBOL: pl.String,
                EVENT: pl.Datetime("us", "UTC"),
                **dict.fromkeys(self.names, pl.Float32),
            },
        )

    @cached_property
    def _views(self) -> tuple[Any, ...]:
        """The row views as registered, checked against this generation.

        Raises:
            ConfigError: nothing is registered, or another feature set.
        """
        from feast.errors import FeastObjectNotFoundException

        views = []
        for view in self.definitions.rows:
            try:
                known = self.feast.registry.get_feature_view(view.name, self.repo.project)
            except FeastObjectNotFoundException:
                raise ConfigError(
                    f"Feast project {self.repo.project!r} has no feature view {view.name!r}.",
                    hint="Call FeatureStore.apply(), or run `feast apply` in feature_repo.",
                ) from None
            if [f.name for f in known.features] != [f.name for f in view.features]:
                raise ConfigError(
                    f"Feast project {self.repo.project!r} was registered with other features "
                    f"({len(known.features)} in {view.name!r}, {len(view.features)} expected, or another order).",
                    hint="Apply the definitions again; for a changed feature set start a new generation.",
                )
            views.append(known)
        return tuple(views)

    @property
    def _provider(self) -> Any:
        _ = self._views
        return self.feast._get_provider()

    def _write(self, view: Any, records: list[Any]) -> None:
        with self._answering():
            self._provider.online_write_batch(self.repo, view, records, None)

    @contextlib.contextmanager
    def _answering(self) -> Any:
        """Turn a store's own failure into a message that says which store."""
        import sqlite3

        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._no_answer(error) from error
        except Exception as error:
            if type(error).__module__.startswith("redis"):
                raise self._no_answer(error) from error
            raise

    def _no_answer(self, error: Exception) -> ServingError:
        return ServingError(
            f"The online store ({self.repo.online_store.type}) does not answer: {error}",
            hint="Check that it runs and that its address in feature_store.yaml is right.",
        )

    def _window_records(self, rows: pl.DataFrame, windows: Float32) -> list[Any]:
        whole = np.asarray(windows, dtype=np.float32)
        if whole.shape != (rows.height, *self.shape):
            raise DataError(
                f"Windows have the shape {whole.shape}, expected {(rows.height, *self.shape)} (rows, bars, features).",
                hint="Give one window a row, with all features of the generation.",
            )
        if not np.isfinite(whole).all():
            raise DataError(
                "A window holds a value that is not finite.", hint="Push once its warm-up is over."
            )
        last = rows.select(self.names).to_numpy()
        if not np.array_equal(whole[:, -1], last):
            raise DataError(
                "A window does not end with its row.", hint="Give windows in the order of the rows."
            )
        return feast_online.window_records(
            rows[SYMBOL].to_list(), rows[EVENT].to_list(), rows[CREATED].to_list(), whole
        )

    def _checked(self, features: pl.DataFrame) -> pl.DataFrame:
        columns = [SYMBOL, EVENT, CREATED, *self.names]
        missing, extra = set(columns) - set(features.columns), set(features.columns) - set(columns)
        if missing or extra:
            raise DataError(
                f"The features frame lacks {sorted(missing)[:5]} and has unknown {sorted(extra)[:5]}.",
                hint=f"It needs symbol, event_timestamp, created_timestamp and the {len(self.names)} features.",
            )
        rows = features.select(
            SYMBOL,
            pl.col(EVENT, CREATED).cast(pl.Datetime("us", "UTC")),
            pl.col(self.names).cast(pl.Float32),
        )
        if rows.select(pl.sum_horizontal(pl.col(SYMBOL, EVENT, CREATED).null_count())).item():
            raise DataError("A feature row has no symbol or no time.", hint="Drop such rows.")
        bad = rows.select((~pl.col(self.names).is_finite()).any()).row(0, named=True)
        lost = [name for name, found in bad.items() if found]
        if lost:
            raise DataError(
                f"Features are NaN or infinite: {', '.join(lost[:5])}.", hint="Unknown values are null."
            )
        return rows

    def _changed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that differ from what the offline store answers at exactly their time."""
        stored = self.training_rows(rows.select(SYMBOL, EVENT))
        same = pl.all_horizontal(pl.col(n).eq_missing(pl.col(f"{n}__stored")) for n in self.names)
        beside = rows.hstack(stored.select(pl.col(self.names).name.suffix("__stored")))
        return beside.filter(~same).select(rows.columns)

    def _latest_keys(self, end: datetime) -> pl.DataFrame:
        """The last T (symbol, event_timestamp, created_timestamp) of each symbol up to `end`, in order."""
        source, view = self.definitions.rows_source, self._views[0]
        columns = [view.features[0].name]
        # Far more time than T bars span, nights and holidays included; a symbol with fewer rows is read whole.
        span = intervals.parse(self.config.interval) * self.shape[0] * 8 + timedelta(days=14)
        keys = self._keys_between(source, columns, end - span, end)
        counts = keys.group_by(SYMBOL).len()
        if keys.height == 0 or counts["len"].min() < self.shape[0]:  # type: ignore[operator]
            keys = self._keys_between(source, columns, _BEGINNING, end)
        return keys.group_by(SYMBOL, maintain_order=True).tail(self.shape[0]).sort(SYMBOL, EVENT)

    def _keys_between(self, source: Any, columns: list[str], start: datetime, end: datetime) -> pl.DataFrame:
        job = self._provider.offline_store.pull_all_from_table_or_query(
            self.repo, source, [SYMBOL], columns, EVENT, CREATED, start, end
        )
        found = job.to_polars() if isinstance(job, PolarsRetrievalJob) else pl.from_arrow(job.to_arrow())
        assert isinstance(found, pl.DataFrame)
        return (
            found.select(SYMBOL, pl.col(EVENT, CREATED).cast(pl.Datetime("us", "UTC")))
            .sort(SYMBOL, EVENT, CREATED)
            .unique([SYMBOL, EVENT], keep="last", maintain_order=True)
        )

    def _calendar(self, symbol: str) -> Calendar:
        return Calendar.of(self.config.universe.calendar)

    def _refuse(self, symbols: Sequence[str], found: Mapping[str, OnlineRow]) -> None:
        missing = [symbol for symbol in symbols if symbol not in found]
        if missing:
            raise MissingWindowError(
                f"The online store holds no window of {', '.join(missing[:5])}.",
                hint="Push or materialise the symbol's features; it needs "
                f"{self.shape[0]} bars after its warm-up.",
            )
        old = [row for row in found.values() if row.stale]
        if old:
            told = ", ".join(
                f"{r.symbol} ({r.age} old, last bar {r.event_timestamp:%Y-%m-%d %H:%M} UTC)" for r in old[:5]
            )
            raise StaleWindowError(
                f"Stale windows are refused: {told}; at most {self.config.feast.max_age_bars} bars of "
                f"{self.config.interval} may have closed since.",
                hint="Check the feed, or raise feast.max_age_bars.",
            )


def catalogue_names(config: Config) -> tuple[tuple[str, ...], frozenset[str]]:
    """The generation's feature names in order, and which of them depend on other symbols."""
    from barcast import features

    names = features.feature_names(config.interval, config.features)
    specs = {spec.name: spec for spec in features.catalogue(config.interval)}
    return names, frozenset(n for n in names if n in specs and specs[n].cross_symbol)


@contextlib.contextmanager
def _quiet() -> Any:
    """Feast prints progress on standard output and warns of its own deprecations: both go to the log."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    if said.getvalue().strip():
        _log.debug("feast", said=said.getvalue().strip())

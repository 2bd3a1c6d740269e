"""What Feast knows of barcast: the entity, sources, views and services of one workspace.

Feature names come from `barcast.features`; nothing is transformed here. Both sides build their definitions
from this module: `feature_repo` (for `feast apply`) and `adapters.feast.FeatureStore.apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.types import Bytes, Float32, Int64, String
from feast.value_type import ValueType

from barcast import intervals
from barcast.errors import ConfigError, did_you_mean

SYMBOL = "symbol"
EVENT = "event_timestamp"
CREATED = "created_timestamp"
ROWS, WINDOWS = "bar_features", "bar_windows"
CROSS = "cross_symbol_features"
ROWS_PUSH, WINDOWS_PUSH = "bar_features_push", "bar_windows_push"
WINDOW, WINDOW_END, WINDOW_CREATED = "window", "window_end_us", "window_created_us"

SourceFactory = Callable[[str], DataSource]
"""Makes the batch source of a dataset name ("rows" or "windows")."""


@dataclass(frozen=True)
class Definitions:
    """All Feast objects of a workspace.

    Attributes:
        rows: views that together hold the latest row, one record per symbol.
        windows: the view of the look-back window: one Bytes feature, online only.
    """

    symbol: Entity
    rows_source: DataSource
    windows_source: DataSource
    rows_push: PushSource
    windows_push: PushSource
    rows: tuple[FeatureView, ...]
    windows: FeatureView
    services: tuple[FeatureService, ...]

    def objects(self) -> list[Any]:
        """Everything, for `feast.FeatureStore.apply`."""
        return [
            self.symbol,
            self.rows_source,
            self.windows_source,
            self.rows_push,
            self.windows_push,
            *self.rows,
            self.windows,
            *self.services,
        ]


def define(
    names: Sequence[str],
    *,
    interval: str,
    generation: str,
    lookback_bars: int,
    source: SourceFactory,
    ttl_bars: float = 0.5,
    owner: str = "barcast",
    cross_symbol: Collection[str] = (),
) -> Definitions:
    """The definitions of one model generation.

    Args:
        names: F feature names in the order of the generation's model input.
        interval: bar interval, such as "5m".
        generation: the FeatureService's name, such as "direction_v1".
        lookback_bars: T, rows of a window.
        source: makes the batch source of "rows" and of "windows", by environment.
        ttl_bars: how long a row stays valid in a historical join, in bars.
        owner: owner of every object.
        cross_symbol: those of `names` that depend on other symbols; they get a view of their own.

    Raises:
        ConfigError: a name is given twice or collides with a key, or `cross_symbol` names an unknown feature.
    """
    _check(names, cross_symbol)
    ttl = max(timedelta(seconds=1), intervals.parse(interval) * ttl_bars)
    tags = {"interval": interval, "generation": generation}
    symbol = Entity(
        name=SYMBOL,
        join_keys=[SYMBOL],
        value_type=ValueType.STRING,
        description="One series of bars, such as BTC/USDT or AAPL.",
        tags=tags,
        owner=owner,
    )
    rows_source, windows_source = source("rows"), source("windows")
    rows_push = PushSource(
        name=ROWS_PUSH,
        batch_source=rows_source,
        description="Rows from the streaming engine, one a closed bar.",
        tags=tags,
        owner=owner,
    )
    windows_push = PushSource(
        name=WINDOWS_PUSH,
        batch_source=windows_source,
        description="Look-back windows from the streaming engine.",
        tags=tags,
        owner=owner,
    )

    def view(name: str, features: Sequence[Field], push: PushSource, description: str) -> FeatureView:
        return FeatureView(
            name=name,
            entities=[symbol],
            ttl=ttl,
            schema=[Field(name=SYMBOL, dtype=String), *features],
            source=push,
            online=True,
            description=description,
            tags=tags,
            owner=owner,
        )

    own = [name for name in names if name not in set(cross_symbol)]
    peers = [name for name in names if name in set(cross_symbol)]
    rows = [
        view(name, [Field(name=n, dtype=Float32) for n in columns], rows_push, description)
        for name, columns, description in (
            (ROWS, own, "The latest row of a symbol: what its own bars, the calendar and its regime say."),
            (CROSS, peers, "The latest row of a symbol: what its peers say."),
        )
        if columns
    ]
    windows = view(
        WINDOWS,
        [
            Field(
                name=WINDOW,
                dtype=Bytes,
                description=f"Little-endian float32 ({lookback_bars}, {len(names)}), oldest bar first.",
            ),
            Field(
                name=WINDOW_END,
                dtype=Int64,
                description="Close of the last bar, microseconds since 1970, UTC.",
            ),
            Field(
                name=WINDOW_CREATED,
                dtype=Int64,
                description="When it was known, microseconds since 1970, UTC.",
            ),
        ],
        windows_push,
        "The look-back window a model reads, in one record; online only.",
    )
    services = (
        FeatureService(
            name=generation,
            features=list(rows),
            description=f"The {len(names)} features of generation {generation}, as rows.",
            tags={**tags, "num_features": str(len(names))},
            owner=owner,
        ),
        FeatureService(
            name=f"{generation}_window",
            features=[windows],
            description=f"The look-back window of generation {generation}.",
            tags={**tags, "num_features": str(len(names)), "lookback_bars": str(lookback_bars)},
            owner=owner,
        ),
    )
    return Definitions(
        symbol, rows_source, windows_source, rows_push, windows_push, tuple(rows), windows, services
    )


def file_source(folder: Path, generation: str, dataset: str, *, owner: str = "barcast") -> FileSource:
    """The Parquet source of a dataset: a folder of files below `folder`, one for each generation."""
    return FileSource(
        name=f"{dataset}_source",
        path=str(Path(folder).absolute() / generation / dataset),
        file_format=ParquetFormat(),
        timestamp_field=EVENT,
        created_timestamp_column=CREATED,
        description=f"Feature {dataset} as Parquet.",
        owner=owner,
    )


def postgres_source(project: str, generation: str, dataset: str, *, owner: str = "barcast") -> DataSource:
    """The PostgreSQL source of a dataset: one table named after Feast project and generation."""
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

    return PostgreSQLSource(
        name=f"{dataset}_source",
        table=f"{project}_{generation}_{dataset}",
        timestamp_field=EVENT,
        created_timestamp_column=CREATED,
        description=f"Feature {dataset} in PostgreSQL.",
        owner=owner,
    )


def _check(names: Sequence[str], cross_symbol: Collection[str]) -> None:
    taken = {SYMBOL, EVENT, CREATED, WINDOW, WINDOW_END, WINDOW_CREATED}
    if not names:
        raise ConfigError("A generation has no features.", hint="Give at least one feature name.")
    for name in names:
        if name in taken:
            raise ConfigError(
                f"Feature name {name!r} is given twice or is a key of the feature frame.",
                hint="Feature names are unique and differ from symbol, event_timestamp, created_timestamp.",
            )
        taken.add(name)
    for name in cross_symbol:
        if name not in names:
            raise ConfigError(
                f"Cross-symbol feature {name!r} is not one of the features.", hint=did_you_mean(name, names)
            )

"""Carrying history to the online store: latest rows by Feast's own materialisation, windows by ours."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from barcast import intervals, logs
from barcast.adapters.feast_checks import TIME
from barcast.adapters.feast_definitions import CREATED, EVENT, SYMBOL
from barcast.adapters.feast_online import Float32

if TYPE_CHECKING:
    from barcast.adapters.feast import FeatureStore

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


def run(store: FeatureStore, end: datetime) -> Materialized:
    """See `FeatureStore.materialize`."""
    views = [view.name for view in store.views]
    with quiet():
        store.feast.materialize(start_date=_BEGINNING, end_date=end, feature_views=views)
    keys = _latest_keys(store, end)
    if keys.height == 0:
        return Materialized(0, 0, {})
    lookback_bars = store.shape[0]
    symbols: list[str] = []
    ends: list[Any] = []
    created: list[Any] = []
    windows: list[Float32] = []
    without: dict[str, str] = {}
    for (name,), group in store.training_rows(keys, as_of=None).group_by(SYMBOL, maintain_order=True):
        symbol = str(name)
        values = group.select(store.names).to_numpy().astype(np.float32, copy=False)
        if len(values) < lookback_bars:
            without[symbol] = f"{len(values)} rows, {lookback_bars} needed"
        elif not np.isfinite(values).all():
            lost = [n for n in store.names if group[n].null_count()]
            without[symbol] = f"null in {', '.join(lost[:3])}" + (" and others" if len(lost) > 3 else "")
        else:
            symbols.append(symbol)
            ends.append(group[EVENT][-1])
            created.append(group[CREATED].max())
            windows.append(values)
    if symbols:
        store.write_windows(symbols, ends, created, np.stack(windows))
    if without:
        _log.warning("symbols without a window", symbols=without)
    return Materialized(keys[SYMBOL].n_unique(), len(symbols), without)


def _latest_keys(store: FeatureStore, end: datetime) -> pl.DataFrame:
    """The last T (symbol, event_timestamp, created_timestamp) of each symbol up to `end`, in order."""
    lookback_bars = store.shape[0]
    # Far more time than T bars span, nights and holidays included; else everything is looked at.
    span = intervals.parse(store.config.interval) * lookback_bars * 8 + timedelta(days=14)
    keys = _keys_between(store, end - span, end)
    counts = keys.group_by(SYMBOL).len()["len"]
    if keys.height == 0 or (counts < lookback_bars).any():
        keys = _keys_between(store, _BEGINNING, end)
    return keys.group_by(SYMBOL, maintain_order=True).tail(lookback_bars).sort(SYMBOL, EVENT)


def _keys_between(store: FeatureStore, start: datetime, end: datetime) -> pl.DataFrame:
    from barcast.adapters.feast import frame_of

    job = store.provider.offline_store.pull_all_from_table_or_query(
        store.repo,
        store.definitions.rows_source,
        [SYMBOL],
        [store.names[0]],
        EVENT,
        CREATED,
        start,
        end,
    )
    return (
        frame_of(job)
        .select(SYMBOL, pl.col(EVENT, CREATED).cast(TIME))
        .sort(SYMBOL, EVENT, CREATED)
        .unique([SYMBOL, EVENT], keep="last", maintain_order=True)
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast prints progress on standard output and warns of its own deprecations: both go to the log."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    if said.getvalue().strip():
        _log.debug("feast", said=said.getvalue().strip())

"""Answers for bars handed over, instead of those the workspace has stored.

bars given + the other symbols' stored bars up to the same close → features → windows → the same engine. Nothing is
kept: no store, cache or log learns of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barcast.bars import adjusted, calendars_of
from barcast.decisions.types import Account
from barcast.errors import DataError
from barcast.serving.market import MarketBook
from barcast.serving.types import Prediction

if TYPE_CHECKING:
    from barcast.serving.predictor import Predictor


@dataclass(frozen=True)
class _Row:
    event_timestamp: datetime
    window: NDArray[np.float32]
    stale: bool = False


class _Given:
    """The windows just computed, as an online store; symbols without a whole one are left out."""

    def __init__(self, rows: Mapping[str, _Row], names: Sequence[str]) -> None:
        self._rows, self.names = rows, tuple(names)

    def online(self, symbols: Sequence[str]) -> Mapping[str, _Row]:
        return {s: self._rows[s] for s in symbols if s in self._rows}


def predict_given(
    predictor: Predictor, bars: pl.DataFrame, *, explain: bool = False, account: Account | None = None
) -> list[Prediction]:
    """One answer per symbol of `bars`, as of its newest close; see `Predictor.predict`.

    Args:
        bars: bars frame, as traded, with the history that features and the look-back need.

    Raises:
        DataError: no bars.
    """
    from barcast.bars.ingest import open_store
    from barcast.features import compute, feature_names
    from barcast.serving.predictor import Predictor

    config = predictor.config
    if bars.height == 0:
        raise DataError("No bars were given.", hint="Give at least the look-back and the features' warm-up.")
    symbols = bars["symbol"].unique().sort().to_list()
    stored = open_store(config, predictor.workspace)
    if stored.exists:
        times = pl.col("event_timestamp")
        peers = stored.read().filter(
            ~pl.col("symbol").is_in(symbols),
            times >= bars["event_timestamp"].min(),
            times <= bars["event_timestamp"].max(),
        )
        bars = pl.concat([bars.select(peers.columns), peers])
    names = feature_names(config.interval, config.features)
    features = compute(
        adjusted(bars),
        interval=config.interval,
        calendar=calendars_of(config),
        config=config.features,
    )
    rows = {}
    for part in features.filter(pl.col("symbol").is_in(symbols)).partition_by("symbol"):
        newest = part.sort("event_timestamp").tail(config.lookback_bars)
        window = newest.select(names).to_numpy().astype(np.float32)
        if len(window) == config.lookback_bars and np.isfinite(window).all():
            rows[str(part["symbol"][0])] = _Row(newest["event_timestamp"][-1], window)
    book = MarketBook(config.interval)
    book.update(bars)
    engine = Predictor(
        predictor.workspace,
        config,
        store=_Given(rows, names),
        book=book,
        client=predictor.client,
        metrics=predictor.metrics,
    )
    try:
        return engine.predict(symbols, explain=explain, account=account)
    finally:
        engine.chain.close()  # the client is the caller's

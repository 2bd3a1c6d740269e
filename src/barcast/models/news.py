"""The slot for news: what a source of news must give, and how it becomes features that the models may read.

A source gives scored items with the time they became known; `features` turns them into columns of each bar, using
items known at its close only. Columns named news_* make the ensemble's news specialist appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

ITEMS = {
    "symbol": pl.Utf8,
    "created_timestamp": pl.Datetime("us", "UTC"),
    "sentiment": pl.Float64,
    "relevance": pl.Float64,
}


class NewsSource(Protocol):
    """Gives items of the symbols known at or before `as_of`: columns ITEMS, sentiment in [-1, 1], relevance >= 0."""

    def items(self, symbols: Sequence[str], as_of: datetime) -> pl.DataFrame: ...


@dataclass(frozen=True)
class FixedNews:
    """A source that gives the items it was made with: for tests and replays."""

    frame: pl.DataFrame

    def items(self, symbols: Sequence[str], as_of: datetime) -> pl.DataFrame:
        known = pl.col("symbol").is_in(list(symbols)) & (pl.col("created_timestamp") <= as_of)
        return self.frame.filter(known).select(*ITEMS)


def features(rows: pl.DataFrame, source: NewsSource, *, window: str = "1d") -> pl.DataFrame:
    """`rows` (symbol, event_timestamp, ...) with `news_count` and `news_sentiment` Float32.

    Both look at items known in (t - window, t]; sentiment is their mean weighted by relevance, 0 without any.
    """
    if rows.is_empty():
        return rows.with_columns(news_count=pl.lit(0.0, pl.Float32), news_sentiment=pl.lit(0.0, pl.Float32))
    latest: datetime = rows["event_timestamp"].max()  # type: ignore[assignment]
    items = source.items(rows["symbol"].unique().to_list(), latest)
    keys = rows.select("symbol", "event_timestamp").unique()
    stacked = pl.concat(
        [
            items.select(
                "symbol",
                pl.col("created_timestamp").alias("t"),
                (pl.col("sentiment") * pl.col("relevance")).alias("weighted"),
                "relevance",
                pl.lit(1.0).alias("count"),
            ),
            keys.select(
                "symbol",
                pl.col("event_timestamp").alias("t"),
                pl.lit(0.0).alias("weighted"),
                pl.lit(0.0).alias("relevance"),
                pl.lit(0.0).alias("count"),
            ),
        ]
    ).sort("symbol", "t")
    sums = stacked.rolling(index_column="t", period=window, group_by="symbol").agg(
        pl.col("weighted").sum(), pl.col("relevance").sum(), pl.col("count").sum()
    )
    made = (
        sums.unique(["symbol", "t"], keep="last")
        .with_columns(
            pl.col("count").cast(pl.Float32).alias("news_count"),
            pl.when(pl.col("relevance") > 0)
            .then(pl.col("weighted") / pl.col("relevance"))
            .otherwise(0.0)
            .cast(pl.Float32)
            .alias("news_sentiment"),
        )
        .select("symbol", pl.col("t").alias("event_timestamp"), "news_count", "news_sentiment")
    )
    return rows.join(made, on=["symbol", "event_timestamp"], how="left", maintain_order="left")

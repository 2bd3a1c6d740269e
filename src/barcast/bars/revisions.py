"""Revisions of bars: given what is stored and what arrives, which rows to insert, update and delete.

Pure. Per bar the revisions are ordered by `created_timestamp`; of neighbours with equal values one stays (the
stored one: a bar that says nothing new changes nothing); each is superseded when the next was created. Apart from
that the result depends on the set of revisions, not on their arrival.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from barcast.bars.schema import BARS, KEY, PRICES, TIME, VALUES

REVISIONS = pl.Schema({**BARS, "superseded_timestamp": TIME})
_ID = [*KEY, "created_timestamp"]


@dataclass(frozen=True)
class Plan:
    """Attributes:
    operations: `REVISIONS` and op (insert, update, delete); update changes superseded_timestamp only.
    added: bars (keys) that are new.
    replaced: bars whose values in force change.
    unchanged: the other bars that arrived.
    """

    operations: pl.DataFrame
    added: pl.DataFrame
    replaced: int
    unchanged: int


def plan(stored: pl.DataFrame, arriving: pl.DataFrame, now: datetime) -> Plan:
    """How to bring `arriving` (`BARS`, unique keys) into `stored` (`REVISIONS`, all revisions of those keys).

    An arriving bar with the `created_timestamp` of a stored revision but other values counts as known `now`.
    """
    rows = _restamped(stored, arriving, now)
    known = stored.select(*BARS.names(), is_new=pl.lit(False))
    everything = pl.concat([known, rows.with_columns(is_new=pl.lit(True))]).sort(*_ID, "is_new")
    # Sorted by key, so neighbours are compared directly: a window over millions of one-row groups is slow.
    same_bar = pl.all_horizontal(pl.col(*KEY) == pl.col(*KEY).shift(1))
    changed = pl.any_horizontal(pl.col(*VALUES) != pl.col(*VALUES).shift(1))
    runs = everything.with_columns(run=(changed | ~same_bar).fill_null(True).cum_sum())
    wanted = runs.sort("run", "is_new", "created_timestamp").unique("run", keep="first", maintain_order=True)
    wanted = wanted.drop("run", "is_new")
    followed = pl.all_horizontal(pl.col(*KEY) == pl.col(*KEY).shift(-1))
    wanted = wanted.with_columns(
        superseded_timestamp=pl.when(followed).then(pl.col("created_timestamp").shift(-1))
    )
    have = stored.select(*_ID, old=pl.col("superseded_timestamp"), is_stored=pl.lit(True))
    matched = wanted.join(have, on=_ID, how="left")
    inserts = matched.filter(pl.col("is_stored").is_null()).select(*REVISIONS.names(), op=pl.lit("insert"))
    updates = matched.filter(pl.col("is_stored"), pl.col("old").ne_missing(pl.col("superseded_timestamp")))
    deletes = stored.join(wanted, on=_ID, how="anti")
    operations = pl.concat(
        [
            inserts,
            updates.select(*REVISIONS.names(), op=pl.lit("update")),
            deletes.select(*REVISIONS.names(), op=pl.lit("delete")),
        ]
    )
    added = arriving.join(stored, on=list(KEY), how="anti")
    before = stored.filter(pl.col("superseded_timestamp").is_null()).select(*KEY, *VALUES)
    after = wanted.filter(pl.col("superseded_timestamp").is_null()).select(*KEY, *VALUES)
    replaced = (
        after.join(before, on=list(KEY), how="semi").join(before, on=[*KEY, *VALUES], how="anti").height
    )
    return Plan(operations, added, replaced, arriving.height - added.height - replaced)


def first_known(bars: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """`bars` with the `created_timestamp` at which the same prices as traded were first known.

    Args:
        bars: in force; earlier: revisions of them that were superseded. Both `BARS`.
    """
    if earlier.height == 0:
        return bars
    traded = (*PRICES, "volume")
    same = bars.join(earlier, on=list(KEY), suffix="_earlier").filter(
        pl.all_horizontal(pl.col(name) == pl.col(f"{name}_earlier") for name in traded)
    )
    first = same.group_by(KEY).agg(first=pl.col("created_timestamp_earlier").min())
    joined = bars.join(first, on=list(KEY), how="left", maintain_order="left")
    return joined.with_columns(created_timestamp=pl.min_horizontal("created_timestamp", "first")).drop(
        "first"
    )


def _restamped(stored: pl.DataFrame, arriving: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Arriving bars; those that contradict a stored revision created at the same time are known `now`."""
    if stored.height == 0:
        return arriving
    same = [pl.col(name) == pl.col(f"{name}_stored") for name in VALUES]
    joined = arriving.join(stored, on=_ID, how="left", suffix="_stored", maintain_order="left")
    contradicts = pl.col("close_stored").is_not_null() & ~pl.all_horizontal(same)
    newest = stored.group_by(KEY).agg(newest=pl.col("created_timestamp").max())
    later = pl.max_horizontal(
        pl.lit(now, dtype=TIME), pl.col("newest") + pl.duration(microseconds=1), pl.col("created_timestamp")
    )
    return (
        joined.join(newest, on=list(KEY), how="left", maintain_order="left")
        .with_columns(created_timestamp=pl.when(contradicts).then(later).otherwise("created_timestamp"))
        .select(BARS.names())
    )

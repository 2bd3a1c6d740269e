"""What the workspace knows of its symbols, for the automatic priority, and which have no model of their own yet.

Bars give traded value and volatility, the registry age and reliability of models, the log of answers use and
opportunity. Drift is measured by monitoring and handed in.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from barcast.config import Config
from barcast.operations.queue_priority import Facts

_RECENT_BARS = 500
_USE_DAYS = 7.0


def gather(config: Config, *, drift: Mapping[str, float] | None = None) -> dict[str, Facts]:
    """The facts of every symbol in the table of bars.

    Args:
        drift: population stability index of symbols, where measured.
    """
    from barcast.bars.ingest import open_store

    workspace = config.open_workspace()
    if not workspace.bars.exists():
        return {}
    bars = open_store(config, workspace).latest(None, _RECENT_BARS)
    if bars.height == 0:
        return {}
    as_of: Any = bars["event_timestamp"].max()
    found = market(bars, config)
    ages, reliability = _models(config, as_of)
    asked, expected = _answers(config)
    return {
        symbol: replace(
            facts,
            model_age_days=ages.get(symbol, math.inf),
            reliability=reliability.get(symbol),
            answers_per_day=asked.get(symbol, 0.0),
            opportunity=expected.get(symbol),
            drift=(drift or {}).get(symbol),
        )
        for symbol, facts in found.items()
    }


def market(bars: pl.DataFrame, config: Config) -> dict[str, Facts]:
    """Traded value a day and annualised volatility of each symbol, from bars as traded."""
    from barcast.bars.calendar import Calendar
    from barcast.bars.schema import adjusted

    yearly = math.sqrt(Calendar.of(config.universe.calendar).bars_per_year(config.interval))
    days = (
        bars.group_by("symbol", pl.col("event_timestamp").dt.date().alias("day"))
        .agg((pl.col("close") * pl.col("volume")).sum().alias("value"))
        .group_by("symbol")
        .agg(pl.col("value").mean())
    )
    moves = (
        adjusted(bars)
        .sort("symbol", "event_timestamp")
        .group_by("symbol", maintain_order=True)
        .agg(pl.col("close").log().diff().std().alias("deviation"))
    )
    rows = days.join(moves, on="symbol").sort("symbol").iter_rows(named=True)
    return {
        row["symbol"]: Facts(
            traded_value=row["value"],
            volatility=None if row["deviation"] is None else row["deviation"] * yearly,
        )
        for row in rows
    }


def uncovered(config: Config, facts: Mapping[str, Facts]) -> list[str]:
    """Symbols with rows enough for a model of their own that the universal model still answers for."""
    from barcast.bars.ingest import open_store

    own = _models(config, None)[0]
    store = open_store(config, config.open_workspace())
    least = config.training.min_symbol_rows
    counts = store.read(symbols=sorted(facts)).group_by("symbol").len()
    enough = set(counts.filter(pl.col("len") >= least)["symbol"])
    return sorted(symbol for symbol in facts if symbol in enough and symbol not in own)


def _models(config: Config, as_of: datetime | None) -> tuple[dict[str, float], dict[str, float]]:
    """Age in days and reliability of the live models of symbols."""
    from barcast import names
    from barcast.registry import Registry

    workspace = config.open_workspace()
    ages: dict[str, float] = {}
    reliability: dict[str, float] = {}
    if not workspace.ledger.exists():
        return ages, reliability
    for name, model in Registry(workspace, config.registry).state().models.items():
        symbol = names.symbol_of(name)
        if symbol is None or model.champion is None:
            continue
        details = model.versions[model.champion].registered.details
        ages[symbol] = math.inf
        if as_of is not None and details.get("trained_until"):
            trained = datetime.fromisoformat(str(details["trained_until"]))
            ages[symbol] = max(0.0, (as_of - trained) / timedelta(days=1))
        if details.get("reliability") is not None:
            reliability[symbol] = float(details["reliability"])
    return ages, reliability


def _answers(config: Config) -> tuple[dict[str, float], dict[str, float]]:
    """Answers a day and mean absolute expected log return over the last days that had answers."""
    path = config.open_workspace().logs / "predictions.db"
    if not path.exists():
        return {}, {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as log:
        newest = log.execute("SELECT max(answered_us) FROM predictions").fetchone()[0]
        rows = log.execute(
            "SELECT symbol, count(*), avg(abs(expected_return)) FROM predictions WHERE answered_us > ? "
            "GROUP BY symbol",
            ((newest or 0) - int(_USE_DAYS * 86_400e6),),
        ).fetchall()
    return {s: n / _USE_DAYS for s, n, _ in rows}, {s: e for s, _, e in rows if e is not None}

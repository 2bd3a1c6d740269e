"""What the workspace knows of its symbols, for the automatic priority, and which have no model of their own yet.

Bars give traded value and volatility, the registry age and reliability of models, the log of answers use and
opportunity, monitoring's newest report drift.
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
        drift: population stability index of symbols; what monitoring saw last, where none is given.
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
    measured = _drift(config) if drift is None else drift
    ages, reliability = _models(config, as_of)
    asked, expected = _answers(config)
    return {
        symbol: replace(
            facts,
            model_age_days=ages.get(symbol, math.inf),
            reliability=reliability.get(symbol),
            answers_per_day=asked.get(symbol, 0.0),
            opportunity=expected.get(symbol),
            drift=measured.get(symbol),
        )
        for symbol, facts in found.items()
    }


def market(bars: pl.DataFrame, config: Config) -> dict[str, Facts]:
    """Traded value a day and annualised volatility of each symbol, from bars as traded."""
    from barcast.bars.calendars import calendars_of
    from barcast.bars.schema import adjusted

    calendars = calendars_of(config)
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
            volatility=None
            if row["deviation"] is None
            else row["deviation"] * math.sqrt(calendars(row["symbol"]).bars_per_year(config.interval)),
        )
        for row in rows
    }


def uncovered(config: Config, num_bars: Mapping[str, int]) -> list[str]:
    """Symbols with rows enough for a model of their own that the universal model still answers for.

    Args:
        num_bars: stored bars of each symbol.
    """
    least = config.training.min_symbol_rows
    own = _models(config, None)[0]
    return sorted(symbol for symbol, number in num_bars.items() if number >= least and symbol not in own)


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


def _drift(config: Config) -> dict[str, float]:
    """Population stability index of each symbol's features by monitoring's newest report; where a symbol has no
    model of its own, the universal model's."""
    from barcast import names
    from barcast.operations.monitoring.history import History

    path = config.open_workspace().state / "monitoring.db"
    report = History(path).latest() if path.exists() else None
    if report is None:
        return {}
    found = {
        model.word: reading.value
        for model in report.models
        for reading in model.readings
        if reading.name == "feature_psi" and reading.value is not None
    }
    rest = found.pop(names.UNIVERSAL, None)
    from barcast.bars.ingest import open_store

    symbols = open_store(config, config.open_workspace()).symbols() if rest is not None else []
    return {s: float(rest) for s in symbols if rest is not None} | found


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

"""What costs and size a model can bear: cost curve, break-even cost, capital at which the edge is eaten.

Bars and one model's predictions in; tables per cost level, and per symbol and horizon, out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig
from barcast.evaluation import backtest, frames, sharpe


def at_cost(costs: CostsConfig, one_way_bps: float) -> CostsConfig:
    """The same rules at another one-way trading cost; financing is kept."""
    return costs.model_copy(update={"fee_bps": one_way_bps, "spread_bps": 0.0, "slippage_bps": 0.0})


def cost_curve(
    bars: pl.DataFrame,
    predictions: pl.DataFrame,
    costs: CostsConfig,
    levels_bps: Sequence[float],
    *,
    horizon_bars: int,
    bars_per_year: float,
) -> pl.DataFrame:
    """Backtests at each one-way cost: cost_bps, total_return, annual_return, sharpe (annual; NaN when
    undefined).
    """
    out = []
    for level in levels_bps:
        result = backtest.run(bars, predictions, at_cost(costs, level), horizon_bars=horizon_bars)
        r = result.net_returns
        growth = float(np.prod(1 + r))
        out.append(
            {
                "cost_bps": float(level),
                "total_return": growth - 1,
                "annual_return": growth ** (bars_per_year / len(r)) - 1 if growth > 0 else -1.0,
                "sharpe": sharpe.sharpe(r) * math.sqrt(bars_per_year),
            }
        )
    return pl.DataFrame(out)


def break_even_bps(predictions: pl.DataFrame, costs: CostsConfig, *, horizon_bars: int) -> float:
    """One-way cost in bps at which the mean net return per row is zero; NaN when nothing is traded.

    Gross return of all tranches over their traded notional (financing counted), so it can be negative: then
    the model loses before any trading cost.
    """
    free = backtest.row_net_returns(predictions, at_cost(costs, 0.0), horizon_bars=horizon_bars)
    paid = backtest.row_net_returns(predictions, at_cost(costs, 1.0), horizon_bars=horizon_bars)
    traded = float(np.sum(free - paid)) * 1e4
    return float(np.sum(free)) / traded * 1e4 if traded > 1e-12 else math.nan


def held_for(bars: pl.DataFrame, predictions: pl.DataFrame, horizon_bars: int) -> pl.DataFrame:
    """The same decisions held for another horizon: outcome from the next bar's open to the open `horizon_bars` later;
    rows whose exit is not there yet are left out."""
    opens = (
        bars.sort("symbol", "event_timestamp")
        .select(
            "symbol",
            pl.col("event_timestamp").cast(frames.TIME),
            pl.col("open").log().shift(-1).over("symbol").alias("entry"),
            pl.col("open").log().shift(-1 - horizon_bars).over("symbol").alias("exit"),
            pl.col("event_timestamp").cast(frames.TIME).shift(-1 - horizon_bars).over("symbol").alias("end"),
        )
        .drop_nulls()
    )
    return (
        predictions.join(opens, on=["symbol", "event_timestamp"], maintain_order="left")
        .with_columns(
            (pl.col("exit") - pl.col("entry")).alias("forward_log_return"),
            pl.col("end").alias("label_end_timestamp"),
        )
        .drop("entry", "exit", "end")
    )


def by_symbol(
    bars: pl.DataFrame,
    predictions: pl.DataFrame,
    costs: CostsConfig,
    *,
    horizon_bars: int,
    multiples: Sequence[float] = (1.0,),
) -> pl.DataFrame:
    """Per symbol and horizon (`multiples` of the labels' one): acted_rows, gross and net bps per acted row,
    break_even_bps, and capital.

    `capital_cap` is the account that the participation limit allows: max_participation x the median traded
        value of
    the bars acted on / the median trade (parts of equity). `capital_break_even` adds the square-root law of
    market impact (cost = daily volatility x sqrt(trade / daily traded value); Almgren et al. 2005,
    coefficient 1): the account whose impact eats what is left above the configured costs. Both 0 where
    nothing is left, NaN without trades. Traded values are in the currency of the prices.
    """
    rows = frames.check(predictions)
    out = []
    for part in rows.partition_by("symbol", maintain_order=True):
        of = bars.filter(pl.col("symbol") == str(part["symbol"][0]))
        for horizon in sorted({max(1, round(m * horizon_bars)) for m in multiples}):
            held = part if horizon == horizon_bars else held_for(of, part, horizon)
            if held.height:
                out.append(_line(of, held, costs, horizon))
    return pl.DataFrame(out)


def _line(bars: pl.DataFrame, part: pl.DataFrame, costs: CostsConfig, horizon_bars: int) -> dict[str, object]:
    even = break_even_bps(part, costs, horizon_bars=horizon_bars)
    net = backtest.row_net_returns(part, costs, horizon_bars=horizon_bars)
    gross = backtest.row_net_returns(part, at_cost(costs, 0.0), horizon_bars=horizon_bars)
    acted = (
        frames.signals(part, exit_only=costs.side == "exit_only", min_confidence=costs.min_confidence) != 0
    )
    cap, capital = _capital(bars, part, costs, even, horizon_bars)
    return {
        "symbol": str(part["symbol"][0]),
        "horizon_bars": horizon_bars,
        "acted_rows": int(acted.sum()),
        "gross_bps": float(gross.sum() / acted.sum()) * 1e4 if acted.any() else math.nan,
        "net_bps": float(net.sum() / acted.sum()) * 1e4 if acted.any() else math.nan,
        "break_even_bps": even,
        "capital_cap": cap,
        "capital_break_even": capital,
    }


def _capital(
    bars: pl.DataFrame, part: pl.DataFrame, costs: CostsConfig, even: float, horizon_bars: int
) -> tuple[float, float]:
    signal = frames.signals(
        part,
        exit_only=costs.side == "exit_only",
        min_confidence=costs.min_confidence,
        sized=costs.sizing == "model",
    )
    wanted = backtest.targets(signal, horizon_bars=horizon_bars, costs=costs)
    change = np.abs(np.diff(wanted, prepend=0.0))
    if math.isnan(even) or not (change > 0).any():
        return math.nan, math.nan
    price = pl.col("close") / (pl.col("price_factor") if "price_factor" in bars.columns else 1.0)
    volume = pl.col("volume") / (pl.col("volume_factor") if "volume_factor" in bars.columns else 1.0)
    facts = bars.sort("event_timestamp").select(
        pl.col("event_timestamp").cast(frames.TIME),
        (price * volume).alias("value"),
        pl.col("close").log().diff().alias("move"),
    )
    acted = part.select("event_timestamp").filter(pl.Series(change > 0)).join(facts, on="event_timestamp")
    value = float(acted["value"].median() or 0.0)  # type: ignore[arg-type]
    trade = float(np.median(change[change > 0]))
    cap = costs.max_participation * value / trade
    left = (even - costs.one_way * 1e4) / 1e4
    if left <= 0:
        return cap, 0.0
    days = max(facts["event_timestamp"].dt.date().n_unique(), 1)
    daily_value = float(facts["value"].sum()) / days
    daily_volatility = float(facts["move"].std() or 0.0) * math.sqrt(facts.height / days)  # type: ignore[arg-type]
    if daily_volatility <= 0:
        return cap, math.inf
    return cap, (left / daily_volatility) ** 2 * daily_value / trade

"""Backtest of one model's predictions on adjusted bars, after costs, without look-ahead.

A decision of bar t (its close is `event_timestamp`) trades at bar t+1's open. Each symbol has its own account
with an equal share of the capital; accounts are not rebalanced against each other, so the portfolio is their
mean. Predictions and bars come in, `BacktestResult` goes to metrics, cost curve, capacity and report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig
from barcast.errors import DataError
from barcast.evaluation import _kernel, frames


@dataclass(frozen=True)
class BacktestResult:
    """What a backtest gives.

    Attributes:
        portfolio: per bar time: event_timestamp, equity (starts at 1), net_return, gross_return (simple),
            cost, financing, turnover (traded notional), all in parts of the portfolio's equity one bar
            earlier, and exposure (sum of absolute positions), net_exposure.
        symbols: the same per symbol, with `symbol` and `position` (parts of the account's equity at the
            close).
        trades: one row per round trip: symbol, side, entry_timestamp, exit_timestamp (closes of the bars they
            traded in), entry_price, exit_price, duration_bars, gross_return, net_return (of the largest
            notional held), net_contribution (of the account's equity at entry).
        ruined: symbols whose account went to zero.
    """

    portfolio: pl.DataFrame
    symbols: pl.DataFrame
    trades: pl.DataFrame
    ruined: tuple[str, ...]

    @property
    def net_returns(self) -> np.ndarray:
        """(T,) simple net return of the portfolio per bar."""
        return self.portfolio["net_return"].to_numpy()

    @property
    def gross_returns(self) -> np.ndarray:
        """(T,) simple return of the portfolio per bar before costs and financing."""
        return self.portfolio["gross_return"].to_numpy()


def targets(signals: np.ndarray, *, horizon_bars: int, costs: CostsConfig) -> np.ndarray:
    """The position wanted after each bar of ONE symbol, in parts of its equity.

    Args:
        signals: (N,) position each bar's decision asks for in [-1, 1]; NaN where the bar has no decision.
        horizon_bars: life of a decision.

    Returns:
        (N,) float64. `tranches`: the mean of the last `horizon_bars` decisions (overlapping tranches after
        Jegadeesh and Titman 1993), which makes the backtest hold exactly what the labels measure. A bar
        without a decision counts as HOLD; under `keep` a position without any new decision for `horizon_bars`
        bars is closed.
    """
    known = np.nan_to_num(signals, nan=0.0)
    if costs.position_rule == "tranches":
        total = np.cumsum(np.concatenate([np.zeros(horizon_bars), known]))
        mean = (total[horizon_bars:] - total[:-horizon_bars]) / horizon_bars
        # sums of many tranches must return to an exact zero, or the account would trade dust
        wanted = np.where(np.abs(mean) < 1e-12, 0.0, np.round(mean, 12))
    elif costs.position_rule == "latest":
        wanted = known
    else:
        wanted = np.zeros_like(known)
        held, age = 0.0, 0
        for i, value in enumerate(signals):
            age = age + 1 if np.isnan(value) else 0
            held = 0.0 if age >= horizon_bars else (value if not np.isnan(value) and value != 0 else held)
            wanted[i] = held
    return np.asarray(wanted * costs.max_position)


def _limit_gross(plan: pl.DataFrame, max_gross: float, num_symbols: int) -> pl.DataFrame:
    """Scale all targets of a time down where their absolute sum goes over the limit."""
    grid = (
        plan.pivot(on="symbol", index="event_timestamp", values="target")
        .sort("event_timestamp")
        .with_columns(pl.all().exclude("event_timestamp").forward_fill().fill_null(0.0))
    )
    gross = grid.select(
        "event_timestamp",
        (pl.sum_horizontal(pl.all().exclude("event_timestamp").abs()) / num_symbols).alias("gross"),
    )
    scale = pl.when(pl.col("gross") > max_gross).then(max_gross / pl.col("gross")).otherwise(1.0)
    return (
        plan.join(gross, on="event_timestamp", how="left", maintain_order="left")
        .with_columns((pl.col("target") * scale).round(12).alias("target"))
        .drop("gross")
    )


def run(
    bars_adjusted: pl.DataFrame, predictions: pl.DataFrame, costs: CostsConfig, *, horizon_bars: int = 1
) -> BacktestResult:
    """Trade `predictions` (one model) on `bars_adjusted` from the first decision to the last label's end.

    Args:
        bars_adjusted: bars frame with adjusted prices (`barcast.bars.adjusted`), one interval.
        predictions: predictions frame; each row decides at its `event_timestamp`.
        costs: fees, limits and rules.
        horizon_bars: life of a decision (the labels' horizon).

    Raises:
        DataError: a prediction without its bar, or a price that is not positive.
    """
    rows = frames.check(predictions)
    symbols = rows["symbol"].unique().sort().to_list()
    asked = pl.DataFrame(
        {
            "symbol": rows["symbol"],
            "event_timestamp": rows["event_timestamp"],
            "signal": frames.signals(
                rows,
                exit_only=costs.side == "exit_only",
                min_confidence=costs.min_confidence,
                sized=costs.sizing == "model",
            ),
        }
    )
    extra = [c for c in ("price_factor", "volume_factor") if c in bars_adjusted.columns]
    bars = (
        bars_adjusted.lazy()
        .filter(
            pl.col("symbol").is_in(symbols)
            & (pl.col("event_timestamp") >= rows["event_timestamp"].min())
            & (pl.col("event_timestamp") <= rows["label_end_timestamp"].max())
        )
        .select("symbol", pl.col("event_timestamp").cast(frames.TIME), "open", "close", "volume", *extra)
        .sort("symbol", "event_timestamp")
        .collect()
    )
    if (lost := asked.join(bars, on=["symbol", "event_timestamp"], how="anti")).height:
        raise DataError(
            f"{lost.height} predictions have no bar, the first {lost.row(0)[:2]}.",
            hint="Evaluate on the bars that the features were computed from.",
        )
    prices = bars.select(pl.min_horizontal("open", "close")).to_series()
    if not prices.is_finite().all() or prices.min() <= 0:  # type: ignore[operator]
        raise DataError("A bar's open or close is not a positive number.", hint="Run `validate_bars` first.")
    plan = bars.join(asked, on=["symbol", "event_timestamp"], how="left", maintain_order="left").with_columns(
        pl.col("signal").fill_null(float("nan"))
    )
    plan = pl.concat(
        part.with_columns(
            pl.Series("target", targets(part["signal"].to_numpy(), horizon_bars=horizon_bars, costs=costs))
        )
        for part in plan.partition_by("symbol", maintain_order=True)
    )
    if costs.max_gross_exposure < costs.max_position:
        plan = _limit_gross(plan, costs.max_gross_exposure, len(symbols))
    accounts, trades, ruined = [], [], []
    for part in plan.partition_by("symbol", maintain_order=True):
        account, round_trips = _trade_symbol(part, costs, len(symbols))
        accounts.append(account)
        trades.append(round_trips)
        if account["equity"][-1] <= 0:
            ruined.append(str(part["symbol"][0]))
    by_symbol = pl.concat(accounts)
    return BacktestResult(_portfolio(by_symbol, symbols), by_symbol, pl.concat(trades), tuple(ruined))


def _trade_symbol(
    part: pl.DataFrame, costs: CostsConfig, num_symbols: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    times = part["event_timestamp"].to_numpy()
    days = np.diff(times, prepend=times[:1]).astype("timedelta64[us]").astype(np.float64) / 86_400e6
    limit = np.full(part.height, np.inf)
    if costs.capital > 0:
        as_traded = part["close"] / part["price_factor"] if "price_factor" in part.columns else part["close"]
        volume = part["volume"] / part["volume_factor"] if "volume_factor" in part.columns else part["volume"]
        limit = (as_traded * volume).to_numpy() * costs.max_participation / (costs.capital / num_symbols)
    out, round_trips = _kernel.simulate(
        np.ascontiguousarray(part["open"].to_numpy(), dtype=np.float64),
        np.ascontiguousarray(part["close"].to_numpy(), dtype=np.float64),
        days,
        np.ascontiguousarray(part["target"].to_numpy(), dtype=np.float64),
        limit,
        costs.one_way,
        costs.funding_bps_per_day / 1e4,
        costs.borrow_bps_per_year / 1e4 / 365.25,
        costs.trade_at == "next_close",
    )
    before = np.concatenate([[1.0], out[:-1, 0]])
    safe = np.where(before > 0, before, 1.0)
    symbol = str(part["symbol"][0])
    account = pl.DataFrame(
        {
            "symbol": [symbol] * part.height,
            "event_timestamp": part["event_timestamp"],
            "equity": out[:, 0],
            "position": out[:, 1],
            "net_return": np.where(before > 0, out[:, 0] / safe - 1.0, 0.0),
            "gross_return": out[:, 2] / safe,
            "gross_pnl": out[:, 2],
            "cost": out[:, 3],
            "financing": out[:, 4],
            "turnover": out[:, 5],
        }
    )
    return account, _round_trips(round_trips, symbol, part["event_timestamp"])


def _round_trips(raw: np.ndarray, symbol: str, times: pl.Series) -> pl.DataFrame:
    column = {name: raw[:, k] for k, name in enumerate(_kernel.TRADE_COLUMNS)}
    entry, exit_ = column["entry"].astype(np.int64), column["exit"].astype(np.int64)
    notional = np.where(column["peak_notional"] > 0, column["peak_notional"], 1.0)
    net = column["gross"] - column["cost"]
    data: dict[str, Any] = {
        "symbol": pl.Series([symbol] * len(raw), dtype=pl.Utf8),
        "side": pl.Series(column["side"], dtype=pl.Float64).cast(pl.Int8),
        "entry_timestamp": times.gather(entry),
        "exit_timestamp": times.gather(exit_),
        "entry_price": column["entry_price"],
        "exit_price": column["exit_price"],
        "duration_bars": exit_ - entry,
        "gross_return": column["gross"] / notional,
        "net_return": net / notional,
        "net_contribution": net / np.where(column["equity"] > 0, column["equity"], 1.0),
    }
    return pl.DataFrame(data)


def _portfolio(by_symbol: pl.DataFrame, symbols: list[str]) -> pl.DataFrame:
    """Mean of the accounts on the union of their times; an account without a bar keeps its last mark."""
    times = by_symbol.select(pl.col("event_timestamp").unique().sort()).to_series()

    def grid(column: str) -> pl.DataFrame:
        wide = by_symbol.pivot(on="symbol", index="event_timestamp", values=column).sort("event_timestamp")
        return wide.select(symbols)

    equity = grid("equity").select(pl.all().forward_fill().fill_null(1.0)).to_numpy()
    position = grid("position").select(pl.all().forward_fill().fill_null(0.0)).to_numpy()
    gross, cost, financing, turnover = (
        grid(c).fill_null(0.0).to_numpy().mean(axis=1) for c in ("gross_pnl", "cost", "financing", "turnover")
    )
    total = equity.mean(axis=1)
    before = np.concatenate([[1.0], total[:-1]])
    safe = np.where(before > 0, before, 1.0)
    share = np.where(total > 0, total, 1.0)
    return pl.DataFrame(
        {
            "event_timestamp": times,
            "equity": total,
            "net_return": np.where(before > 0, total / safe - 1.0, 0.0),
            "gross_return": gross / safe,
            "cost": cost / safe,
            "financing": financing / safe,
            "turnover": turnover / safe,
            "exposure": (np.abs(position) * equity).mean(axis=1) / share,
            "net_exposure": (position * equity).mean(axis=1) / share,
        }
    )


def row_net_returns(predictions: pl.DataFrame, costs: CostsConfig, *, horizon_bars: int) -> np.ndarray:
    """(n,) net simple return of each checked row's own tranche, without simulating an account.

    A row's tranche earns position x (exp(forward_log_return) - 1). At its entry the tranche of `horizon_bars`
    rows before it ends at the same price, so the trade is the change between the two, at the one-way cost; a
    short pays borrow and a long funding for the label's duration. This is what the gate compares, row against
    row. `exp(x) - 1` is the simple return from the entry's open to the exit's open.
    """
    rows = predictions
    position = costs.max_position * frames.signals(
        rows,
        exit_only=costs.side == "exit_only",
        min_confidence=costs.min_confidence,
        sized=costs.sizing == "model",
    )
    earned = position * np.expm1(rows["forward_log_return"].to_numpy())
    before = (
        pl.DataFrame({"symbol": rows["symbol"], "position": position})
        .select(pl.col("position").shift(horizon_bars).over("symbol").fill_null(0.0))
        .to_series()
        .to_numpy()
    )
    span = rows.select(
        (pl.col("label_end_timestamp") - pl.col("event_timestamp")).dt.total_microseconds()
    ).to_series()
    # the label span counts one bar more than the holding time (entry and exit are both at opens); a label may end
    # before its horizon, and where a market closes meanwhile the span is longer than its bars
    spans = span.to_numpy()
    steps = rows.select(pl.col("event_timestamp").diff().over("symbol").dt.total_microseconds()).to_series()
    shortest = steps.filter(steps > 0).to_numpy().astype(np.float64).min(initial=np.inf)
    bar = min(float(spans.max()) / (horizon_bars + 1), float(shortest))
    bars = np.clip(np.round(spans / bar), 2, horizon_bars + 1)
    days = spans / 86_400e6 * (bars - 1) / bars
    financing = position * costs.funding_bps_per_day / 1e4 * days
    financing = financing + np.maximum(-position, 0.0) * costs.borrow_bps_per_year / 1e4 / 365.25 * days
    return np.asarray(earned - np.abs(position - before) * costs.one_way - financing)

"""The backtest on cases worked out by hand, its invariants, and the row returns that the gate compares."""

from __future__ import annotations

from datetime import timedelta

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config.evaluation import CostsConfig
from barcast.errors import DataError
from barcast.evaluation import backtest

FREE = CostsConfig(fee_bps=0, spread_bps=0, slippage_bps=0, borrow_bps_per_year=0, position_rule="latest")


def hand(
    opens: list[float],
    closes: list[float],
    actions: list[str | None],
    *,
    step_hours: int = 24,
    symbol: str = "X",
):
    """Bars and one decision per bar ("BUY", "SELL", "HOLD", None = no row)."""
    times = [worlds.START + timedelta(hours=step_hours) * (i + 1) for i in range(len(opens))]
    bars = pl.DataFrame(
        {
            "symbol": [symbol] * len(opens),
            "event_timestamp": times,
            "open": opens,
            "close": closes,
            "high": opens,
            "low": opens,
            "volume": [1000.0] * len(opens),
        }
    ).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
    p = {"SELL": [1.0, 0.0, 0.0], "HOLD": [0.0, 1.0, 0.0], "BUY": [0.0, 0.0, 1.0]}
    rows = [
        {
            "symbol": symbol,
            "event_timestamp": times[i],
            "label_end_timestamp": times[-1] + timedelta(hours=1),
            "p_sell": p[a][0],
            "p_hold": p[a][1],
            "p_buy": p[a][2],
            "label": 1,
            "forward_log_return": 0.0,
        }
        for i, a in enumerate(actions)
        if a is not None
    ]
    return bars, pl.DataFrame(rows)


def test_backtest_with_buy_then_hold_trades_at_next_opens():
    bars, rows = hand([100, 110, 120, 90], [105, 115, 100, 95], ["BUY", "HOLD", "HOLD"])
    result = backtest.run(bars, rows, FREE)
    # bought at 110 (open of bar 1), marked at 115, sold at 120 (open of bar 2)
    assert result.portfolio["equity"].to_list() == pytest.approx([1, 115 / 110, 120 / 110, 120 / 110])
    assert result.trades.height == 1
    trade = result.trades.row(0, named=True)
    assert (trade["side"], trade["entry_price"], trade["exit_price"], trade["duration_bars"]) == (
        1,
        110,
        120,
        1,
    )
    assert trade["net_return"] == pytest.approx(10 / 110)


def test_backtest_with_costs_charges_each_side_on_its_notional():
    costs = FREE.model_copy(
        update={"fee_bps": 10.0, "spread_bps": 8.0, "slippage_bps": 6.0}
    )  # 20 bps one way
    bars, rows = hand([100, 100, 100], [100, 100, 100], ["BUY", "HOLD"])
    result = backtest.run(bars, rows, costs)
    assert result.portfolio["equity"].to_list() == pytest.approx([1, 0.998, 0.996])
    assert result.portfolio["turnover"].to_list() == pytest.approx([0, 1, 1 / 0.998])
    assert result.trades["net_return"][0] == pytest.approx(-0.004)
    assert result.portfolio["gross_return"].to_list() == pytest.approx([0, 0, 0])


def test_backtest_with_short_pays_borrow_and_receives_funding():
    bars, rows = hand([100, 100, 80, 80], [100, 90, 80, 80], ["SELL", "HOLD", "HOLD"])
    free = backtest.run(bars, rows, FREE)
    assert free.portfolio["equity"].to_list() == pytest.approx([1, 1.1, 1.2, 1.2])
    borrow = backtest.run(bars, rows, FREE.model_copy(update={"borrow_bps_per_year": 365.25 * 100}))
    # one day carried at 0.9 notional, 100 bps a day
    assert borrow.portfolio["equity"][-1] == pytest.approx(1.2 - 0.009)
    funded = backtest.run(bars, rows, FREE.model_copy(update={"funding_bps_per_day": 100}))
    assert funded.portfolio["equity"][-1] == pytest.approx(1.2 + 0.009)


def test_backtest_with_exit_only_never_shorts():
    bars, rows = hand([100, 100, 80, 80], [100, 90, 80, 80], ["SELL", "SELL", "HOLD"])
    result = backtest.run(bars, rows, FREE.model_copy(update={"side": "exit_only"}))
    assert result.portfolio["equity"].to_list() == [1, 1, 1, 1]
    assert result.trades.height == 0


def test_backtest_with_flip_closes_one_round_trip_and_opens_another():
    costs = FREE.model_copy(update={"fee_bps": 100.0})
    bars, rows = hand([100, 100, 100, 100], [100, 100, 100, 100], ["BUY", "SELL", "HOLD"])
    result = backtest.run(bars, rows, costs)
    assert result.trades["side"].to_list() == [1, -1]
    # 1 bought; then 1 sold and 0.99 sold short; then that bought back: costs of 1%, 1.99% and 0.99%
    assert result.portfolio["equity"][-1] == pytest.approx(1 - 0.01 - 0.0199 - 0.0099)
    assert result.trades["net_contribution"].to_list() == pytest.approx([-0.02, -0.0198 / 0.99])


def test_backtest_with_next_close_trades_a_bar_later():
    bars, rows = hand([100, 110, 120], [105, 115, 100], ["BUY", None, None])
    result = backtest.run(
        bars,
        rows,
        FREE.model_copy(update={"trade_at": "next_close", "position_rule": "keep"}),
        horizon_bars=5,
    )
    assert result.portfolio["equity"].to_list() == pytest.approx([1, 1, 100 / 115])


def test_backtest_with_open_position_at_the_end_pays_its_exit():
    bars, rows = hand([100, 100], [100, 100], ["BUY"])
    result = backtest.run(bars, rows, FREE.model_copy(update={"fee_bps": 100.0}))
    assert result.portfolio["equity"][-1] == pytest.approx(0.98)
    assert result.trades.height == 1


def test_backtest_with_short_squeeze_ruins_the_account_and_stops():
    bars, rows = hand([100, 100, 250, 100], [100, 100, 250, 50], ["SELL", "SELL", "SELL"])
    result = backtest.run(bars, rows, FREE)
    assert result.ruined == ("X",)
    assert result.portfolio["equity"].to_list() == [1, 1, 0, 0]
    assert np.isfinite(result.net_returns).all()


def test_backtest_with_participation_cap_fills_over_several_bars():
    # each bar trades 100 x 1000 = 100,000; 1% of it is 1,000; the account of 2,500 wants 2,500
    costs = FREE.model_copy(update={"capital": 2500.0, "max_participation": 0.01, "position_rule": "keep"})
    bars, rows = hand([100.0] * 6, [100.0] * 6, ["BUY", "BUY", "BUY", "BUY", "BUY"])
    result = backtest.run(bars, rows, costs)
    assert result.symbols["position"].to_list()[:5] == pytest.approx([0, 0.4, 0.8, 1.0, 1.0])


def test_backtest_with_tranches_holds_the_mean_of_the_last_decisions():
    bars, rows = hand([100.0] * 6, [100.0] * 6, ["BUY", "BUY", "SELL", "HOLD", "HOLD"])
    result = backtest.run(bars, rows, FREE.model_copy(update={"position_rule": "tranches"}), horizon_bars=2)
    assert result.symbols["position"].to_list() == pytest.approx([0, 0.5, 1.0, 0.0, -0.5, 0.0])


def test_backtest_with_gross_limit_scales_all_symbols():
    a = hand([100.0] * 3, [100.0] * 3, ["BUY", "BUY"], symbol="A")
    b = hand([100.0] * 3, [100.0] * 3, ["SELL", "SELL"], symbol="B")
    bars, rows = pl.concat([a[0], b[0]]), pl.concat([a[1], b[1]])
    result = backtest.run(bars, rows, FREE.model_copy(update={"max_gross_exposure": 0.5}))
    assert result.symbols["position"].to_list() == pytest.approx([0, 0.5, 0, 0, -0.5, 0])
    assert result.portfolio["exposure"].to_list() == pytest.approx([0, 0.5, 0])
    assert result.portfolio["net_exposure"].to_list() == pytest.approx([0, 0, 0])


def test_backtest_with_missing_bar_refuses():
    bars, rows = hand([100.0] * 3, [100.0] * 3, ["BUY", "BUY"])
    with pytest.raises(DataError, match="no bar"):
        backtest.run(bars.filter(pl.col("event_timestamp") != rows["event_timestamp"][1]), rows, FREE)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cut=st.integers(60, 180),
    rule=st.sampled_from(["tranches", "latest", "keep"]),
)
def test_backtest_with_changed_future_keeps_its_past(seed, cut, rule):
    """No look-ahead: what happens after bar `cut` changes nothing up to it."""
    bars = worlds.bars(2, 220, seed=seed)
    rows = worlds.predictions(worlds.labelled(bars, horizon_bars=3), seed=seed)
    costs = CostsConfig(position_rule=rule)
    full = backtest.run(bars, rows, costs, horizon_bars=3).symbols
    edge = bars["event_timestamp"].unique().sort()[cut]
    jolt = pl.when(pl.col("event_timestamp") > edge).then(1.7).otherwise(1.0)
    changed = backtest.run(
        bars.with_columns(pl.col("open", "close") * jolt),
        rows.with_columns(
            pl.when(pl.col("event_timestamp") > edge).then(p).otherwise(pl.col(c)).alias(c)
            for c, p in (("p_sell", 0.0), ("p_hold", 0.0), ("p_buy", 1.0))
        ),
        costs,
        horizon_bars=3,
    ).symbols
    before = pl.col("event_timestamp") <= edge
    assert full.filter(before).equals(changed.filter(before))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), fee=st.floats(0, 50), rule=st.sampled_from(["tranches", "latest", "keep"])
)
def test_backtest_accounts_balance(seed, fee, rule):
    """Equity = 1 + gross P&L - costs - financing; more cost never makes more money per unit traded; trades
    add up.
    """
    bars = worlds.bars(2, 150, seed=seed)
    rows = worlds.predictions(worlds.labelled(bars, horizon_bars=3), seed=seed + 1)
    costs = CostsConfig(fee_bps=fee, position_rule=rule, funding_bps_per_day=3)
    result = backtest.run(bars, rows, costs, horizon_bars=3)
    sums = result.symbols.group_by("symbol").agg(
        pl.col("equity").last(),
        (1 + (pl.col("gross_pnl") - pl.col("cost") - pl.col("financing")).sum()).alias("sum"),
    )
    np.testing.assert_allclose(sums["equity"], sums["sum"], rtol=1e-9)
    np.testing.assert_allclose(result.symbols["cost"], result.symbols["turnover"] * costs.one_way, atol=1e-12)
    assert result.symbols.group_by("symbol").agg(pl.col("position").last())["position"].to_list() == [0, 0]
    product = float(np.prod(1 + result.net_returns))
    assert product == pytest.approx(result.portfolio["equity"][-1])


def test_row_returns_with_one_symbol_equal_the_backtest_per_tranche():
    """Small returns, no drift: the rows' mean net return x rows / horizon is the backtest's log growth."""
    bars = worlds.bars(1, 600, seed=3)
    bars = bars.with_columns(pl.col("open", "close").log().mul(0.02).exp())
    rows = worlds.predictions(worlds.labelled(bars, horizon_bars=4), seed=5)
    costs = CostsConfig(fee_bps=0.02, spread_bps=0, slippage_bps=0, borrow_bps_per_year=5)
    result = backtest.run(bars, rows, costs, horizon_bars=4)
    net = backtest.row_net_returns(rows.sort("symbol", "event_timestamp"), costs, horizon_bars=4)
    assert np.log(result.portfolio["equity"][-1]) == pytest.approx(net.sum() / 4, rel=0.02)


@pytest.mark.parametrize("every", [1, 3])
def test_a_label_that_ends_early_pays_financing_for_its_own_bars(every):
    """Hourly bars, a horizon of ten; every fifth label ends after two bars (also where rows are thinned out)."""
    labels = worlds.labelled(worlds.bars(1, 400, seed=3), horizon_bars=10)
    held = np.where(np.arange(labels.height) % 5 == 0, 2, 10)
    rows = worlds.predictions(labels, seed=5).with_columns(
        pl.lit(0.1).alias("p_sell"),
        pl.lit(0.1).alias("p_hold"),
        pl.lit(0.8).alias("p_buy"),
        pl.lit(0.0).alias("forward_log_return"),
        label_end_timestamp=pl.col("event_timestamp") + pl.Series(held + 1) * timedelta(hours=1),
    )
    costs = CostsConfig(fee_bps=0, spread_bps=0, slippage_bps=0, funding_bps_per_day=24)
    paid = -backtest.row_net_returns(rows.gather_every(every), costs, horizon_bars=10) * 1e4
    np.testing.assert_allclose(paid, held[::every], rtol=1e-9)  # a basis point each hour


@pytest.mark.slow
def test_backtest_agrees_with_vectorbt():
    """Cross-check against an independent library, to rounding: 3 symbols, three rules, all sides, fees."""
    pytest.importorskip("vectorbt")
    import pandas as pd
    import vectorbt as vbt

    bars = worlds.bars(3, 500, seed=9)
    rows = worlds.predictions(worlds.labelled(bars, horizon_bars=4), seed=2, sharpness=1.0)
    for rule in ("tranches", "latest", "keep"):
        costs = CostsConfig(
            fee_bps=7,
            spread_bps=0,
            slippage_bps=0,
            borrow_bps_per_year=0,
            position_rule=rule,
            max_position=0.5,
        )
        ours = backtest.run(bars, rows, costs, horizon_bars=4)
        for symbol in ("S0", "S1", "S2"):
            span = ours.symbols.filter(pl.col("symbol") == symbol)
            one = bars.filter(pl.col("symbol") == symbol).join(
                span.select("event_timestamp"), on="event_timestamp"
            )
            decided = one.join(
                rows.filter(pl.col("symbol") == symbol).select(
                    "event_timestamp", "p_sell", "p_hold", "p_buy"
                ),
                on="event_timestamp",
                how="left",
            ).sort("event_timestamp")
            p = decided.select("p_sell", "p_hold", "p_buy").to_numpy()
            signal = np.where(np.isnan(p).any(axis=1), np.nan, np.argmax(np.nan_to_num(p), axis=1) - 1.0)
            wanted = backtest.targets(signal, horizon_bars=4, costs=costs)
            # the order of bar i is the target of bar i-1, and only where it changed
            size = pd.Series(np.append(np.nan, wanted[:-1]))
            size = size.where(size.ne(size.shift(1).fillna(0.0)))
            size.iloc[0] = np.nan
            portfolio = vbt.Portfolio.from_orders(
                close=pd.Series(decided["close"].to_numpy()),
                price=pd.Series(decided["open"].to_numpy()),
                size=size,
                size_type="targetpercent",
                fees=costs.one_way,
                init_cash=1.0,
                freq="1h",
            )
            # the last bar differs by our closing order
            np.testing.assert_allclose(
                portfolio.value().to_numpy()[:-1], span["equity"].to_numpy()[:-1], rtol=1e-9
            )

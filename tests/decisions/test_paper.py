"""The paper account: the backtest's equity on the same bars, whatever rules and costs; attribution sums to
the whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from barcast.config.evaluation import CostsConfig
from barcast.decisions.paper import PaperAccount, PaperBar, PaperDecision, attribution_by
from barcast.errors import DataError
from barcast.evaluation import backtest

START = datetime(2024, 1, 1, tzinfo=UTC)
HORIZON = 4


def _bars(symbols: int, count: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(symbols):
        close = 50 * np.exp(np.cumsum(rng.standard_t(4, count) * 0.01))
        opens = np.concatenate([[50.0], close[:-1]]) * np.exp(rng.normal(0, 0.003, count))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [f"S{k}"] * count,
                    "event_timestamp": [START + timedelta(hours=6 * i) for i in range(count)],
                    "open": opens,
                    "close": close,
                    "volume": rng.uniform(10, 200, count),
                    "price_factor": np.full(count, 0.5),
                    "volume_factor": np.full(count, 2.0),
                }
            ).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
        )
    return pl.concat(frames)


def _predictions(bars: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Random one-sided decisions with sizes on most bars that have a label."""
    rng = np.random.default_rng(seed)
    rows = []
    for part in bars.partition_by("symbol", maintain_order=True):
        times = part["event_timestamp"].to_list()
        for i in range(2, len(times) - HORIZON - 1):
            if rng.random() < 0.1:
                continue
            action = int(rng.integers(0, 3))
            p = np.full(3, 0.1)
            p[action] = 0.8
            rows.append(
                {
                    "symbol": part["symbol"][0],
                    "event_timestamp": times[i],
                    "label_end_timestamp": times[i + 1 + HORIZON],
                    "p_sell": p[0],
                    "p_hold": p[1],
                    "p_buy": p[2],
                    "position_size": float(rng.uniform(0.1, 1.0)),
                    "label": 1,
                    "forward_log_return": 0.0,
                }
            )
    return pl.DataFrame(rows).with_columns(
        pl.col("event_timestamp", "label_end_timestamp").cast(pl.Datetime("us", "UTC"))
    )


def _replay(
    bars: pl.DataFrame, predictions: pl.DataFrame, costs: CostsConfig, *, resume: bool = False
) -> PaperAccount:
    first, last = predictions["event_timestamp"].min(), predictions["label_end_timestamp"].max()
    bars = bars.filter(pl.col("event_timestamp").is_between(first, last))
    account = PaperAccount(
        capital=costs.capital or 1000.0,
        horizon_bars=HORIZON,
        interval_seconds=6 * 3600,
        symbols=sorted(bars["symbol"].unique()),
    )
    asked = {(r["symbol"], r["event_timestamp"]): r for r in predictions.iter_rows(named=True)}
    for at in sorted(bars["event_timestamp"].unique()):
        part = bars.filter(pl.col("event_timestamp") == at)
        rows = {r["symbol"]: r for r in part.iter_rows(named=True)}
        account.step(
            at,
            {
                s: PaperBar(r["open"], r["close"], r["volume"] / r["volume_factor"], r["price_factor"])
                for s, r in rows.items()
            },
            costs,
        )
        decisions = {}
        for s in rows:
            row = asked.get((s, at))
            if row is None:
                continue
            side = int(np.argmax([row["p_sell"], row["p_hold"], row["p_buy"]])) - 1
            side = max(side, 0) if costs.side == "exit_only" else side
            size = row["position_size"] if costs.sizing == "model" else 1.0
            decisions[s] = PaperDecision(side * size, band="high" if side > 0 else "low", regime="bull")
        account.decide(at, decisions, costs)
        if resume:  # through JSON and back, as between two runs of `barcast paper`
            account = PaperAccount.model_validate_json(account.model_dump_json())
    return account


COSTS = [
    CostsConfig(),
    CostsConfig(position_rule="latest", sizing="model", fee_bps=10, borrow_bps_per_year=5000),
    CostsConfig(position_rule="keep", trade_at="next_close", funding_bps_per_day=3),
    CostsConfig(side="exit_only", max_position=2.0, sizing="model", max_gross_exposure=0.4),
    CostsConfig(position_rule="latest", capital=2e5, max_participation=0.02),
]


@pytest.mark.parametrize("number", range(len(COSTS)))
@pytest.mark.parametrize("symbols", [1, 3])
def test_paper_with_same_bars_and_decisions_equals_the_backtest(number: int, symbols: int) -> None:
    costs = COSTS[number]
    bars = _bars(symbols, 80, seed=number)
    predictions = _predictions(bars, seed=number + 10)
    result = backtest.run(bars, predictions, costs, horizon_bars=HORIZON)
    account = _replay(bars, predictions, costs, resume=number == 1)
    curve = np.array([value for _, value in account.curve])
    expected = result.portfolio["equity"].to_numpy()
    assert [at for at, _ in account.curve] == result.portfolio["event_timestamp"].to_list()
    np.testing.assert_allclose(curve[:-1], expected[:-1], rtol=0, atol=1e-10)
    assert account.settled(costs) == pytest.approx(expected[-1], abs=1e-10)  # the backtest pays its exit
    closed = [t for t in account.trades if t.closed_at is not None]
    known = result.trades.filter(pl.col("exit_timestamp") < bars["event_timestamp"].max())
    paid = sorted(round(t.net_return or 0.0, 9) for t in closed)
    assert len(closed) >= 1
    assert set(paid) <= set(np.round(known["net_return"].to_numpy(), 9)) | set(
        np.round(result.trades["net_return"].to_numpy(), 9)
    )


def test_attribution_with_any_key_sums_to_the_profit() -> None:
    bars = _bars(3, 60, seed=5)
    account = _replay(bars, _predictions(bars, seed=6), CostsConfig())
    for key in ("symbol", "regime", "band", "model_version"):
        parts = attribution_by(account, key)
        assert sum(parts.values()) == pytest.approx(account.equity - 1.0, abs=1e-12)
    assert set(attribution_by(account, "symbol")) == {"S0", "S1", "S2"}
    assert {"high", "low"} <= set(attribution_by(account, "band"))
    with pytest.raises(DataError, match="not known"):
        attribution_by(account, "moon")


def test_view_with_split_factor_gives_traded_prices_and_the_same_value() -> None:
    costs = CostsConfig(position_rule="latest")
    account = PaperAccount(capital=1000.0, horizon_bars=1, interval_seconds=3600, symbols=["S0", "S1"])
    for i, close in enumerate((50.0, 52.0, 54.0)):
        at = START + timedelta(hours=i)
        account.step(at, {"S0": PaperBar(close, close, factor=0.5)}, costs)
        account.decide(at, {"S0": PaperDecision(0.8)}, costs)
    view = account.view(emergency_reason="by Ana")
    (position,) = view.positions
    one = account.accounts["S0"]
    assert position.price == pytest.approx(54.0 / 0.5)
    assert position.value == pytest.approx(one.quantity * 54.0 * 500.0)
    assert view.equity == pytest.approx(account.equity * 1000.0)
    assert [t.closed_at for t in view.trades] == [None]
    assert view.emergency_reason == "by Ana"
    # bought at 52 with 0.8 of 500; the cost is one way of 0.8
    assert one.equity == pytest.approx(1 + 0.8 * (54 / 52 - 1) - 0.8 * costs.one_way)


def test_step_with_time_running_backwards_is_refused() -> None:
    account = PaperAccount(capital=1.0, horizon_bars=1, interval_seconds=60, symbols=["A"])
    account.step(START, {"A": PaperBar(1.0, 1.0)}, CostsConfig())
    with pytest.raises(DataError, match="in order of time"):
        account.step(START, {"A": PaperBar(1.0, 1.0)}, CostsConfig())
    with pytest.raises(DataError, match="not part of this account"):
        account.step(START + timedelta(hours=1), {"B": PaperBar(1.0, 1.0)}, CostsConfig())

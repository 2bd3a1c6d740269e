"""A replay decides with what was known at each bar, equals the backtest of its own decisions, and can be cut in two."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from model_double import outputs
from serving_world import World, make_bars

from barcast.bars import adjusted
from barcast.config import Config
from barcast.decisions.paper import PaperAccount
from barcast.decisions.types import Advice, Signal
from barcast.evaluation import backtest
from barcast.serving import replay

CONFIG = Config(
    workspace="w",
    interval="1h",
    horizon_bars=5,
    costs={"sizing": "model"},
    decisions={"max_trades_per_hour": 50, "max_volatility_ratio": 1.5},
)


def _signals(bars: pl.DataFrame, seed: int = 4) -> dict[datetime, list[Signal]]:
    rng = np.random.default_rng(seed)
    found: dict[datetime, list[Signal]] = {}
    for row in bars.sort("event_timestamp", "symbol").iter_rows(named=True):
        lean = rng.uniform(-0.4, 0.4)
        found.setdefault(row["event_timestamp"], []).append(
            Signal(
                row["symbol"],
                row["event_timestamp"],
                0.4 - lean,
                0.2,
                0.4 + lean,
                0.01 * np.sign(lean),
                0.02,
                row["close"],
                regime="bull" if lean > 0 else "bear",
                model_version="w.universal/1",
            )
        )
    return found


def _account(symbols: list[str]) -> PaperAccount:
    return PaperAccount(capital=1e5, horizon_bars=5, interval_seconds=3600, symbols=symbols)


def test_replay_with_decisions_taken_equals_their_backtest() -> None:
    bars = make_bars(["AAA", "BBB"], count=160, factor=0.25)
    taken: list[tuple[datetime, str, int, float]] = []

    def seen(at: datetime, advice: dict[str, Advice]) -> None:
        for s, a in advice.items():
            taken.append((at, s, 0 if a.only_closes else a.side, min(1.0, a.size * 2)))

    account = replay.run(_account(["AAA", "BBB"]), bars, _signals(bars), CONFIG, seen=seen)  # type: ignore[arg-type]
    times = sorted(bars["event_timestamp"].unique())
    rows = [
        {
            "symbol": s,
            "event_timestamp": at,
            "label_end_timestamp": times[-1] if at < times[-1] else at,
            "p_sell": 1.0 * (side < 0),
            "p_hold": 1.0 * (side == 0),
            "p_buy": 1.0 * (side > 0),
            "position_size": size,
            "label": 1,
            "forward_log_return": 0.0,
        }
        for at, s, side, size in taken
        if at < times[-1]
    ]
    assert sum(r["p_hold"] == 0 for r in rows) > 40  # it did trade
    frame = pl.DataFrame(rows).with_columns(
        pl.col("event_timestamp", "label_end_timestamp").cast(pl.Datetime("us", "UTC"))
    )
    result = backtest.run(adjusted(bars), frame, CONFIG.costs, horizon_bars=5)
    np.testing.assert_allclose(
        [v for _, v in account.curve][:-1], result.portfolio["equity"].to_numpy()[:-1], atol=1e-10
    )
    assert account.settled(CONFIG.costs) == pytest.approx(result.portfolio["equity"][-1], abs=1e-10)


def test_replay_cut_in_two_runs_is_the_same_account() -> None:
    bars = make_bars(["AAA", "BBB"], count=120)
    signals = _signals(bars)
    whole = replay.run(_account(["AAA", "BBB"]), bars, signals, CONFIG)
    cut = sorted(bars["event_timestamp"].unique())[70]
    first = replay.run(
        _account(["AAA", "BBB"]), bars.filter(pl.col("event_timestamp") <= cut), signals, CONFIG
    )
    again = PaperAccount.model_validate_json(first.model_dump_json())
    second = replay.run(again, bars, signals, CONFIG)
    assert second.equity == pytest.approx(whole.equity, abs=1e-12)
    assert len(second.trades) == len(whole.trades)


def test_replay_cut_in_two_by_a_split_is_the_account_of_the_restated_bars() -> None:
    """Two new shares for one between the runs: what is held doubles, nothing is lost."""
    before = make_bars(["AAA", "BBB"], count=120)
    cut = sorted(before["event_timestamp"].unique())[70]
    split, late = pl.col("symbol") == "AAA", pl.col("event_timestamp") > cut
    after = before.with_columns(
        *(
            pl.when(split & late).then(pl.col(c) / 2).otherwise(pl.col(c)).alias(c)
            for c in ("open", "high", "low", "close")
        ),
        pl.when(split & ~late).then(0.5).otherwise(1.0).alias("price_factor"),
        pl.when(split & ~late).then(2.0).otherwise(1.0).alias("volume_factor"),
    )
    signals = _signals(before)
    whole = replay.run(_account(["AAA", "BBB"]), after, signals, CONFIG)
    first = replay.run(_account(["AAA", "BBB"]), before.filter(~late), signals, CONFIG)
    assert first.accounts["AAA"].quantity != 0
    second = replay.run(first, after, signals, CONFIG)
    assert second.equity == pytest.approx(whole.equity, abs=1e-12)
    assert second.view().positions == whole.view().positions


@pytest.mark.parametrize("how", [{"decisions": {"allow_short": False}}, {"costs": {"side": "exit_only"}}])
def test_replay_without_shorts_only_closes_longs(how: dict[str, dict[str, object]]) -> None:
    settings = {"decisions": {"max_trades_per_hour": 50}, "costs": {"position_rule": "latest"}}
    config = Config(
        workspace="w",
        interval="1h",
        horizon_bars=5,
        **{part: {**fields, **how.get(part, {})} for part, fields in settings.items()},
    )
    bars = make_bars(["AAA", "BBB"], count=120)
    account = _account(["AAA", "BBB"])
    held: list[float] = []
    replay.run(
        account,
        bars,
        _signals(bars),
        config,
        seen=lambda *_: held.extend(one.quantity for one in account.accounts.values()),
    )
    assert max(held) > 0
    assert min(held) == 0.0


def test_replay_with_future_changed_decides_the_same_until_then() -> None:
    bars = make_bars(["AAA", "BBB"], count=140)
    cut = sorted(bars["event_timestamp"].unique())[100]
    wild = bars.with_columns(
        pl.when(pl.col("event_timestamp") > cut).then(pl.col(c) * 3).otherwise(pl.col(c)).alias(c)
        for c in ("open", "high", "low", "close")
    )
    records: list[dict[tuple[datetime, str], tuple[int, float]]] = []
    for frame in (bars, wild):
        record: dict[tuple[datetime, str], tuple[int, float]] = {}
        replay.run(
            _account(["AAA", "BBB"]),
            frame,
            _signals(bars),
            CONFIG,
            seen=lambda at, advice, r=record: r.update(
                {(at, s): (a.side, a.size) for s, a in advice.items()}
            ),  # type: ignore[misc]
        )
        records.append({k: v for k, v in record.items() if k[0] <= cut})
    assert records[0] == records[1]
    assert len(records[0]) > 100


def test_replay_with_emergency_stop_advises_nothing_more() -> None:
    bars = make_bars(["AAA"], count=100)
    sides: list[int] = []
    account = replay.run(
        _account(["AAA"]),
        bars,
        _signals(bars),
        CONFIG,
        emergency_reason=lambda a: "pulled" if len(a.curve) > 50 else "",
        seen=lambda at, advice: sides.extend(a.side for a in advice.values()),
    )
    assert any(sides[:50])
    assert not any(sides[50:])
    assert account.accounts["AAA"].quantity == 0.0


def test_replay_with_a_later_start_knows_the_bars_before_it() -> None:
    """The volatility filter needs 120 bars: with them in the past it can speak from the first bar on."""
    bars = make_bars(["AAA"], count=260)
    wild = bars.with_columns(
        pl.when(pl.col("event_timestamp") > bars["event_timestamp"][199])
        .then(pl.col("close") * (1 + 0.2 * (pl.int_range(pl.len()) % 2)))
        .otherwise(pl.col("close"))
        .alias("close")
    )
    start, rules = sorted(bars["event_timestamp"].unique())[219], set()
    account = replay.run(
        _account(["AAA"]),
        wild,
        _signals(bars),
        CONFIG,
        since=start,
        seen=lambda at, advice: rules.update(r.rule for a in advice.values() for r in a.refusals),
    )
    assert account.curve[0][0] > start
    assert "volatility" in rules


def test_signals_of_the_past_are_the_champions_while_a_canary_is_compared(world: World) -> None:
    config = world.config.model_copy(
        update={
            "features": Config(workspace="w", interval="1h", features={"categories": ["temporal"]}).features
        }
    )
    world.config = config
    world.live(
        {"w.universal": {"stable": 1, "canary": 2}},
        {"w.universal": {"mode": "ab", "share": 1.0, "version": 2}},
    )
    world.server.models[("w.universal", 2)] = outputs((0.6, 0.3, 0.1))
    with world.predictor() as predictor:
        signals = replay.model_signals(predictor, world.bars)
    assert {s.model_version for some in signals.values() for s in some} == {"w.universal/1"}

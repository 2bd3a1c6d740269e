"""Learning metrics (D3): how a model's skill moves over time, with regimes, and after a change of regime.

Checked predictions rows (one model) in; a table per period, a table per regime and a few numbers out.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig
from barcast.evaluation import backtest, frames, metrics_ml


def _facts(rows: pl.DataFrame, costs: CostsConfig, horizon_bars: int) -> pl.DataFrame:
    p = frames.probabilities(rows)
    labels = rows["label"].to_numpy()
    action = np.argmax(p, axis=1)
    return rows.select("symbol", "event_timestamp", "regime", "volatility_regime", "confidence").with_columns(
        pl.Series("correct", (action == labels).astype(np.float64)),
        pl.Series("log_loss", metrics_ml.log_loss_rows(labels, p)),
        pl.Series("net", backtest.row_net_returns(rows, costs, horizon_bars=horizon_bars)),
        pl.Series("size", np.abs(np.expm1(rows["forward_log_return"].to_numpy()))),
        pl.Series("acted", (action != frames.HOLD).astype(np.float64)),
        pl.Series(
            "agrees", (np.sign(rows["forward_log_return"].to_numpy()) == np.sign(action - 1)).astype(float)
        ),
    )


def _summary() -> list[pl.Expr]:
    return [
        pl.len().alias("rows"),
        pl.col("correct").mean().alias("accuracy"),
        # right answers weighted by what was at stake: the size of the move
        pl.when(pl.col("size").sum() > 0)
        .then((pl.col("correct") * pl.col("size")).sum() / pl.col("size").sum())
        .alias("profit_weighted_accuracy"),
        pl.col("log_loss").mean(),
        (pl.col("confidence").mean() - pl.col("correct").mean()).alias("overconfidence"),
        pl.col("acted").mean().alias("acted_share"),
        (pl.col("net").mean() * 1e4).alias("net_bps_per_row"),
    ]


def by_period(
    rows: pl.DataFrame, costs: CostsConfig, *, horizon_bars: int, num_periods: int = 8
) -> pl.DataFrame:
    """Equal spans of calendar time: period_start, rows, accuracy, profit_weighted_accuracy (right answers
    weighted by the size of the move), log_loss, overconfidence (mean confidence - accuracy), acted_share,
    net_bps_per_row.
    """
    facts = _facts(rows, costs, horizon_bars)
    stamps = facts["event_timestamp"].dt.epoch("us").to_numpy()
    length = max(1, (stamps.max() - stamps.min() + 1) / num_periods)
    period = np.minimum((stamps - stamps.min()) / length, num_periods - 1).astype(np.int64)
    return (
        facts.with_columns(pl.Series("period", period))
        .group_by("period")
        .agg(pl.col("event_timestamp").min().alias("period_start"), *_summary())
        .sort("period")
        .drop("period")
    )


def by_regime(rows: pl.DataFrame, costs: CostsConfig, *, horizon_bars: int) -> pl.DataFrame:
    """The same figures per regime and per volatility regime: columns kind, regime, then those of
    `by_period`.
    """
    facts = _facts(rows, costs, horizon_bars)
    return pl.concat(
        facts.group_by(pl.col(kind).alias("regime"))
        .agg(*_summary())
        .sort("regime")
        .select(pl.lit(kind).alias("kind"), pl.all())
        for kind in ("regime", "volatility_regime")
    )


def metrics(
    rows: pl.DataFrame,
    costs: CostsConfig,
    *,
    horizon_bars: int,
    num_periods: int = 8,
    recovery_bars: int = 50,
) -> dict[str, float]:
    """A few numbers about adaptation.

    - accuracy_trend: slope of accuracy per period, in accuracy per period (the rate at which it learns or
    forgets). - log_loss_trend: the same of log loss.
    - accuracy_spread: largest minus smallest accuracy of a period.
    - profit_weighted_accuracy: over all rows.
    - regime_gap: accuracy of the best minus the worst regime with at least 30 rows.
    - reaction_bars: mean bars after a change of regime until the mean correctness of the last 10 rows is back
    at the
      symbol's own accuracy, at most `recovery_bars`; NaN without a change.
    """
    periods = by_period(rows, costs, horizon_bars=horizon_bars, num_periods=num_periods)
    facts = _facts(rows, costs, horizon_bars)
    regimes = facts.group_by("regime").agg(pl.col("correct").mean(), pl.len()).filter(pl.col("len") >= 30)
    weight = float(facts["size"].sum())
    accuracy = periods["accuracy"].to_numpy()
    return {
        "accuracy_trend": _slope(accuracy),
        "log_loss_trend": _slope(periods["log_loss"].to_numpy()),
        "accuracy_spread": float(accuracy.max() - accuracy.min()),
        "profit_weighted_accuracy": float((facts["correct"] * facts["size"]).sum()) / weight
        if weight > 0
        else math.nan,
        "regime_gap": float(np.ptp(regimes["correct"].to_numpy())) if regimes.height > 1 else 0.0,
        "reaction_bars": _reaction(facts, recovery_bars),
    }


def _slope(values: np.ndarray) -> float:
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def _reaction(facts: pl.DataFrame, limit: int, window: int = 10) -> float:
    taken: list[int] = []
    for part in facts.partition_by("symbol", maintain_order=True):
        correct = part["correct"].to_numpy()
        regime = part["regime"].to_numpy()
        usual = float(correct.mean())
        for change in np.flatnonzero(regime[1:] != regime[:-1]) + 1:
            after = correct[change : change + limit]
            if len(after) < window:
                continue
            means = np.convolve(after, np.ones(window) / window, mode="valid")
            back = np.flatnonzero(means >= usual - 1e-12)
            taken.append(int(back[0]) + window if len(back) else limit)
    return float(np.mean(taken)) if taken else math.nan

"""What confidence is worth: BUY/SELL and HOLD apart, by band and by threshold.

A model can be confident of HOLD only; one table over all answers would hide that. Checked predictions rows
in, tables for the report out.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig
from barcast.evaluation import backtest, frames


def _facts(rows: pl.DataFrame, costs: CostsConfig) -> pl.DataFrame:
    action = frames.actions(rows)
    side = action.astype(np.float64) - 1.0
    forward = rows["forward_log_return"].to_numpy()
    # a decision alone, entered and left at full cost: what acting on this band would pay
    held = frames.signals(rows, exit_only=costs.side == "exit_only")
    gross = held * np.expm1(forward)
    net = gross - 2 * np.abs(held) * costs.one_way
    return pl.DataFrame(
        {
            "answer": np.where(action == frames.HOLD, "HOLD", "BUY/SELL"),
            "confidence": rows["confidence"],
            "correct": (action == rows["label"].to_numpy()).astype(np.float64),
            "agrees": (np.sign(forward) == np.sign(side)).astype(np.float64),
            "net_bps": net * 1e4,
            "gross_bps": gross * 1e4,
        }
    )


def bands(rows: pl.DataFrame, costs: CostsConfig, *, num_bands: int = 10) -> pl.DataFrame:
    """Per answer ("BUY/SELL", "HOLD") and band of confidence: low, high, rows, share (of all rows),
    confidence, accuracy, hit_rate (sign of the return), gross_bps and net_bps per decision at full round-trip
    cost.
    """
    facts = _facts(rows, costs).with_columns(
        (pl.col("confidence") * num_bands).floor().clip(0, num_bands - 1).cast(pl.Int32).alias("band")
    )
    return (
        facts.group_by("answer", "band")
        .agg(
            pl.len().alias("rows"),
            (pl.len() / rows.height).alias("share"),
            pl.col("confidence").mean(),
            pl.col("correct").mean().alias("accuracy"),
            pl.when(pl.col("answer").first() == "BUY/SELL").then(pl.col("agrees").mean()).alias("hit_rate"),
            pl.when(pl.col("answer").first() == "BUY/SELL")
            .then(pl.col("gross_bps").mean())
            .alias("gross_bps"),
            pl.when(pl.col("answer").first() == "BUY/SELL").then(pl.col("net_bps").mean()).alias("net_bps"),
        )
        .with_columns(
            (pl.col("band") / num_bands).alias("low"), ((pl.col("band") + 1) / num_bands).alias("high")
        )
        .sort("answer", "band")
        .select(
            "answer",
            "low",
            "high",
            "rows",
            "share",
            "confidence",
            "accuracy",
            "hit_rate",
            "gross_bps",
            "net_bps",
        )
    )


def thresholds(
    rows: pl.DataFrame, costs: CostsConfig, *, horizon_bars: int, num_levels: int = 10
) -> pl.DataFrame:
    """Acting only above a confidence: threshold (deciles of the BUY/SELL rows' confidence), acted_share of
    all rows, hit_rate, accuracy, gross_bps and net_bps per decision, and net_bps_netted, where trades between
    neighbouring decisions are netted as the backtest does. No rows without any BUY or SELL.
    """
    facts = _facts(rows, costs)
    acted = facts.filter(pl.col("answer") == "BUY/SELL")
    if acted.height == 0:
        return pl.DataFrame(schema=_THRESHOLDS)
    levels = np.unique(
        np.quantile(acted["confidence"].to_numpy(), np.linspace(0, 1 - 1 / num_levels, num_levels))
    )
    out = []
    for level in levels:
        chosen = acted.filter(pl.col("confidence") >= level)
        netted = backtest.row_net_returns(
            rows, costs.model_copy(update={"min_confidence": float(level)}), horizon_bars=horizon_bars
        )
        out.append(
            {
                "threshold": float(level),
                "acted_share": chosen.height / rows.height,
                "hit_rate": float(chosen["agrees"].mean()),  # type: ignore[arg-type]
                "accuracy": float(chosen["correct"].mean()),  # type: ignore[arg-type]
                "gross_bps": float(chosen["gross_bps"].mean()),  # type: ignore[arg-type]
                "net_bps": float(chosen["net_bps"].mean()),  # type: ignore[arg-type]
                "net_bps_netted": float(netted.sum()) / chosen.height * 1e4,
            }
        )
    return pl.DataFrame(out, schema=_THRESHOLDS)


_THRESHOLDS = dict.fromkeys(
    ("threshold", "acted_share", "hit_rate", "accuracy", "gross_bps", "net_bps", "net_bps_netted"), pl.Float64
)


def coverage(rows: pl.DataFrame, *, num_points: int = 50) -> pl.DataFrame:
    """Coverage against accuracy: rows taken from the most confident down, for all answers and for BUY/SELL
    alone.

    Columns: answer ("all", "BUY/SELL"), coverage (share of those answers taken), accuracy. Rows of equal
        confidence
    are taken together, so that their order cannot flatter.
    """
    action = frames.actions(rows)
    correct = (action == rows["label"].to_numpy()).astype(np.float64)
    confidence = rows["confidence"].to_numpy()
    parts = []
    for answer, mask in (("all", np.ones(len(action), dtype=bool)), ("BUY/SELL", action != frames.HOLD)):
        if not mask.any():
            continue
        order = np.argsort(-confidence[mask], kind="stable")
        sorted_confidence, right = confidence[mask][order], np.cumsum(correct[mask][order])
        n = len(order)
        ends = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True)) + 1
        wanted = np.unique(np.ceil(np.linspace(n / num_points, n, num_points)).astype(np.int64))
        taken = np.unique(ends[np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)])
        parts.append(
            pl.DataFrame(
                {"answer": [answer] * len(taken), "coverage": taken / n, "accuracy": right[taken - 1] / taken}
            )
        )
    return pl.concat(parts)

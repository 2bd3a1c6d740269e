"""What the thresholds are compared with, and what each threshold would have given.

The documents ask for 65% to act and 80% for a larger size. Taken on three classes these are almost never
met at short horizons, since HOLD takes most of the mass. They are compared with the SIDE confidence
instead: the calibrated probability of the side against the opposite side, p(side) / (p(side) +
p(opposite)). A sure "nothing will happen" is kept out by a second rule, the least probability of any move
(`min_move_probability`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.types import Band

DEFAULT_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


def side_of(p_sell: float, p_buy: float) -> int:
    """+1 when BUY is likelier than SELL, -1 the other way round, 0 on a tie."""
    return int(p_buy > p_sell) - int(p_buy < p_sell)


def side_confidence(p_sell: float, p_buy: float) -> float:
    """Probability of the likelier side given that one of the two comes, 0.5..1; 0.5 when neither has any
    mass."""
    total = p_sell + p_buy
    return max(p_sell, p_buy) / total if total > 0 else 0.5


def band(confidence: float, config: DecisionsConfig) -> Band:
    """below (no action), low (size reduced), normal, or high (size raised)."""
    if confidence < config.act_threshold:
        return "below"
    if confidence < config.normal_threshold:
        return "low"
    return "normal" if confidence < config.high_threshold else "high"


def threshold_table(
    predictions: pl.DataFrame,
    *,
    cost_bps: float,
    min_move_probability: float = DecisionsConfig().min_move_probability,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
) -> pl.DataFrame:
    """What acting from each threshold on would have given, on rows whose outcome is known.

    Args:
        predictions: needs p_sell, p_buy, forward_log_return.
        cost_bps: round-trip cost taken off each acted row, basis points.
        min_move_probability: rows with less p_sell + p_buy don't act.

    Returns:
        One row per threshold: `threshold, acted_rows, acted_share, accuracy` (share of acted rows whose
        return had the side's sign), `net_bps` (mean net log return of an acted row in basis points) and
        `net_bps_stderr` (plain standard error; overlapping labels make the true one larger). Null where
        nothing acted.
    """
    p_sell = predictions["p_sell"].to_numpy().astype(np.float64)
    p_buy = predictions["p_buy"].to_numpy().astype(np.float64)
    outcome = predictions["forward_log_return"].to_numpy().astype(np.float64)
    move = p_sell + p_buy
    side = np.sign(p_buy - p_sell)
    confidence = np.maximum(p_sell, p_buy) / np.where(move > 0, move, 1.0)
    confidence = np.where(move > 0, confidence, 0.5)
    open_rows = (side != 0) & (move >= min_move_probability) & np.isfinite(outcome)
    rows = [_row(t, open_rows & (confidence >= t), side, outcome, cost_bps) for t in thresholds]
    return pl.DataFrame(
        rows,
        schema={
            "threshold": pl.Float64,
            "acted_rows": pl.Int64,
            "acted_share": pl.Float64,
            "accuracy": pl.Float64,
            "net_bps": pl.Float64,
            "net_bps_stderr": pl.Float64,
        },
        orient="row",
    )


def _row(
    threshold: float,
    acted: NDArray[np.bool_],
    side: NDArray[np.float64],
    outcome: NDArray[np.float64],
    cost_bps: float,
) -> tuple[float, int, float, float | None, float | None, float | None]:
    count = int(acted.sum())
    share = count / len(acted) if len(acted) else 0.0
    if count == 0:
        return threshold, 0, share, None, None, None
    gross = side[acted] * outcome[acted]
    net = gross * 1e4 - cost_bps
    error = float(net.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return threshold, count, share, float((gross > 0).mean()), float(net.mean()), error

"""A reported trade becomes a reward: the report, what the log knows of its prediction, and the trades
before it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.rewards import Reward, TradeOutcome, reward
from barcast.errors import RefusedError
from barcast.serving.prediction_log import PredictionLog, TradeReport


@dataclass(frozen=True)
class Feedback:
    """What became of a report.

    Attributes:
        accepted: False when this very report was known already (then nothing was changed).
        reward: its points, part by part; those of the first report, whatever came since.
    """

    accepted: bool
    reward: Reward


def record(log: PredictionLog, trade: TradeReport, config: DecisionsConfig) -> Feedback:
    """Keep a trade's result once, with its reward.

    Raises:
        RefusedError: the trade id is known with other contents, the prediction named is unknown or of another
            symbol, or the times run backwards.
    """
    known = log.prediction(trade.prediction_id) if trade.prediction_id else None
    if trade.prediction_id and known is None:
        raise RefusedError(
            f"Trade {trade.trade_id} names the prediction {trade.prediction_id}, which is not in the log.",
            hint="Leave prediction_id out if the trade followed no answer of barcast.",
        )
    if known is not None and known["symbol"] != trade.symbol:
        raise RefusedError(
            f"Trade {trade.trade_id} is of {trade.symbol}, its prediction of {known['symbol']}."
        )
    outcome = _outcome(log, trade, known)
    points = reward(outcome, config)
    accepted = log.feedback(trade, points.total, json.dumps(points.parts))
    if not accepted and (kept := log.reward(trade.trade_id)) is not None:
        points = Reward(kept[0], tuple((name, part) for name, part in json.loads(kept[1])))
    return Feedback(accepted, points)


def _outcome(log: PredictionLog, trade: TradeReport, known: dict[str, Any] | None) -> TradeOutcome:
    side = 1.0 if trade.action == "BUY" else -1.0
    held = None
    if known is not None and known["forward_log_return"] is not None:
        held = float(side * np.expm1(known["forward_log_return"]) - trade.fees_bps / 1e4)
    known = known or {}
    confidence = trade.confidence if trade.confidence is not None else known.get("side_confidence")
    return TradeOutcome(
        net_return=trade.net_return,
        duration_hours=(trade.closed_at - trade.opened_at).total_seconds() / 3600,
        risk_level=known.get("risk_level"),
        side_confidence=confidence,
        size=trade.size,
        expected_volatility=known.get("expected_volatility") or 0.0,
        volatility_regime=known.get("volatility_regime") or "unknown",
        profits_before=log.profits_in_a_row(excluding=trade.trade_id),
        stopped_early=trade.stopped_early,
        held_net_return=held,
    )

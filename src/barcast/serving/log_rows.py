"""What a row of the prediction log holds: a reported trade, and an answer flattened into columns."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from barcast.serving.market import micros
from barcast.serving.types import Prediction

# No trade multiplies its price by more; prices in two units do.
_LARGEST_MOVE = 1000.0


class TradeReport(BaseModel):
    """A finished trade, as reported from outside.

    Prices as traded; times aware UTC; `fees_bps` is the whole round trip's cost in basis points of the
    entry value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trade_id: str = Field(min_length=1, max_length=128, pattern=r"^[\w.:/-]+$")
    symbol: str = Field(min_length=1, max_length=64)
    action: str = Field(pattern="^(BUY|SELL)$", description="Side of the entry.")
    entry_price: float = Field(gt=0, allow_inf_nan=False)
    exit_price: float = Field(gt=0, allow_inf_nan=False)
    opened_at: datetime
    closed_at: datetime
    size: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False, description="Share of equity.")
    fees_bps: float = Field(default=0.0, ge=0, le=10_000, allow_inf_nan=False)
    confidence: float | None = Field(
        default=None, ge=0, le=1, description="Side confidence at entry; from the log if left out."
    )
    prediction_id: str | None = Field(
        default=None, max_length=64, description="The answer it followed, if any."
    )
    stopped_early: bool = Field(default=False, description="Closed before its horizon.")

    @model_validator(mode="after")
    def _one_unit(self) -> TradeReport:
        low, high = sorted((self.entry_price, self.exit_price))
        if low < high / _LARGEST_MOVE:
            raise ValueError(
                f"entry_price {self.entry_price:g} and exit_price {self.exit_price:g} lie more than "
                f"{_LARGEST_MOVE:g} times apart: give both in the same unit, as traded"
            )
        return self

    @property
    def net_return(self) -> float:
        """Simple return of the entry value after costs."""
        side = 1.0 if self.action == "BUY" else -1.0
        return side * (self.exit_price / self.entry_price - 1.0) - self.fees_bps / 1e4


_INTEGERS = (
    "feature_us",
    "answered_us",
    "version",
    "risk_level",
    "outcome_us",
    "flushed",
    "received_us",
    "learned",
)
_FLOATS = (
    "p_sell", "p_hold", "p_buy", "confidence", "side_confidence", "uncertainty", "expected_return",
    "expected_volatility", "price", "advised_size", "forward_log_return", "net_return", "reward",
)  # fmt: skip
TYPES: dict[str, pl.DataType] = {
    **{n: pl.Int64() for n in _INTEGERS},
    **{n: pl.Float64() for n in _FLOATS},
}


def identity(answer: Prediction, arm: str | None) -> str:
    """The same symbol, bar, input, model version and arm give the same name."""
    assert answer.feature_timestamp is not None
    parts = (
        answer.symbol, answer.feature_timestamp.isoformat(), str(answer.model), str(answer.model_version),
        str(answer.model_kind), str(answer.input_hash), arm or answer.variant or "champion",
    )  # fmt: skip
    return hashlib.blake2b("|".join(parts).encode(), digest_size=12).hexdigest()


def row_of(answer: Prediction, arm: str | None) -> dict[str, Any]:
    """The log's columns of an answer."""
    p, sure, advice = answer.probabilities, answer.confidence_detail, answer.decision
    assert p is not None
    assert sure is not None
    assert answer.feature_timestamp is not None
    return {
        "prediction_id": answer.prediction_id,
        "symbol": answer.symbol,
        "feature_us": micros(answer.feature_timestamp),
        "answered_us": micros(answer.answered_at),
        "model": answer.model,
        "version": answer.model_version,
        "kind": answer.model_kind,
        "arm": arm or answer.variant or "champion",
        "link": answer.fallback.link if answer.fallback else "",
        "input_hash": answer.input_hash,
        "p_sell": p.SELL,
        "p_hold": p.HOLD,
        "p_buy": p.BUY,
        "confidence": answer.confidence,
        "side_confidence": sure.side,
        "uncertainty": sure.uncertainty,
        "expected_return": answer.expected_return,
        "expected_volatility": answer.expected_volatility,
        "price": answer.price,
        "regime": answer.regime,
        "volatility_regime": answer.volatility_regime,
        "risk_level": answer.risk_level,
        "advised": advice.action if advice else None,
        "advised_size": advice.size if advice else None,
        "band": advice.confidence_band if advice else None,
        "refusals": ",".join(r.rule for r in advice.refusals) if advice else "",
    }

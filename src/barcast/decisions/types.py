"""What a decision is made of: the model's signal, the account, the market; and what comes out.

All are frozen and plain, so that a decision can be made again from its record. Shares are parts of equity;
signs are +1 for BUY (long), -1 for SELL (short), 0 for nothing. Times are aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Band = Literal["below", "low", "normal", "high"]


@dataclass(frozen=True)
class Signal:
    """What a model said about one symbol at one bar.

    Attributes:
        p_sell, p_hold, p_buy: calibrated, sum 1.
        expected_return: expected log return over the horizon.
        expected_volatility: its standard deviation.
        price: as traded, above 0.
        outlier_distance: distance of the window from the training distribution, as a multiple of the
        abstention limit
            (above 1 abstains); None when the model carries no reference.
        members: side (+1, 0, -1) and weight of each ensemble member; empty when no ensemble answered, None when its
            members could not be heard.
    """

    symbol: str
    event_timestamp: datetime
    p_sell: float
    p_hold: float
    p_buy: float
    expected_return: float
    expected_volatility: float
    price: float
    model_size: float = 1.0
    uncertainty: float = 0.0
    outlier_distance: float | None = None
    members: tuple[tuple[int, float], ...] | None = ()
    horizon_bars: int = 1
    regime: str = "unknown"
    volatility_regime: str = "unknown"
    model_version: str = ""


@dataclass(frozen=True)
class Market:
    """What is known of the market at `as_of`.

    Attributes:
        volatility_ratio: present volatility over its median, per symbol.
        correlation: (S, S) of log returns, rows and columns in the order of `symbols`; causal.
    """

    as_of: datetime
    interval_seconds: float
    symbols: tuple[str, ...] = ()
    volatility_ratio: dict[str, float] = field(default_factory=dict)
    correlation: tuple[tuple[float, ...], ...] = ()

    def correlated(self, left: str, right: str) -> float:
        """Correlation of two symbols; 0 where it is not known, 1 with itself."""
        if left == right:
            return 1.0
        i, j = self._places.get(left), self._places.get(right)
        return self.correlation[i][j] if i is not None and j is not None and self.correlation else 0.0

    @cached_property
    def _places(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}


_MOST = 1e18  # of anything counted or priced: their products stay finite


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Position(_Record):
    """An open position. Quantity is signed, in units of the symbol; prices as traded."""

    symbol: str = Field(min_length=1, max_length=64)
    quantity: float = Field(ge=-_MOST, le=_MOST, allow_inf_nan=False)
    price: float = Field(gt=0, le=_MOST, allow_inf_nan=False, description="Latest price.")
    entry_price: float | None = Field(default=None, gt=0, le=_MOST, allow_inf_nan=False)

    @property
    def value(self) -> float:
        """Signed market value."""
        return self.quantity * self.price


class Trade(_Record):
    """A finished trade: what the cool-down and the trade counters look at."""

    symbol: str = Field(min_length=1, max_length=64)
    opened_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    net_return: float | None = Field(
        default=None, allow_inf_nan=False, description="Simple return after costs; None while open."
    )


class Account(_Record):
    """Equity, positions and recent trades, from the paper account or from outside."""

    equity: float = Field(gt=0, le=_MOST, allow_inf_nan=False)
    peak_equity: float = Field(gt=0, le=_MOST, allow_inf_nan=False)
    positions: tuple[Position, ...] = Field(default=(), max_length=10_000)
    trades: tuple[Trade, ...] = Field(default=(), max_length=10_000)
    emergency_reason: str = Field(
        default="", max_length=500, description="Why everything is stopped; empty when it is not."
    )

    @property
    def drawdown(self) -> float:
        """Share lost since the peak, 0..1."""
        return max(0.0, 1.0 - self.equity / max(self.peak_equity, self.equity))

    def share(self, symbol: str) -> float:
        """Signed share of equity held in `symbol`."""
        return sum(p.value for p in self.positions if p.symbol == symbol) / self.equity

    @property
    def gross(self) -> float:
        """Sum of absolute positions, as a share of equity."""
        return sum(abs(p.value) for p in self.positions) / self.equity


@dataclass(frozen=True)
class RuleRefusal:
    """One rule that stands against acting."""

    rule: str
    message: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class SizeSteps:
    """How the size came about, each as a share of equity (0 or more)."""

    model: float
    kelly: float
    volatility_adjusted: float
    confidence_adjusted: float
    portfolio_adjusted: float
    suggested: float


@dataclass(frozen=True)
class Advice:
    """The outcome for one symbol.

    Attributes:
        side: +1, -1, or 0 when nothing is advised.
        wanted_side: the side the signal pointed to before any rule.
        side_confidence: calibrated p(side) / (p(side) + p(opposite)).
        only_closes: the trade may reduce what is held and not go beyond it.
    """

    symbol: str
    side: int
    size: float
    wanted_side: int
    side_confidence: float
    band: Band
    sizes: SizeSteps
    refusals: tuple[RuleRefusal, ...] = ()
    notes: tuple[str, ...] = ()
    only_closes: bool = False

    @property
    def action(self) -> Literal["SELL", "HOLD", "BUY"]:
        """The advised action in words."""
        return "BUY" if self.side > 0 else "SELL" if self.side < 0 else "HOLD"

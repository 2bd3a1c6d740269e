"""A simulated account, one bar at a time: the backtest's rules, costs and limits, kept between runs.

At each bar: financing since the last close, then the last bar's decision trades at this bar's open (or
close), then the account is marked at this close, then this bar's decision is taken in. Each symbol has its
own account with an equal share of the capital, as in `evaluation.backtest`, whose equity it reproduces on
the same bars. Nothing is ordered anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from barcast.config.evaluation import CostsConfig
from barcast.decisions.types import Account, Position, Trade
from barcast.errors import DataError

_DAY = 86_400.0


@dataclass(frozen=True)
class PaperBar:
    """One closed bar with adjusted prices. `factor` is adjusted over traded price, `volume` as traded."""

    open: float
    close: float
    volume: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class PaperDecision:
    """What was decided at a bar's close: a position in [-1, 1] of the symbol's own account, and tags to
    attribute it."""

    position: float
    band: str = "normal"
    regime: str = "unknown"
    model_version: str = ""


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Held(_State):
    """A decision that still counts."""

    position: float
    band: str
    regime: str
    model_version: str


class RoundTrip(_State):
    """The open round trip of one symbol."""

    side: int
    opened_at: datetime
    gross: float = 0.0
    cost: float = 0.0
    peak_notional: float = 0.0


class SymbolAccount(_State):
    """One symbol's account, in parts of its starting equity; quantity in adjusted units."""

    cash: float = 1.0
    quantity: float = 0.0
    wanted: float = 0.0
    pending: bool = False
    target: float = 0.0
    close: float = 0.0
    factor: float = 1.0
    limit: float | None = None
    """Largest notional the next trade may have; None: any."""
    last: datetime | None = None
    ruined: bool = False
    age: int = 0
    kept: float = 0.0
    decisions: list[Held | None] = Field(default_factory=list)
    trip: RoundTrip | None = None

    @property
    def equity(self) -> float:
        return self.cash + self.quantity * self.close

    def restate(self, factor: float) -> None:
        """The last bar is adjusted by another `factor` now (a split or dividend came): same value, other units."""
        if factor != self.factor:
            ratio = factor / self.factor
            self.close, self.quantity, self.factor = self.close * ratio, self.quantity / ratio, factor


class PaperAccount(_State):
    """The whole account. JSON round trip by pydantic.

    Attributes:
        capital: money it began with.
        attribution: net profit by (symbol, regime, band, model version), in parts of the starting capital.
    """

    capital: float = Field(gt=0)
    horizon_bars: int = Field(ge=1)
    interval_seconds: float = Field(gt=0)
    symbols: list[str]
    accounts: dict[str, SymbolAccount] = Field(default_factory=dict)
    peak: float = 1.0
    last: datetime | None = None
    trades: list[Trade] = Field(default_factory=list)
    attribution: list[tuple[str, str, str, str, float]] = Field(default_factory=list)
    curve: list[tuple[datetime, float]] = Field(default_factory=list)

    def step(self, at: datetime, bars: Mapping[str, PaperBar], costs: CostsConfig) -> None:
        """Trade what was decided before, at the bars that close at `at`, and mark the account.

        Raises:
            DataError: time runs backwards, or a price is not positive.
        """
        if self.last is not None and at <= self.last:
            raise DataError(
                f"Bars of {at} come after those of {self.last}.", hint="Replay bars in order of time."
            )
        for symbol, bar in bars.items():
            if symbol not in self.symbols:
                raise DataError(f"{symbol} is not part of this account.", hint="Start a new one with --new.")
            if not (bar.open > 0 and bar.close > 0):
                raise DataError(f"{symbol} at {at}: prices {bar.open}, {bar.close} are not positive.")
            self._step_symbol(symbol, at, bar, costs)
        self.last = at
        equity = self.equity
        self.peak = max(self.peak, equity)
        self.curve.append((at, equity))

    def decide(self, at: datetime, decisions: Mapping[str, PaperDecision], costs: CostsConfig) -> None:
        """Take in what was decided at the close `at`; symbols whose bar closed without a decision count as
        HOLD."""
        for symbol, account in self.accounts.items():
            if account.last != at:
                continue
            given = decisions.get(symbol)
            held = None
            if given is not None:
                held = Held(
                    position=float(np.clip(given.position, -1.0, 1.0)),
                    band=given.band,
                    regime=given.regime,
                    model_version=given.model_version,
                )
            account.decisions = [*account.decisions, held][-self.horizon_bars :]
            account.target = self._target(account, held, costs)
        if costs.max_gross_exposure < costs.max_position:
            self._limit_gross(at, costs)

    @property
    def equity(self) -> float:
        """Mean of the symbols' accounts, in parts of the starting capital."""
        values = [self.accounts[s].equity if s in self.accounts else 1.0 for s in self.symbols]
        return sum(values) / len(values)

    def settled(self, costs: CostsConfig) -> float:
        """Equity after closing everything at the last closes and paying for it: what a backtest ends with."""
        total = 0.0
        for symbol in self.symbols:
            account = self.accounts.get(symbol)
            if account is None:
                total += 1.0
            else:
                total += account.equity - abs(account.quantity) * account.close * costs.one_way
        return total / len(self.symbols)

    def view(self, *, emergency_reason: str = "") -> Account:
        """The account as the decision layer sees it: money, positions in traded units, recent trades."""
        scale = self.capital / len(self.symbols)
        positions = tuple(
            Position(symbol=s, quantity=a.quantity * scale * a.factor, price=a.close / a.factor)
            for s, a in sorted(self.accounts.items())
            if a.quantity != 0
        )
        equity = max(self.equity * self.capital, 1e-9)
        open_trips = [
            Trade(symbol=s, opened_at=a.trip.opened_at)
            for s, a in self.accounts.items()
            if a.trip is not None
        ]
        return Account(
            equity=equity,
            peak_equity=max(self.peak * self.capital, equity),
            positions=positions,
            trades=(*self.trades[-500:], *open_trips),
            emergency_reason=emergency_reason,
        )

    def _step_symbol(self, symbol: str, at: datetime, bar: PaperBar, costs: CostsConfig) -> None:
        first = symbol not in self.accounts
        account = self.accounts.setdefault(symbol, SymbolAccount())
        equity_before = account.equity if not first else 1.0
        if not first and not account.ruined:
            self._finance(account, at, costs)
            price = bar.close if costs.trade_at == "next_close" else bar.open
            self._move(account, price)
            if account.pending or account.target != account.wanted:
                self._trade(account, symbol, at, price, costs)
        if not first:
            self._move(account, bar.close)
        account.close, account.factor, account.last = bar.close, bar.factor, at
        account.limit = self._limit(bar, costs)
        if account.equity <= 0 and not account.ruined:
            self._close_trip(account, symbol, at)
            account.cash, account.quantity, account.ruined = 0.0, 0.0, True
        self._attribute(symbol, account, account.equity - equity_before)

    def _finance(self, account: SymbolAccount, at: datetime, costs: CostsConfig) -> None:
        assert account.last is not None
        days = (at - account.last).total_seconds() / _DAY
        carried = account.quantity * account.close
        paid = carried * costs.funding_bps_per_day / 1e4 * days
        if carried < 0:
            paid -= carried * costs.borrow_bps_per_year / 1e4 / 365.25 * days
        account.cash -= paid
        if account.trip is not None:
            account.trip.cost += paid

    def _move(self, account: SymbolAccount, price: float) -> None:
        """The mark goes to `price`."""
        if account.trip is not None:
            account.trip.gross += account.quantity * (price - account.close)
        account.close = price

    def _trade(
        self, account: SymbolAccount, symbol: str, at: datetime, price: float, costs: CostsConfig
    ) -> None:
        before = account.cash + account.quantity * price
        if before <= 0:
            return
        account.wanted = account.target
        delta = account.wanted * before / price - account.quantity
        limit = abs(delta) if account.limit is None else account.limit / price
        account.pending = abs(delta) > limit
        if account.pending:
            delta = limit if delta > 0 else -limit
        new = account.quantity + delta
        if account.wanted == 0.0 and not account.pending:
            new = 0.0
        cost = abs(delta) * price * costs.one_way
        account.cash -= delta * price + cost
        old = account.quantity
        closing = min(abs(delta), abs(old)) if delta * old < 0 else 0.0
        if account.trip is not None:
            account.trip.cost += closing * price * costs.one_way
        account.quantity = new
        if account.trip is not None and (new == 0.0 or new * old < 0):
            self._close_trip(account, symbol, at)
        if new != 0.0:
            if account.trip is None:
                account.trip = RoundTrip(side=1 if new > 0 else -1, opened_at=at)
            account.trip.cost += (abs(delta) - closing) * price * costs.one_way
            account.trip.peak_notional = max(account.trip.peak_notional, abs(new) * price)

    def _close_trip(self, account: SymbolAccount, symbol: str, at: datetime) -> None:
        if account.trip is None:
            return
        notional = account.trip.peak_notional or 1.0
        net = (account.trip.gross - account.trip.cost) / notional
        self.trades.append(
            Trade(symbol=symbol, opened_at=account.trip.opened_at, closed_at=at, net_return=net)
        )
        account.trip = None

    def _target(self, account: SymbolAccount, new: Held | None, costs: CostsConfig) -> float:
        """The position wanted after this bar, as `evaluation.backtest.targets` gives it."""
        if costs.position_rule == "tranches":
            mean = sum(d.position for d in account.decisions if d is not None) / self.horizon_bars
            wanted = 0.0 if abs(mean) < 1e-12 else round(mean, 12)
        elif costs.position_rule == "latest":
            wanted = new.position if new is not None else 0.0
        else:
            account.age = 0 if new is not None else account.age + 1
            if account.age >= self.horizon_bars:
                account.kept = 0.0
            elif new is not None and new.position != 0:
                account.kept = new.position
            wanted = account.kept
        return wanted * costs.max_position

    def _limit_gross(self, at: datetime, costs: CostsConfig) -> None:
        gross = sum(abs(a.target) for a in self.accounts.values()) / len(self.symbols)
        if gross > costs.max_gross_exposure:
            for account in self.accounts.values():
                if account.last == at:
                    account.target = round(account.target * costs.max_gross_exposure / gross, 12)

    def _limit(self, bar: PaperBar, costs: CostsConfig) -> float | None:
        """Largest notional that a decision of this bar may trade, in parts of the symbol's starting
        equity."""
        if costs.capital <= 0:
            return None
        traded = bar.close / bar.factor * bar.volume
        return traded * costs.max_participation / (costs.capital / len(self.symbols))

    def _attribute(self, symbol: str, account: SymbolAccount, change: float) -> None:
        """Split a bar's net profit among the decisions behind the position, by their size; they sum to the
        whole."""
        if change == 0.0:
            return
        alive = [d for d in account.decisions if d is not None and d.position != 0]
        total = sum(abs(d.position) for d in alive)
        parts = (
            [(d.regime, d.band, d.model_version, abs(d.position) / total) for d in alive]
            if total > 0
            else [("unknown", "exit", "", 1.0)]
        )
        sums = {tuple(row[:4]): row[4] for row in self.attribution}
        for regime, band, version, share in parts:
            key = (symbol, regime, band, version)
            sums[key] = sums.get(key, 0.0) + change * share / len(self.symbols)
        self.attribution = [(*key, value) for key, value in sums.items()]  # type: ignore[misc]


def attribution_by(account: PaperAccount, what: str) -> dict[str, float]:
    """Net profit in parts of the starting capital by `symbol`, `regime`, `band` or `model_version`; sums to
    the whole."""
    column = {"symbol": 0, "regime": 1, "band": 2, "model_version": 3}
    if what not in column:
        raise DataError(f"Attribution by {what!r} is not known.", hint=f"Choose one of {', '.join(column)}.")
    result: dict[str, float] = {}
    for row in account.attribution:
        key = str(row[column[what]]) or "none"
        result[key] = result.get(key, 0.0) + row[4]
    return result

"""Interactive Brokers through ib_async and a running TWS or IB Gateway: closed bars, asked for backwards in pages.

The broker stamps intraday bars at their open and daily bars by their date; both become closes here. It has adjusted
TRADES prices for splits already, so the factors stay 1; its history counts as known at its close.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from barcast import clock, intervals, logs
from barcast.bars.calendar import Calendar
from barcast.bars.schema import TIME, check, conform, empty
from barcast.bars.sources.base import selected
from barcast.config.bars import IbConfig
from barcast.errors import ConfigError, DataError

log = logs.get("adapters.ib")

# Per interval: the broker's words for it, and a page that stays within its limits (duration, its length).
_SIZES: dict[str, tuple[str, str, timedelta]] = {
    "5s": ("5 secs", "3600 S", timedelta(hours=1)),
    "10s": ("10 secs", "14400 S", timedelta(hours=4)),
    "15s": ("15 secs", "14400 S", timedelta(hours=4)),
    "30s": ("30 secs", "28800 S", timedelta(hours=8)),
    "1m": ("1 min", "1 D", timedelta(days=1)),
    "2m": ("2 mins", "2 D", timedelta(days=2)),
    "3m": ("3 mins", "1 W", timedelta(days=7)),
    "5m": ("5 mins", "1 W", timedelta(days=7)),
    "10m": ("10 mins", "1 W", timedelta(days=7)),
    "15m": ("15 mins", "1 W", timedelta(days=7)),
    "20m": ("20 mins", "1 W", timedelta(days=7)),
    "30m": ("30 mins", "1 M", timedelta(days=28)),
    "1h": ("1 hour", "1 M", timedelta(days=28)),
    "4h": ("4 hours", "1 M", timedelta(days=28)),
    "1d": ("1 day", "1 Y", timedelta(days=365)),
}
_EMPTY_PAGES = 3  # so many pages in a row without bars: history has ended


class IbSource:
    """Bars of the configured contracts.

    Args:
        config: section `source.ib`.
        interval: one that the broker has.
        calendar: closes daily bars, and intraday bars that end a session early.
        ib: an ib_async.IB, or one that behaves like it; None makes one.
        sleep: how pauses are made.
    """

    def __init__(
        self,
        config: IbConfig,
        interval: str,
        calendar: str = "XNYS",
        *,
        ib: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if interval not in _SIZES:
            raise ConfigError(
                f"Interactive Brokers has no bars of {interval}.", hint=f"It has: {', '.join(_SIZES)}."
            )
        if not config.symbols:
            raise ConfigError("source.ib.symbols is empty.", hint="Name stocks, e.g. [AAPL, MSFT].")
        self._config, self._interval, self._calendar = config, interval, Calendar.of(calendar)
        self._step = intervals.parse(interval)
        self._ib, self._sleep = ib, sleep
        self._contracts: dict[str, Any] = {}

    def symbols(self) -> list[str]:
        return sorted(self._config.symbols)

    def server_time(self) -> datetime:
        """The broker's clock."""
        moment: datetime = self._connected().reqCurrentTime()
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def close(self) -> None:
        """Leave the gateway."""
        if self._ib is not None and self._ib.isConnected():
            self._ib.disconnect()

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars as `Source.fetch` says; without any start one page.

        Raises:
            DataError: the gateway cannot be reached, a contract is unknown or ambiguous, or an answer takes too
                long.
        """
        wanted = selected(self.symbols(), symbols)
        now = clock.now()
        last = now if end is None else min(end, now)
        start = start or clock.instant(self._config.start, "source.ib.start")
        parts = [self._fetch_symbol(symbol, start, last) for symbol in wanted]
        return check(pl.concat([empty(), *parts]), origin="Interactive Brokers")

    def _fetch_symbol(self, symbol: str, start: datetime | None, end: datetime) -> pl.DataFrame:
        size, duration, page = _SIZES[self._interval]
        contract = self._contract(symbol)
        parts: list[pl.DataFrame] = []
        until, empty_pages = end, 0
        while empty_pages < _EMPTY_PAGES:
            bars = self._frame(symbol, self._page(contract, until, duration, size))
            bars = bars.filter(pl.col("event_timestamp") <= end)
            parts.append(bars)
            empty_pages = empty_pages + 1 if bars.height == 0 else 0
            first = bars["event_timestamp"].min() if bars.height else until - page
            assert isinstance(first, datetime)
            before = min(first - self._step, until - self._step)
            if start is None or before <= start:
                break
            until = before
        found = pl.concat([empty(), *parts]).unique(["symbol", "event_timestamp"], keep="first")
        if start is not None:
            found = found.filter(pl.col("event_timestamp") > start)
        return found.sort("event_timestamp")

    def _page(self, contract: Any, until: datetime, duration: str, size: str) -> Sequence[Any]:
        limit = self._config.timeout_seconds
        asked = time.monotonic()
        try:
            bars: Sequence[Any] = self._connected().reqHistoricalData(
                contract,
                endDateTime=until,
                durationStr=duration,
                barSizeSetting=size,
                whatToShow=self._config.what_to_show,
                useRTH=self._config.regular_hours_only,
                formatDate=2,  # instants in UTC, not local texts
                timeout=limit,
            )
        except (TimeoutError, ConnectionError, OSError) as error:
            raise DataError(
                f"The connection to Interactive Brokers was lost: {error}.", hint="Check TWS or IB Gateway."
            ) from error
        if not bars and time.monotonic() - asked >= limit:
            raise DataError(
                f"Interactive Brokers gave no answer within {limit:g} s.",
                hint="Requests may be too frequent (60 in ten minutes); raise source.ib.timeout_seconds.",
            )
        return bars

    def _frame(self, symbol: str, bars: Sequence[Any]) -> pl.DataFrame:
        """The broker's bars, stamped at their close."""
        if not bars:
            return empty()
        if isinstance(bars[0].date, datetime):
            opened = pl.Series([bar.date.astimezone(UTC) for bar in bars], dtype=TIME)
            closes = self._ends(opened)
        else:
            days = [bar.date if isinstance(bar.date, date) else date.fromisoformat(bar.date) for bar in bars]
            closes = self._calendar.session_closes(pl.Series(days, dtype=pl.Date))
        values = {
            name: [float(getattr(bar, name)) for bar in bars] for name in ("open", "high", "low", "close")
        }
        volume = [max(float(bar.volume), 0.0) for bar in bars]  # -1: this kind of price has no volume
        frame = pl.DataFrame({"event_timestamp": closes, **values, "volume": volume}).with_columns(
            symbol=pl.lit(symbol)
        )
        return conform(frame.filter(pl.col("event_timestamp").is_not_null()), origin="Interactive Brokers")

    def _ends(self, opened: pl.Series) -> pl.Series:
        """Closes of bars that opened then; outside the regular session none ends early."""
        if not self._config.regular_hours_only:
            return opened + self._step
        return self._calendar.bar_closes(opened, self._interval)

    def _contract(self, symbol: str) -> Any:
        if symbol not in self._contracts:
            contract = _contract(symbol, self._config)
            found = [c for c in self._connected().qualifyContracts(contract) if c is not None]
            if len(found) != 1:
                raise DataError(
                    f"Interactive Brokers knows {'no' if not found else 'several'} contract(s) for {symbol!r}.",
                    hint="Write TYPE:SYMBOL:EXCHANGE:CURRENCY, e.g. STK:SAP:IBIS:EUR or CASH:EUR:IDEALPRO:USD.",
                )
            self._contracts[symbol] = found[0]
        return self._contracts[symbol]

    def _connected(self) -> Any:
        """The connection, made or made again where it is not there."""
        if self._ib is None:
            try:
                asyncio.get_event_loop_policy().get_event_loop()
            except RuntimeError:  # a thread of its own has no loop yet
                asyncio.set_event_loop(asyncio.new_event_loop())
            import ib_async

            self._ib = ib_async.IB()
        if not self._ib.isConnected():
            config = self._config
            try:
                self._ib.connect(
                    config.host,
                    config.port,
                    clientId=config.client_id,
                    timeout=config.timeout_seconds,
                    readonly=True,
                )
            except (TimeoutError, ConnectionError, OSError) as error:
                raise DataError(
                    f"TWS or IB Gateway does not answer at {config.host}:{config.port}"
                    f" ({str(error) or type(error).__name__}).",
                    hint="Start it, allow API connections there, and check source.ib.port and client_id.",
                ) from error
        return self._ib


def _contract(symbol: str, config: IbConfig) -> Any:
    from ib_async import Contract

    parts = symbol.split(":")
    if len(parts) == 1:
        return Contract(secType="STK", symbol=symbol, exchange=config.exchange, currency=config.currency)
    if len(parts) != 4:
        raise ConfigError(
            f"{symbol!r} is no contract.", hint="Write SYMBOL, or TYPE:SYMBOL:EXCHANGE:CURRENCY."
        )
    kind, name, exchange, currency = parts
    return Contract(secType=kind, symbol=name, exchange=exchange, currency=currency)

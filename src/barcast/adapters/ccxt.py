"""Crypto exchanges through ccxt: closed bars, page by page, stamped at their close.

An exchange stamps a bar at its open and sends the running bar too; both are put right here. History counts as known
at its close (it was public then); the live feed stamps arrival.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from barcast import clock, intervals, logs
from barcast.bars.schema import check, conform, empty
from barcast.bars.sources.base import selected
from barcast.config.bars import CcxtConfig
from barcast.errors import ConfigError, DataError, did_you_mean

log = logs.get("adapters.ccxt")


class CcxtSource:
    """One exchange's bars of the configured pairs.

    Args:
        config: section `source.ccxt`.
        interval: must be one of the exchange's own.
        calendar: not used: exchanges never close.
        sleep: how pauses between attempts are made.
    """

    def __init__(
        self,
        config: CcxtConfig,
        interval: str,
        calendar: str = "24/7",
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import ccxt

        if config.exchange not in ccxt.exchanges:
            raise ConfigError(
                f"ccxt knows no exchange {config.exchange!r}.",
                hint=did_you_mean(config.exchange, ccxt.exchanges),
            )
        if not config.symbols:
            raise ConfigError(
                "source.ccxt.symbols is empty.", hint="Name pairs in ccxt's form, e.g. [BTC/USDT, ETH/USDT]."
            )
        settings = {"enableRateLimit": True, "timeout": int(config.timeout_seconds * 1000), **config.options}
        self._exchange: Any = getattr(ccxt, config.exchange)(settings)
        if interval not in (self._exchange.timeframes or {}):
            raise ConfigError(
                f"{config.exchange} has no bars of {interval}.",
                hint=f"It has: {', '.join(self._exchange.timeframes or {})}.",
            )
        self._config, self._interval, self._sleep = config, interval, sleep
        self._step = intervals.parse(interval)
        self._markets_known = False

    def symbols(self) -> list[str]:
        return sorted(self._config.symbols)

    def server_time(self) -> datetime | None:
        """The exchange's clock, or None where it does not tell."""
        if not self._exchange.has.get("fetchTime"):
            return None
        return datetime.fromtimestamp(self._call(self._exchange.fetch_time) / 1000, tz=UTC)

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars as `Source.fetch` says.

        Raises:
            DataError: the exchange cannot be reached (after the retries), refuses, or has no such market.
        """
        wanted = selected(self.symbols(), symbols)
        self._check_markets(wanted)
        now = clock.now()
        last = now if end is None else min(end, now)
        start = start or clock.instant(self._config.start, "source.ccxt.start")
        parts = [self._fetch_symbol(symbol, start, last) for symbol in wanted]
        return check(pl.concat([empty(), *parts]), origin=self._config.exchange)

    def _fetch_symbol(self, symbol: str, start: datetime | None, end: datetime) -> pl.DataFrame:
        """Bars of one symbol that close in start < t <= end; the newest page without a start."""
        step = self._step
        limit = self._config.page_bars
        # The bar that closes right after `start` opened right after start - step.
        since = (start - step if start is not None else end - step * (limit + 1)) + timedelta(milliseconds=1)
        rows: dict[int, list[float]] = {}
        while since + step <= end:
            page = self._call(
                self._exchange.fetch_ohlcv, symbol, self._interval, since=_milliseconds(since), limit=limit
            )
            fresh = [row for row in page if row[0] >= _milliseconds(since)]
            if not fresh:
                break
            rows |= {int(row[0]): row for row in fresh}
            newest = max(row[0] for row in fresh)
            since = datetime.fromtimestamp(newest / 1000, tz=UTC) + timedelta(milliseconds=1)
        table = [[symbol, *rows[opened]] for opened in sorted(rows)]
        frame = pl.DataFrame(table, schema=_COLUMNS, orient="row", strict=False)
        closes = pl.col("opened").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC") + step
        frame = frame.with_columns(event_timestamp=closes).drop("opened")
        return conform(frame.filter(pl.col("event_timestamp") <= end), origin=self._config.exchange)

    def _check_markets(self, symbols: Sequence[str]) -> None:
        if self._markets_known:
            return
        markets = self._call(self._exchange.load_markets)
        for symbol in symbols:
            if symbol not in markets:
                raise DataError(
                    f"{self._config.exchange} has no market {symbol!r}.",
                    hint=did_you_mean(symbol, markets) or "Write pairs in ccxt's form, e.g. BTC/USDT.",
                )
        self._markets_known = True

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One question to the exchange, repeated with growing pauses while it fails for a time."""
        import ccxt

        for attempt in range(self._config.max_retries + 1):
            try:
                return function(*args, **kwargs)
            except ccxt.OperationFailed as error:  # network, overload, maintenance: they pass
                log.warning("exchange not reached", attempt=attempt, error=_short(error))
                if attempt == self._config.max_retries:
                    raise DataError(
                        f"{self._config.exchange} did not answer in {attempt + 1} attempts: {_short(error)}",
                        hint="Check the network and the exchange's status; nothing was stored.",
                    ) from error
                self._sleep(min(2.0**attempt, 30.0))
            except ccxt.BaseError as error:
                raise DataError(
                    f"{self._config.exchange} refused: {_short(error)}",
                    hint="Check source.ccxt (symbols, interval, options).",
                ) from error
        raise AssertionError("unreachable")


_COLUMNS = pl.Schema(
    {"symbol": pl.String(), "opened": pl.Int64()}
    | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64())
)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _short(error: Exception) -> str:
    return f"{type(error).__name__} {str(error)[:200]}"

"""A simulated Interactive Brokers gateway as ib_async shows it: the peer of the source in tests.

It answers the calls that the source makes, with ib_async's own objects, in the broker's way: history backwards from an
end in limited pages, intraday bars stamped at their open, daily bars by date, the running bar included.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from ib_async import BarData, BarDataList, Contract

_UNITS = {
    "S": timedelta(seconds=1),
    "D": timedelta(days=1),
    "W": timedelta(days=7),
    "M": timedelta(days=28),
    "Y": timedelta(days=365),
}


class Gateway:
    """Behaves like a connected `ib_async.IB`.

    Args:
        bars: per symbol, project bars (stamped at the close); also ones that are still to come.
        step: their length; a day makes daily bars.
        now: the gateway's clock.
    """

    def __init__(self, bars: dict[str, pl.DataFrame], step: timedelta, now: datetime) -> None:
        self.bars, self.step, self.now = bars, step, now
        self.connects = 0
        self.up = True
        self.ambiguous: set[str] = set()
        self.requests: list[tuple[str, datetime, str, str, str, bool]] = []
        self._connected = False

    def isConnected(self) -> bool:  # noqa: N802  ib_async's names
        return self._connected

    def connect(self, host: str, port: int, clientId: int, timeout: float, readonly: bool) -> Gateway:
        if not self.up:
            raise ConnectionRefusedError("Connect call failed")
        assert readonly
        self.connects += 1
        self._connected = True
        return self

    def disconnect(self) -> None:
        self._connected = False

    def reqCurrentTime(self) -> datetime:  # noqa: N802
        return self.now

    def qualifyContracts(self, *contracts: Contract) -> list[Contract | None]:  # noqa: N802
        found: list[Contract | None] = []
        for contract in contracts:
            if contract.symbol in self.ambiguous:
                found.append(None)
            elif contract.symbol in self.bars:
                contract.conId = 1 + sorted(self.bars).index(contract.symbol)
                found.append(contract)
        return found

    def reqHistoricalData(  # noqa: N802
        self,
        contract: Contract,
        endDateTime: datetime,
        durationStr: str,
        barSizeSetting: str,
        whatToShow: str,
        useRTH: bool,
        formatDate: int,
        timeout: float,
    ) -> BarDataList:
        if not self._connected:
            raise ConnectionError("Not connected")
        assert contract.conId
        assert formatDate == 2
        self.requests.append((contract.symbol, endDateTime, durationStr, barSizeSetting, whatToShow, useRTH))
        count, unit = durationStr.split()
        begin = endDateTime - int(count) * _UNITS[unit]
        opens = pl.col("event_timestamp") - self.step
        running = self.now + self.step  # the bar in progress is sent as it stands
        page = self.bars[contract.symbol].filter(
            opens >= begin, opens < endDateTime, pl.col("event_timestamp") < running
        )
        daily = self.step >= timedelta(days=1)
        answer = BarDataList()
        for row in page.iter_rows(named=True):
            closed = row["event_timestamp"]
            when = closed.date() if daily else (closed - self.step).astimezone(UTC)
            prices = {n: row[n] for n in ("open", "high", "low", "close")}
            answer.append(
                BarData(date=when, volume=row["volume"], average=row["close"], barCount=1, **prices)
            )
        return answer

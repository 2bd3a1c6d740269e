"""A small exchange over HTTP that speaks Binance's public market API: the peer of the ccxt source in tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import polars as pl

STEP = 60_000  # milliseconds of a bar


def _market(base: str) -> dict:
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000", "stepSize": "0.0001"},
    ]
    return {
        "symbol": f"{base}USDT",
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "orderTypes": ["LIMIT"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters,
        "permissions": ["SPOT"],
    }


class Exchange:
    """State of the double: the bars it has, its clock, and the faults to play.

    Attributes:
        bars: per exchange symbol rows [open time, o, h, l, c, v], ascending; the running bar included.
        clock: milliseconds.
        failures: HTTP statuses for the next answers; 0 closes the connection without one.
        max_page: most rows in an answer, whatever was asked.
    """

    def __init__(self, bars: dict[str, list[list[float]]], clock: int) -> None:
        self.bars, self.clock = bars, clock
        self.failures: list[int] = []
        self.max_page = 1000
        self.requests: list[str] = []
        self.url = ""

    def answer(self, path: str, query: dict[str, str]) -> object:
        if path.endswith("/exchangeInfo"):
            return {
                "timezone": "UTC",
                "serverTime": self.clock,
                "rateLimits": [],
                "symbols": [_market(b) for b in ("BTC", "ETH")],
            }
        if path.endswith("/time"):
            return {"serverTime": self.clock}
        if path.endswith("/klines"):
            start = int(query.get("startTime", 0))
            limit = min(int(query.get("limit", 500)), self.max_page)
            rows = [r for r in self.bars[query["symbol"]] if r[0] >= start and r[0] <= self.clock][:limit]
            return [[r[0], *map(str, r[1:6]), r[0] + STEP - 1, "0", 1, "0", "0", "0"] for r in rows]
        return None


@contextmanager
def running(exchange: Exchange) -> Iterator[Exchange]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            exchange.requests.append(url.path.rsplit("/", 1)[-1])
            status = exchange.failures.pop(0) if exchange.failures else 200
            if status == 0:
                self.connection.close()
                return
            found = exchange.answer(url.path, {k: v[0] for k, v in parse_qs(url.query).items()})
            body = json.dumps(found if status == 200 else {"code": -1000, "msg": "trouble"}).encode()
            self.send_response(status if found is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    exchange.url = f"http://127.0.0.1:{server.server_address[1]}/api/v3"
    try:
        yield exchange
    finally:
        server.shutdown()
        server.server_close()


def rows_of(bars: pl.DataFrame) -> list[list[float]]:
    """Exchange rows (stamped at the open) of one symbol's bars."""
    opened = bars["event_timestamp"].dt.epoch("ms") - STEP
    return [
        list(r)
        for r in zip(opened, *(bars[n] for n in ("open", "high", "low", "close", "volume")), strict=True)
    ]

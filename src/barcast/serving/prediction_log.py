"""Every answer and every reported trade, kept durably and joined with what followed.

answers → SQLite (write-ahead log, one file) → outcomes joined when the horizon has passed → Delta table in
batches. One answer is one row: the same symbol, bar, input and model version asked twice is the same row.
Trades are keyed by their id, so reporting one twice changes nothing. A row survives a kill once `append` or
`feedback` has returned; a trade survives a power cut too.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import clock
from barcast.errors import RefusedError, ServingError
from barcast.serving.log_rows import TYPES, TradeReport, identity, row_of
from barcast.serving.market import micros
from barcast.serving.types import Prediction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
  prediction_id TEXT PRIMARY KEY, symbol TEXT NOT NULL, feature_us INTEGER NOT NULL, answered_us INTEGER NOT
  NULL, model TEXT, version INTEGER, kind TEXT NOT NULL, arm TEXT NOT NULL, link TEXT NOT NULL, input_hash
  TEXT, p_sell REAL, p_hold REAL, p_buy REAL, confidence REAL, side_confidence REAL, uncertainty REAL,
  expected_return REAL, expected_volatility REAL, price REAL, regime TEXT, volatility_regime TEXT,
  risk_level INTEGER, advised TEXT, advised_size REAL, band TEXT, refusals TEXT,
  forward_log_return REAL, outcome_us INTEGER, flushed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS waiting ON predictions (symbol, feature_us) WHERE forward_log_return IS NULL;
CREATE INDEX IF NOT EXISTS unflushed ON predictions (outcome_us) WHERE flushed = 0;
CREATE TABLE IF NOT EXISTS trades (
  trade_id TEXT PRIMARY KEY, received_us INTEGER NOT NULL, prediction_id TEXT, symbol TEXT NOT NULL,
  digest TEXT NOT NULL, report TEXT NOT NULL, net_return REAL NOT NULL, reward REAL, parts TEXT,
  learned INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS received ON trades (received_us);
"""


class PredictionLog:
    """One workspace's log.

    Args:
        path: the SQLite file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def append(self, answers: Sequence[Prediction], arm: str | None = None) -> list[Prediction]:
        """Keep answers; returns them with `prediction_id`. Refusals have nothing to learn from and are
        passed through.

        Args:
            arm: champion, canary or shadow; default what the answer says.
        """
        named, rows = [], []
        for answer in answers:
            if answer.status == "refused" or answer.feature_timestamp is None:
                named.append(answer)
                continue
            answer = answer.model_copy(update={"prediction_id": identity(answer, arm)})
            named.append(answer)
            rows.append(row_of(answer, arm))
        if rows:
            names = list(rows[0])
            marks = ", ".join(f":{n}" for n in names)
            with self._write():
                self._connection.executemany(
                    f"INSERT OR IGNORE INTO predictions ({', '.join(names)}) VALUES ({marks})", rows
                )
        return named

    def join_outcomes(self, bars: pl.DataFrame, horizon_bars: int) -> int:
        """Write what followed into every waiting row whose horizon has passed in `bars`; the number of rows.

        The outcome is the label's: log return from the open after the bar to the open `horizon_bars` later,
        adjusted prices. A bar that is not there leaves its rows waiting.

        Args:
            bars: bars frame, as traded.
        """
        waiting = self._connection.execute(
            "SELECT prediction_id, symbol, feature_us FROM predictions WHERE forward_log_return IS NULL"
        ).fetchall()
        if not waiting:
            return 0
        updates = []
        opens = bars.filter(pl.col("symbol").is_in({row["symbol"] for row in waiting})).select(
            "symbol",
            pl.col("event_timestamp").dt.epoch("us").alias("us"),
            (pl.col("open") * pl.col("price_factor")).alias("open"),
        )
        parts = opens.sort("symbol", "us").partition_by("symbol", as_dict=True, maintain_order=True)
        for row in waiting:
            part = parts.get((row["symbol"],))
            if part is None:
                continue
            times, prices = part["us"].to_numpy(), part["open"].to_numpy()
            at = int(np.searchsorted(times, row["feature_us"]))
            end = at + 1 + horizon_bars
            if at < len(times) and times[at] == row["feature_us"] and end < len(times):
                updates.append(
                    (float(np.log(prices[end] / prices[at + 1])), int(times[end]), row["prediction_id"])
                )
        with self._write():
            self._connection.executemany(
                "UPDATE predictions SET forward_log_return = ?, outcome_us = ? WHERE prediction_id = ?",
                updates,
            )
        return len(updates)

    def feedback(self, trade: TradeReport, reward: float | None = None, parts: str = "") -> bool:
        """Keep a trade's result; False when this very report was kept before.

        Raises:
            RefusedError: the trade id is known with other contents, or times run backwards.
        """
        if (
            trade.opened_at.tzinfo is None
            or trade.closed_at.tzinfo is None
            or trade.closed_at < trade.opened_at
        ):
            raise RefusedError(
                f"Trade {trade.trade_id}: opened {trade.opened_at}, closed {trade.closed_at}.",
                hint="Give times with a zone, the close not before the opening.",
            )
        report = trade.model_dump_json()
        digest = hashlib.blake2b(report.encode(), digest_size=16).hexdigest()
        with self._write(durable=True):
            known = self._connection.execute(
                "SELECT digest FROM trades WHERE trade_id = ?", (trade.trade_id,)
            ).fetchone()
            if known is None:
                self._connection.execute(
                    "INSERT INTO trades (trade_id, received_us, prediction_id, symbol, digest, report, "
                    "net_return, "
                    "reward, parts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (trade.trade_id, micros(clock.now()), trade.prediction_id, trade.symbol, digest, report,
                     trade.net_return, reward, parts),
                )  # fmt: skip
        if known is not None and known["digest"] != digest:
            raise RefusedError(
                f"Trade {trade.trade_id} was reported before with other contents; the first report stays.",
                hint="Use a new trade id for another trade.",
            )
        return known is None

    def reward(self, trade_id: str) -> tuple[float, str] | None:
        """Points of a reported trade and their parts as JSON; None when it is not known or had none."""
        with self._lock:
            row = self._connection.execute(
                "SELECT reward, parts FROM trades WHERE trade_id = ? AND reward IS NOT NULL", (trade_id,)
            ).fetchone()
        return (row["reward"], row["parts"]) if row is not None else None

    def predictions(self, *, with_outcome: bool | None = None) -> pl.DataFrame:
        """All rows still in the local log, oldest bar first; times as `feature_timestamp` etc. in
        microseconds UTC."""
        where = {
            None: "",
            True: "WHERE forward_log_return IS NOT NULL",
            False: "WHERE forward_log_return IS NULL",
        }
        return self._frame(f"SELECT * FROM predictions {where[with_outcome]} ORDER BY feature_us, symbol")

    def prediction(self, prediction_id: str) -> dict[str, Any] | None:
        """One row, or None."""
        row = self._connection.execute(
            "SELECT * FROM predictions WHERE prediction_id = ?", (prediction_id,)
        ).fetchone()
        return dict(row) if row is not None else None

    def trades(self, *, unlearned: bool = False) -> pl.DataFrame:
        """Reported trades in the order received."""
        return self._frame(
            f"SELECT * FROM trades {'WHERE learned = 0' if unlearned else ''} ORDER BY received_us, rowid"
        )

    def profits_in_a_row(self, *, excluding: str = "") -> int:
        """Net profits in a row among the trades received last, without the trade named."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT net_return FROM trades WHERE trade_id != ? ORDER BY received_us DESC, rowid "
                "DESC LIMIT 100",
                (excluding,),
            ).fetchall()
        count = 0
        for row in rows:
            if row["net_return"] <= 0:
                break
            count += 1
        return count

    def mark_learned(self, trade_ids: Sequence[str]) -> None:
        """These trades have been part of an update."""
        with self._write():
            self._connection.executemany(
                "UPDATE trades SET learned = 1 WHERE trade_id = ?", [(t,) for t in trade_ids]
            )

    def flush(self, table: Path, *, min_rows: int = 500) -> int:
        """Move finished rows (outcome known) to the Delta table once there are `min_rows`; the number moved.

        Rows are merged by their id, so a flush that died half-way is simply done again.

        Raises:
            ServingError: the table cannot be written.
        """
        from deltalake import DeltaTable, write_deltalake
        from deltalake.exceptions import DeltaError

        frame = self._frame("SELECT * FROM predictions WHERE flushed = 0 AND forward_log_return IS NOT NULL")
        if frame.height < max(1, min_rows):
            return 0
        ids = frame["prediction_id"].to_list()
        frame = frame.drop("flushed")
        try:
            if DeltaTable.is_deltatable(str(table)):
                (
                    DeltaTable(str(table))
                    .merge(
                        frame.to_arrow(),
                        "t.prediction_id = s.prediction_id",
                        source_alias="s",
                        target_alias="t",
                    )
                    .when_not_matched_insert_all()
                    .execute()
                )
            else:
                write_deltalake(str(table), frame.to_arrow())
        except (DeltaError, OSError) as error:
            raise ServingError(f"The prediction table {table} cannot be written: {error}") from error
        with self._write():
            self._connection.executemany(
                "UPDATE predictions SET flushed = 1 WHERE prediction_id = ?", [(i,) for i in ids]
            )
        return len(ids)

    def prune(self, before: datetime) -> int:
        """Delete rows that are in the Delta table and older than `before`; the number deleted."""
        with self._write():
            cursor = self._connection.execute(
                "DELETE FROM predictions WHERE flushed = 1 AND feature_us < ?", (micros(before),)
            )
        return cursor.rowcount

    def _frame(self, query: str) -> pl.DataFrame:
        with self._lock:
            cursor = self._connection.execute(query)
            rows = cursor.fetchall()
        names = [d[0] for d in cursor.description]
        return pl.DataFrame(
            [tuple(row) for row in rows], schema={n: TYPES.get(n, pl.String()) for n in names}, orient="row"
        )

    @contextmanager
    def _write(self, durable: bool = False) -> Iterator[None]:
        with self._lock:
            if durable:
                self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            finally:
                if durable:
                    self._connection.execute("PRAGMA synchronous=NORMAL")


def with_times(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of the log with `feature_us`, `answered_us`, `outcome_us` as UTC times."""
    found = [n for n in ("feature_us", "answered_us", "outcome_us", "received_us") if n in frame.columns]
    return frame.with_columns(
        pl.from_epoch(n, time_unit="us")
        .dt.replace_time_zone("UTC")
        .alias(n.removesuffix("_us") + "_timestamp")
        for n in found
    ).drop(found)


__all__ = ["PredictionLog", "TradeReport", "with_times"]

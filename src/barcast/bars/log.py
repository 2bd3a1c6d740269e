"""The durable local log of live bars: SQLite in WAL mode, moved to the Delta table in batches.

A Delta append costs tens of milliseconds and a file; a row here costs one synced transaction. A bar is safe when
`append` returns. A crash between the table's commit and the log's deletion does no harm: the table merges twice the
same.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from barcast.bars.schema import BARS, KEY, TIME, check, conform, empty
from barcast.bars.store import AppendReport, BarStore
from barcast.errors import DataError

_COLUMNS = BARS.names()
# Commits of the table between two joinings of its small files (a flush adds one for each symbol, and who reads the
# table opens them all), and between two of those that were joined.
COMPACT_EVERY, WHOLE_EVERY = 25, 1000
_CREATE = f"""
CREATE TABLE IF NOT EXISTS bars (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  logged_at REAL NOT NULL,
  symbol TEXT NOT NULL, event_timestamp INTEGER NOT NULL, created_timestamp INTEGER NOT NULL,
  {", ".join(f"{name} REAL NOT NULL" for name in _COLUMNS[3:])})
"""


class BarLog:
    """Bars waiting for the table, in one SQLite file.

    Args:
        path: the file; made where absent.
        flush_bars, flush_seconds: when `due` says that it is time to move them.
    """

    def __init__(self, path: str | Path, *, flush_bars: int = 500, flush_seconds: float = 300.0) -> None:
        self.path = Path(path)
        self._flush_bars, self._flush_seconds = flush_bars, flush_seconds
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute(_CREATE)

    def append(self, bars: pl.DataFrame) -> int:
        """Keep bars; they survive a crash of process or machine once this returns. Returns how many.

        Raises:
            DataError: a bar breaks a row rule; or the disk is full or the file damaged (then nothing was kept).
        """
        rows = check(conform(bars, origin="live bars"), origin="live bars")
        plain = rows.with_columns(pl.col(TIME).to_physical())
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        with self._open() as db:
            db.executemany(
                f"INSERT INTO bars (logged_at, {', '.join(_COLUMNS)}) VALUES ({marks})",
                [(time.time(), *row) for row in plain.iter_rows()],
            )
        return rows.height

    def __len__(self) -> int:
        with self._open() as db:
            return int(db.execute("SELECT count(*) FROM bars").fetchone()[0])

    @property
    def position(self) -> int:
        """Number of the bar logged last, moved or not: grows with every bar."""
        with self._open() as db:
            found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'bars'").fetchone()
        return int(found[0]) if found else 0

    def pending(self, after: int = 0) -> pl.DataFrame:
        """Bars (`BARS`) not yet in the table, oldest first; a bar may occur in several revisions.

        Args:
            after: only those logged after this position.
        """
        return self._rows(after)[1]

    def due(self) -> bool:
        """Whether so many bars wait, or one so long, that they should be moved."""
        with self._open() as db:
            count, oldest = db.execute("SELECT count(*), min(logged_at) FROM bars").fetchone()
        return bool(count >= self._flush_bars or (count and time.time() - oldest >= self._flush_seconds))

    def flush(self, store: BarStore, *, origin: str = "live") -> AppendReport | None:
        """Move what is here into the table; None if nothing was.

        Revisions of one bar go in one after another. The rows leave the log only after the table has them. Now
        and then the table's small files are joined.
        """
        last, bars = self._rows()
        if last is None:
            return None
        turns = bars.with_columns(turn=pl.int_range(pl.len()).over(KEY))
        reports = [
            store.append(group.drop("turn"), origin=origin)
            for _, group in turns.sort("turn", maintain_order=True).group_by("turn", maintain_order=True)
        ]
        with self._open() as db:
            db.execute("DELETE FROM bars WHERE id <= ?", (last,))
        reached = [r.version for r in reports if r.version]
        if any(version % COMPACT_EVERY == 0 for version in reached):
            store.compact(whole=any(version % WHOLE_EVERY == 0 for version in reached))
        return AppendReport(
            added=sum(r.added for r in reports),
            replaced=sum(r.replaced for r in reports),
            unchanged=sum(r.unchanged for r in reports),
            late=sum(r.late for r in reports),
            version=reports[-1].version,
            gaps=reports[-1].gaps,
        )

    def _rows(self, after: int = 0) -> tuple[int | None, pl.DataFrame]:
        query = f"SELECT id, {', '.join(_COLUMNS)} FROM bars WHERE id > ? ORDER BY id"
        with self._open() as db:
            found = db.execute(query, (after,)).fetchall()
        if not found:
            return None, empty()
        plain = pl.Schema({n: pl.Int64() if t == TIME else t for n, t in BARS.items()})
        frame = pl.DataFrame([row[1:] for row in found], schema=plain, orient="row")
        return found[-1][0], frame.cast({n: t for n, t in BARS.items() if t == TIME})

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back on an error."""
        try:
            db = sqlite3.connect(self.path, timeout=30.0)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")  # safe against power loss, not only against a crash
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise DataError(
                f"The log of live bars at {self.path} cannot be used: {error}.",
                hint="Check free space and rights; if the file is damaged, move it away: the feed back-fills.",
            ) from error

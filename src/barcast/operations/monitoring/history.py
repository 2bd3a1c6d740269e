"""What monitoring saw and did, in one SQLite file: readings by time, alerts from raised to cleared, actions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from barcast.errors import BarcastError
from barcast.operations.monitoring.alerts import ALERTS
from barcast.operations.monitoring.types import Action, Alert, Report

_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (at REAL NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_subject ON readings (subject, name, at);
CREATE TABLE IF NOT EXISTS alerts (
  name TEXT NOT NULL, subject TEXT NOT NULL, since REAL NOT NULL, cleared REAL, text TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS raised ON alerts (name, subject) WHERE cleared IS NULL;
CREATE TABLE IF NOT EXISTS actions (at REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, json TEXT NOT NULL);
"""


class HistoryError(BarcastError):
    """The history cannot be read or written."""

    exit_code = 8


class History:
    """The history of one workspace.

    Args:
        path: the SQLite file; made where absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.executescript(_SCHEMA)

    def raise_alerts(self, found: Mapping[tuple[str, str], str], now: datetime) -> tuple[Alert, ...]:
        """Make exactly these alerts the open ones; with the time when each was raised.

        Args:
            found: text by (name, subject).
        """
        stamp = now.timestamp()
        with self._open() as db:
            db.execute(
                "BEGIN IMMEDIATE"
            )  # another look (a command's, a pipeline's) may raise the same ones now
            open_ = {
                (n, s): t
                for n, s, t in db.execute("SELECT name, subject, since FROM alerts WHERE cleared IS NULL")
            }
            for key in open_.keys() - found.keys():
                db.execute(
                    "UPDATE alerts SET cleared = ? WHERE name = ? AND subject = ? AND cleared IS NULL",
                    (stamp, *key),
                )
            for key, text in found.items():
                if key in open_:
                    db.execute(
                        "UPDATE alerts SET text = ? WHERE name = ? AND subject = ? AND cleared IS NULL",
                        (text, *key),
                    )
                else:
                    db.execute("INSERT INTO alerts VALUES (?, ?, ?, NULL, ?)", (*key, stamp, text))
        return tuple(
            Alert(
                name=name,
                severity=ALERTS[name].severity,
                subject=subject,
                text=text,
                since=datetime.fromtimestamp(open_.get((name, subject), stamp), UTC),
            )
            for (name, subject), text in sorted(found.items(), key=lambda i: (ALERTS[i[0][0]].severity, i[0]))
        )  # fmt: skip

    def add(self, report: Report, totals: Mapping[str, float], keep_days: float) -> None:
        """Keep a report: its readings and actions, the report itself as the latest, the counters' totals."""
        stamp = report.at.timestamp()
        rows = [(stamp, subject, r.name, r.value) for subject, r in report.readings if r.value is not None]
        with self._open() as db:
            db.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)
            db.executemany(
                "INSERT INTO actions VALUES (?, ?, ?, ?)",
                [(a.at.timestamp(), a.kind, a.subject, a.text) for a in report.actions],
            )
            for name, text in (("latest", report.model_dump_json()), ("totals", json.dumps(dict(totals)))):
                db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, text))
            old = (report.at - timedelta(days=keep_days)).timestamp()
            db.execute("DELETE FROM readings WHERE at < ?", (old,))
            db.execute("DELETE FROM alerts WHERE cleared < ?", (old,))
            db.execute("DELETE FROM actions WHERE at < ?", (old,))

    def latest(self) -> Report | None:
        """The newest report; None before the first look."""
        text = self._state("latest")
        return Report.model_validate_json(text) if text else None

    def totals(self) -> dict[str, float]:
        """Counters' totals at the newest look."""
        return dict(json.loads(self._state("totals") or "{}"))

    def series(self, subject: str, name: str) -> list[tuple[datetime, float]]:
        """A reading over time, oldest first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT at, value FROM readings WHERE subject = ? AND name = ? ORDER BY at", (subject, name)
            ).fetchall()
        return [(datetime.fromtimestamp(at, UTC), value) for at, value in rows]

    def actions(
        self, since: datetime, kinds: Sequence[str] = ("retrain", "recalibrate", "rollback", "waits")
    ) -> list[Action]:
        """Actions since then, oldest first."""
        marks = ", ".join("?" * len(kinds))
        with self._open() as db:
            rows = db.execute(
                f"SELECT at, kind, subject, text FROM actions WHERE at >= ? AND kind IN ({marks}) ORDER BY at",
                (since.timestamp(), *kinds),
            ).fetchall()
        return [Action(at=datetime.fromtimestamp(a, UTC), kind=k, subject=s, text=t) for a, k, s, t in rows]

    def _state(self, name: str) -> str:
        with self._open() as db:
            row = db.execute("SELECT json FROM state WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self.path, timeout=30)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise HistoryError(
                f"The history of monitoring at {self.path} cannot be used: {error}.",
                hint="Check free space and rights; a damaged file may be moved away: only the history is lost.",
            ) from error

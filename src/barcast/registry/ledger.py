"""The ledger: what was registered, judged, approved, promoted, rolled back; by whom, when and why.

One JSON object a line, only ever appended, each carrying the hash of the line before it: a changed, removed
or inserted line breaks the chain. The head (number and hash of the last line) is kept in a second file, and
with every promotion in MLflow, so that a shortened ledger is noticed too. Data passes in one way: registry →
`append` → readers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from barcast import clock
from barcast.durable import sync_folder, write_atomic
from barcast.errors import RegistryError

GENESIS = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        number: 1 for the first line, without holes.
        time: when it was written (UTC).
        action: `registered`, `judged`, `challenger`, `approved`, `rejected`, `begun`, `promoted`, `rolled_back`, ...
        model: registered model name (`<workspace>.<slug>`), empty for the workspace as a whole.
        version: the version spoken of; None where there is none.
        by: a person's name, `policy:...` or `system`.
        previous, digest: SHA-256 of the line before and of this one.
    """

    number: int
    time: datetime
    action: str
    model: str
    version: int | None
    by: str
    reason: str
    details: dict[str, Any] = field(default_factory=dict)
    previous: str = GENESIS
    digest: str = ""

    def body(self) -> dict[str, Any]:
        """Everything that the digest covers."""
        return {
            "number": self.number,
            "time": self.time.isoformat(),
            "action": self.action,
            "model": self.model,
            "version": self.version,
            "by": self.by,
            "reason": self.reason,
            "details": self.details,
            "previous": self.previous,
        }

    def line(self) -> bytes:
        """The stored form, newline included."""
        return (json.dumps({**self.body(), "digest": self.digest}, sort_keys=True) + "\n").encode()


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _parse(line: bytes) -> Entry:
    raw = json.loads(line)
    return Entry(**{**raw, "time": datetime.fromisoformat(raw["time"])})


def _text(value: Any) -> Any:
    """What JSON cannot say: times as ISO 8601, numbers of numpy as numbers, the rest as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else str(value)


def _plain(value: Any) -> Any:
    """Numbers that are not finite become None: they are no JSON."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Finding:
    """One fault found by a check: where, and what is wrong."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class Ledger:
    """The ledger in `path`; `<path>.head` beside it holds the last line's number and hash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head_path = path.with_name(path.name + ".head")

    def append(
        self,
        action: str,
        *,
        model: str,
        version: int | None = None,
        by: str,
        reason: str = "",
        details: dict[str, Any] | None = None,
    ) -> Entry:
        """Write one line; it is on disk when this returns. Writers of all processes take turns.

        A last line without its newline (its writer died in the middle) was never acknowledged: it is cut off.

        Raises:
            RegistryError: the last line cannot be read, so the chain cannot go on.
        """
        fresh = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            last = self._last(handle)
            entry = Entry(
                number=last.number + 1 if last else 1,
                time=clock.now(),
                action=action,
                model=model,
                version=version,
                by=by,
                reason=reason,
                details=_plain(json.loads(json.dumps(details or {}, default=_text))),
                previous=last.digest if last else GENESIS,
            )
            entry = Entry(**{**entry.__dict__, "digest": _digest(entry.body())})
            handle.write(entry.line())
            handle.flush()
            os.fsync(handle.fileno())
            if fresh:
                sync_folder(self.path.parent)
            write_atomic(self.head_path, json.dumps({"number": entry.number, "digest": entry.digest}))
        return entry

    def _last(self, handle: Any) -> Entry | None:
        size = handle.seek(0, os.SEEK_END)
        if size == 0:
            return None
        block = 1 << 16
        tail = b""
        start = size
        while start > 0 and tail.count(b"\n") < 2:
            start = max(0, start - block)
            handle.seek(start)
            tail = handle.read(size - start)
        whole, newline, torn = tail.rpartition(b"\n")
        if torn:
            handle.truncate(size - len(torn))
            os.fsync(handle.fileno())
        if not newline:
            return None
        try:
            return _parse(whole.rpartition(b"\n")[2])
        except (ValueError, TypeError, KeyError) as error:
            raise RegistryError(
                f"The last line of {self.path} cannot be read ({error}); nothing was written.",
                hint="Restore the ledger from a backup; `barcast models verify` says more.",
            ) from error

    def read(self) -> list[Entry]:
        """All lines, the chain checked.

        Raises:
            RegistryError: a line was changed, removed, inserted or cannot be read.
        """
        entries, findings = self.inspect()
        if findings:
            first = findings[0]
            raise RegistryError(
                f"The ledger {self.path} was tampered with or damaged: {first.where}: {first.problem}",
                hint="Nothing is promoted until it is restored from a backup; `barcast models verify` lists "
                "all faults.",
            )
        return entries

    def inspect(self) -> tuple[list[Entry], list[Finding]]:
        """All readable lines and every fault of the chain; never raises for what the file holds."""
        # First the head: a line appended in between makes it older, which is allowed, never newer than the lines.
        head = self.head()
        content = self.path.read_bytes() if self.path.exists() else b""
        entries: list[Entry] = []
        findings: list[Finding] = []
        previous = GENESIS
        lines = content.split(b"\n")[:-1]  # what follows the last newline was never acknowledged
        for position, line in enumerate(lines, start=1):
            where = f"line {position}"
            try:
                entry = _parse(line)
                good = entry.digest == _digest(entry.body()) and line + b"\n" == entry.line()
            except (ValueError, TypeError, KeyError) as error:
                findings.append(Finding(where, f"cannot be read ({error})."))
                continue
            if not good:
                findings.append(Finding(where, "its content does not match its own hash."))
            if entry.previous != previous or entry.number != position:
                findings.append(
                    Finding(where, f"does not follow line {position - 1}; lines were removed or put in.")
                )
            previous = entry.digest
            entries.append(entry)
        findings.extend(self.check_anchor(entries, head, self.head_path.name))
        return entries, findings

    def head(self) -> tuple[int, str] | None:
        """Number and hash of the last line as the second file knows it."""
        try:
            raw = json.loads(self.head_path.read_text())
            return int(raw["number"]), str(raw["digest"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return (-1, "")

    @staticmethod
    def check_anchor(entries: list[Entry], anchor: tuple[int, str] | None, name: str) -> list[Finding]:
        """Faults of the chain against a head kept elsewhere (which may be older, never newer or different)."""
        if anchor is None:
            # One line may have been written just before its writer died; more cannot lack a head.
            return [Finding(name, "is missing.")] if len(entries) > 1 else []
        number, digest = anchor
        if number > len(entries):
            return [
                Finding(name, f"knows {number} lines, the ledger holds {len(entries)}: its end was cut off.")
            ]
        if number < 1 or entries[number - 1].digest != digest:
            return [Finding(name, f"does not match line {number} of the ledger.")]
        return []

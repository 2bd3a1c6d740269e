"""The newest bars of a workspace for those who answer: the table's, and those that still wait in the log of live bars.

A live bar is in the log as soon as it is known, in the table only at the next flush; an answer must not wait for that.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from barcast.bars.log import BarLog
from barcast.bars.schema import KEY, empty
from barcast.bars.store import BarStore

Mark = tuple[int, int]
"""How far a reader has come: the table's version and the log's position."""


class NewestBars:
    """Reads table and log as one.

    Args:
        store: the table.
        log: the file of the log; it need not exist (yet).
    """

    def __init__(self, store: BarStore, log: Path) -> None:
        self._store, self._path = store, log
        self._log: BarLog | None = None

    def since(self, mark: Mark | None, num_bars: int) -> tuple[Mark, pl.DataFrame]:
        """The present mark, and bars (`BARS`, one revision each) that hold all that is new since `mark`.

        Args:
            mark: of the last call; None reads the newest `num_bars` of each symbol.

        Raises:
            DataError: table or log cannot be read.
        """
        while True:
            # The log first: a bar that moves to the table meanwhile is then met in both, never in neither.
            log = self._opened()
            position = log.position if log is not None else 0
            if mark is not None and self._store.stands_at(mark[0]):
                version, parts, after = mark[0], [], mark[1]
            elif mark is not None and mark[0] >= 0 and (changed := self._store.changed_after(mark[0])):
                version, parts, after = changed[0], [changed[1]], mark[1]
            else:
                version = self._store.version
                parts = [self._store.latest(None, num_bars)] if version >= 0 else []
                after = 0
            if log is not None and position > after:
                parts.append(log.pending(after))
            if self._store.stands_at(version):
                break  # else the log was moved while this was reading
        bars = pl.concat([empty(), *parts]).sort("created_timestamp", maintain_order=True)
        return (version, position), bars.unique(KEY, keep="last", maintain_order=True)

    def _opened(self) -> BarLog | None:
        if self._log is None and self._path.is_file():
            self._log = BarLog(self._path)
        return self._log

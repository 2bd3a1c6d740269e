"""The stores a predictor opens when it is given none: Feast for windows, the bars store for prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from barcast.config import Config
from barcast.decisions.types import Account
from barcast.serving.market import MarketBook
from barcast.workspace import Workspace


def rules_may_answer(reason: str) -> bool:
    """Whether a missing window still leaves fresh bars to stand on (a broken input never does)."""
    return reason.startswith(("online store:", "stale features: of"))


def empty_account(config: Config) -> Account:
    """No positions, the starting equity."""
    equity = config.decisions.starting_equity
    return Account(equity=equity, peak_equity=equity)


class FeastWindows:
    """Feast's windows, the missing left out and the stale marked: this room says per symbol what that
    means."""

    def __init__(self, workspace: Workspace, config: Config) -> None:
        from barcast.adapters.feast import FeatureStore

        self._store = FeatureStore(workspace, config)
        self.names = tuple(self._store.names)

    def online(self, symbols: Sequence[str]) -> Mapping[str, Any]:
        """As `OnlineStore.online`."""
        return self._store.online(symbols, strict=False)


def open_book(workspace: Workspace, config: Config) -> MarketBook:
    """The newest bars, filled from the workspace's table and log of bars."""
    from barcast.bars.ingest import open_store
    from barcast.bars.live import log_path
    from barcast.bars.newest import NewestBars

    reader = NewestBars(open_store(config, workspace), log_path(workspace))
    return MarketBook(config.interval, reader)

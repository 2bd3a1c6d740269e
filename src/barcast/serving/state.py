"""Small durable state of the decision layer: the account and the emergency stop, one JSON file each.

Written under a temporary name, synced and renamed, so that a reader or a restart sees the old state or the
new one. A damaged emergency file counts as a pulled stop: not knowing is no reason to go on.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError

from barcast import clock
from barcast.config import Config
from barcast.decisions import emergency
from barcast.decisions.emergency import EmergencyStop
from barcast.decisions.types import Account
from barcast.durable import write_atomic
from barcast.errors import ServingError
from barcast.workspace import Workspace

_ACCOUNT, _EMERGENCY = "account.json", "emergency.json"


def load_account(workspace: Workspace, config: Config) -> Account:
    """The workspace's account with the emergency stop's state; an empty one where none was kept.

    Raises:
        ServingError: the file is damaged.
    """
    account = _kept_account(workspace)
    if account is None:
        equity = config.decisions.starting_equity
        account = Account(equity=equity, peak_equity=equity)
    return account.model_copy(update={"emergency_reason": load_emergency(workspace).reason})


def save_account(workspace: Workspace, account: Account, config: Config) -> Account:
    """Keep the account; pulls the emergency stop when its drawdown asks for it. The account with the stop's
    state."""
    _write(workspace.state / _ACCOUNT, account.model_copy(update={"emergency_reason": ""}))
    reason = emergency.due(account, config.decisions)
    if reason:
        pull(workspace, emergency.TRIGGER, reason)
    return account.model_copy(update={"emergency_reason": load_emergency(workspace).reason})


def load_emergency(workspace: Workspace) -> EmergencyStop:
    """The emergency stop as it stands."""
    path = workspace.state / _EMERGENCY
    if not path.exists():
        return EmergencyStop()
    try:
        return EmergencyStop.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        return EmergencyStop().pull(emergency.TRIGGER, f"{path.name} is damaged", clock.now())


def pull(workspace: Workspace, by: str, reason: str) -> EmergencyStop:
    """Stop everything; stays so over restarts."""
    with _locked(workspace):
        stop = load_emergency(workspace).pull(by, reason, clock.now())
        _write(workspace.state / _EMERGENCY, stop)
    return stop


def lift(workspace: Workspace, by: str, reason: str) -> EmergencyStop:
    """Go on. The peak equity starts anew from the present equity, or the same drawdown would pull the stop
    at once.

    Raises:
        RefusedError: not active, no person named, no reason.
        ServingError: the account's file is damaged; the stop stays.
    """
    with _locked(workspace):
        stop = load_emergency(workspace).lift(by, reason, clock.now())
        account = _kept_account(workspace)
        if account is not None:
            _write(workspace.state / _ACCOUNT, account.model_copy(update={"peak_equity": account.equity}))
        _write(workspace.state / _EMERGENCY, stop)
    return stop


def _kept_account(workspace: Workspace) -> Account | None:
    path = workspace.state / _ACCOUNT
    if not path.exists():
        return None
    try:
        return Account.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ServingError(
            f"{path} is damaged ({str(error).splitlines()[0]}).",
            hint="Put the account again (PUT /v1/account) or start a new one (barcast paper run --new).",
        ) from error


@contextmanager
def _locked(workspace: Workspace) -> Iterator[None]:
    workspace.state.mkdir(parents=True, exist_ok=True)
    with (workspace.state / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, record: BaseModel) -> None:
    write_atomic(path, record.model_dump_json(indent=1))

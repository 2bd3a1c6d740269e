"""The emergency stop: pulled by a person or a trigger, lifted by a person only. Pure transitions;
`serving.state` keeps it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from barcast.config.decisions import DecisionsConfig
from barcast.decisions.types import Account
from barcast.errors import RefusedError

TRIGGER = "trigger"


class StopEvent(BaseModel):
    """One pull or lift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["pulled", "lifted"]
    by: str
    reason: str
    at: datetime


class EmergencyStop(BaseModel):
    """Whether everything is stopped, and all that ever happened to the stop, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: tuple[StopEvent, ...] = Field(default=())

    @property
    def active(self) -> bool:
        return bool(self.history) and self.history[-1].what == "pulled"

    @property
    def reason(self) -> str:
        """Why it is active, and who pulled it; empty when it is not."""
        if not self.active:
            return ""
        last = self.history[-1]
        return f"{last.reason} (pulled by {last.by}, {last.at:%Y-%m-%d %H:%M} UTC)"

    def pull(self, by: str, reason: str, at: datetime) -> EmergencyStop:
        """Stopped. Pulling an active stop changes nothing: the first reason stays."""
        if self.active:
            return self
        return EmergencyStop(history=(*self.history, _event("pulled", by, reason, at)))

    def lift(self, by: str, reason: str, at: datetime) -> EmergencyStop:
        """Running again.

        Raises:
            RefusedError: the stop is not active, no person is named, or no reason is given.
        """
        if not self.active:
            raise RefusedError("The emergency stop is not active; there is nothing to lift.")
        if by.strip().lower() in ("", TRIGGER):
            raise RefusedError(
                "Only a person lifts the emergency stop.",
                hint="Give your name with --by and why with --reason.",
            )
        return EmergencyStop(history=(*self.history, _event("lifted", by, reason, at)))


def due(account: Account, config: DecisionsConfig) -> str:
    """Why the drawdown trigger pulls the stop now; empty when it does not."""
    if account.drawdown < config.emergency_drawdown:
        return ""
    return f"drawdown {account.drawdown:.1%} reached {config.emergency_drawdown:.0%}"


def _event(what: Literal["pulled", "lifted"], by: str, reason: str, at: datetime) -> StopEvent:
    if not reason.strip():
        raise RefusedError("The emergency stop needs a reason.", hint="Give one with --reason.")
    # both end up in the account's `emergency_reason`, which has its limit
    return StopEvent(what=what, by=by.strip()[:64] or TRIGGER, reason=reason.strip()[:400], at=at)

"""Shadow and A/B: what a challenger gets of the requests before anybody believes in it.

The registry loads the challenger under the label `canary` and writes the policy to `traffic.json` beside
models.config; the prediction engine routes. `shadow` copies every request to it (its answer is logged, never
used); `ab` lets it answer a share of them.
"""

from __future__ import annotations

from typing import Any

from barcast.errors import RefusedError, RegistryError
from barcast.registry.changing import Changing
from barcast.registry.core import need_person
from barcast.registry.fingerprint import Ask
from barcast.registry.live import CANARY, STABLE
from barcast.registry.promotion import place

MODES = ("shadow", "ab")


def set_traffic(
    core: Changing,
    symbol: str | None,
    version: int,
    *,
    mode: str,
    share: float = 0.1,
    by: str,
    reason: str,
    ask: Ask | None = None,
) -> None:
    """Load `version` as the canary of `symbol`'s model.

    Args:
        mode: `shadow` (a copy of all requests) or `ab` (it answers a share).
        share: of the requests, in (0, 1); 1 for shadow.
        ask: asks the running model server, as for `promotion.promote`.

    Raises:
        RefusedError: it was rejected, or the gate keeps the incumbent.
        RegistryError: there is no champion to compare with, or the version is the champion.
    """
    by, reason = need_person(by, reason)
    if mode not in MODES or (mode == "ab" and not 0 < share < 1):
        raise RegistryError(
            f"Traffic of mode {mode!r} with share {share} is not understood.",
            hint="Use mode 'shadow', or mode 'ab' with a share between 0 and 1.",
        )
    with core.change() as state:
        model = core.model(state, symbol)
        candidate = core.version(model, version)
        core.guard(model, state)
        if model.champion is None or model.champion == version:
            raise RegistryError(
                f"{model.name} version {version} has no champion beside it to be compared with.",
                hint="Promote one first; then send the challenger a copy or a share.",
            )
        outcome = candidate.judged.details["outcome"] if candidate.judged else "none"
        if candidate.status == "rejected" or (mode == "ab" and outcome not in ("promote", "hold")):
            raise RefusedError(
                f"{model.name} version {version} gets no traffic: it is {candidate.status}, verdict "
                f"{outcome}.",
                hint="A share of real answers needs a verdict of promote or hold; a shadow only needs not "
                "to be rejected.",
            )
        place(core, model, version)
        policy: dict[str, Any] = {
            "mode": mode,
            "share": 1.0 if mode == "shadow" else share,
            "version": version,
        }
        core.move(
            state,
            model,
            "traffic",
            {**model.labels, CANARY: version},
            version=version,
            by=by,
            reason=reason,
            details={"traffic": policy},
            ask=ask,
        )


def clear_traffic(core: Changing, symbol: str | None, *, by: str, reason: str) -> None:
    """End shadow or A/B of `symbol`'s model.

    Raises:
        RegistryError: there is none.
    """
    by, reason = need_person(by, reason)
    with core.change() as state:
        model = core.model(state, symbol)
        core.guard(model, state)
        if CANARY not in model.labels:
            raise RegistryError(
                f"{model.name} has no canary.", hint="`barcast models list` shows the labels."
            )
        labels = {k: v for k, v in model.labels.items() if k != CANARY}
        core.move(state, model, "traffic", labels, version=labels.get(STABLE), by=by, reason=reason)

"""How many configurations were tried: the number that the deflated Sharpe ratio of every later version counts.

Each trial of a search, and each configuration of an experiment, is one ledger line written before it begins; so a
trial whose process died counts too, and none can be taken away unseen. Searches → `record` → `count` → the gate.
"""

from __future__ import annotations

from barcast import names
from barcast.evaluation.gate_types import Attempt, History
from barcast.registry.core import Core

TRIED = "tried"


def record(core: Core, study: str, number: int) -> None:
    """Write down that trial `number` (from 0, all workers of the study together) of `study` begins."""
    core.ledger.append(TRIED, model="", by="search", details={"study": study, "trial": number})


def count(core: Core, symbol: str | None) -> int:
    """Configurations tried so far that could have shaped `symbol`'s model; none shape the linear baseline.

    Studies number their trials in a row over all workers, so the highest number seen tells of trials that other
    machines wrote down elsewhere.

    Raises:
        RegistryError: the ledger was tampered with.
    """
    if symbol == names.LINEAR:
        return 0
    highest: dict[str, int] = {}
    for entry in core.ledger.read():
        if entry.action == TRIED:
            study = str(entry.details["study"])
            highest[study] = max(highest.get(study, 0), int(entry.details["trial"]) + 1)
    return sum(highest.values())


def life(core: Core, symbol: str | None, *, but: int | None = None) -> History:
    """What the gate must know of a model's life: every earlier verdict on it, and the configurations tried for it.

    Args:
        but: the version that is judged now; a verdict of a step that did not end is none that came before.
    """
    name = core.model_name(symbol)
    attempts = tuple(
        Attempt(
            entry.time,
            float(entry.details.get("spent") or 0.0),
            entry.details["outcome"],
            entry.details.get("numbers", {}).get("candidate_sharpe_per_block"),
        )
        for entry in core.ledger.read()
        if entry.model == name and entry.action == "judged" and (but is None or entry.version != but)
    )
    return History(attempts, max(1, count(core, symbol)))

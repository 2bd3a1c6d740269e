"""How many bars a recursive average needs until the beginning of history no longer matters (below 1e-6)."""

from __future__ import annotations

import math

_FORGET = math.log(1e6)


def ema_bars(*lengths: int) -> int:
    """Bars after which a chain of exponential averages (weight 2 / (length + 1)) has forgotten its start."""
    return sum(n + math.ceil(_FORGET / -math.log(1 - 2 / (n + 1))) for n in lengths)


def wilder_bars(*lengths: int) -> int:
    """The same for Wilder's averages (weight 1 / length)."""
    return sum(n + math.ceil(_FORGET / -math.log(1 - 1 / n)) for n in lengths)


def decay_bars(weight: float) -> int:
    """The same for an exponential average with this weight, begun with its first value."""
    return math.ceil(_FORGET / -math.log(1 - weight)) + 1

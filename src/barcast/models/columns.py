"""The twelve numbers of a linear reading of the last bar, shared by the linear baseline and the network above it."""

from __future__ import annotations

from typing import Any

import numpy as np

COLUMNS = 12
RETURN, LOG_VOLATILITY, TREND = 9, 10, 11
# The bias of a layer not fitted yet: no class, no regime, outcomes one percent wide, half a trend.
UNFITTED = np.zeros(COLUMNS, dtype=np.float32)
UNFITTED[LOG_VOLATILITY], UNFITTED[TREND] = np.log(0.01), 0.5


def by_name(z: Any) -> dict[str, Any]:
    """(B, COLUMNS) to logits (B, 3) and scalars (B,)."""
    return {
        "logits": z[:, 0:3],
        "regime_logits": z[:, 3:6],
        "volatility_regime_logits": z[:, 6:9],
        "expected_return": z[:, RETURN],
        "log_volatility": z[:, LOG_VOLATILITY],
        "trend": z[:, TREND],
    }

"""Which features each specialist of the ensemble reads, told from their names.

A specialist is small and sees one side of the market only. A generation that lacks a side's features has no such
specialist; the ensemble then answers without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

GROUPS: dict[str, str] = {
    "trend": r"sma|ema|wma|macd|adx|_di_|aroon|vortex|ichimoku|sar_|trend|slope|efficiency|week_return|month_return",
    "mean_reversion": r"zscore|rsi|stochastic|williams|cci|bollinger|keltner|distance|position|dpo|reversal|residual",
    "momentum": r"roc|momentum|tsi|coppock|kst|log_return|return_|awesome|accelerator|streak|relative_return|^r\d*$",
    "volatility": r"volatility|atr|range|garch|parkinson|klass|satchell|yang|ulcer|squeeze|std|stress|tail|dispersion",
    "volume": r"volume|obv|vwap|cmf|mfi|force|chaikin|accumulation|ease_of|pvo|market_facilitation",
    # The documented slot: news arrives as features named news_*, see models.news.
    "news": r"^news_",
}


def groups(feature_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Positions of each specialist's features; specialists without any are left out."""
    found = {
        name: tuple(i for i, feature in enumerate(feature_names) if re.search(pattern, feature))
        for name, pattern in GROUPS.items()
    }
    return {name: positions for name, positions in found.items() if positions}

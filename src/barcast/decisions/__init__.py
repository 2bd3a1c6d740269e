"""From a prediction to advice: confidence, sizes, limits, portfolio, rewards, paper account. Pure
functions."""

from barcast.decisions.confidence import side_confidence, threshold_table
from barcast.decisions.decide import decide
from barcast.decisions.types import Account, Advice, Market, Position, Signal, Trade

__all__ = [
    "Account",
    "Advice",
    "Market",
    "Position",
    "Signal",
    "Trade",
    "decide",
    "side_confidence",
    "threshold_table",
]

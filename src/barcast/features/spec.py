"""What a feature is: its description, and the groups of features that one kernel computes together.

A category module makes a `Category` and decorates its kernels with `@category.group(...)`; the plan (`plan.py`) gathers
them. A feature is described and computed in that one place and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

# A young symbol (the sample's youngest has 196 bars) must still fill a window of 60 complete rows.
WARMUP_BUDGET_BARS = 130

Intervals = Literal["all", "intraday", "daily"]


@dataclass(frozen=True)
class FeatureSpec:
    """One feature in words.

    Attributes:
        name: stable; a changed formula is a new name.
        category: one of ohlcv, technical, price_action, temporal, regime, cross_symbol, meta, user.
        formula: the formula in words; "bars" are bars of the workspace's interval.
        lookback_bars: bars that must have been seen, this one included, before the value is given; at most
            `WARMUP_BUDGET_BARS`.
        settles_bars: for recursive features, bars after which the beginning of history moves the value by less than
            1e-6; equal to the look-back where a bounded window is all there is.
        unit: what the number is measured in.
        source: the book or paper of the formula.
        cross_symbol: whether other symbols' bars enter.
        neutral: the value when there is nothing to say, with the flag that tells so; None where that cannot happen.
        flag: the feature that is 0 while this one is neutral.
    """

    name: str
    category: str
    formula: str
    lookback_bars: int
    unit: str
    source: str
    settles_bars: int = 0
    cross_symbol: bool = False
    neutral: float | None = None
    flag: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Group:
    """Features that one kernel computes together from one symbol's bars."""

    specs: tuple[FeatureSpec, ...]
    kernel: Callable[..., None]
    state: int
    intervals: Intervals


@dataclass
class Category:
    """Collects the groups of one category, in the order of definition."""

    name: str
    groups: list[Group] = field(default_factory=list)

    def group(
        self, *features: tuple[Any, ...], state: int = 0, intervals: Intervals = "all"
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Declare the features of a kernel `(x, t, n, s, out)`.

        Args:
            features: (name, formula, bars, unit, source) for each value, in the order of `out`. `bars` is the window,
                or for recursive features the bars until they have settled; the look-back is that within the budget.
            state: how many float64 the kernel keeps between bars (zeros before the first bar).
            intervals: whether the features exist on all, on intraday or on daily bars only.
        """

        def decorate(kernel: Callable[..., None]) -> Callable[..., None]:
            specs = tuple(
                FeatureSpec(name, self.name, words, min(bars, WARMUP_BUDGET_BARS), unit, source, bars)
                for name, words, bars, unit, source in features
            )
            self.groups.append(Group(specs, kernel, state, intervals))
            return kernel

        return decorate

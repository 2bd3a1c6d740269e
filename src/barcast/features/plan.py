"""Which features exist for an interval and a configuration, and where each one's value goes.

The plan is what batch, stream, catalogue and Feast share: one order of columns, one look-back per feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast import intervals
from barcast.config.features import FeaturesConfig
from barcast.errors import ConfigError, DataError, did_you_mean
from barcast.features.compiling import compiled, kernel_list
from barcast.features.cross_symbol import cross_specs
from barcast.features.higher import higher
from barcast.features.meta import meta
from barcast.features.ohlcv import ohlcv
from barcast.features.price_action import price_action
from barcast.features.regime import regime
from barcast.features.series import BASE_STATE, base
from barcast.features.spec import FeatureSpec, Group
from barcast.features.technical_momentum import momentum
from barcast.features.technical_trend import trend
from barcast.features.technical_volatility import volatility
from barcast.features.temporal import clock_specs, temporal
from barcast.features.user import UserFeature, load

# in the order of computing: a group may read windows of lines that an earlier group writes into x
_CATEGORIES = (ohlcv, trend, momentum, volatility, price_action, higher, temporal, regime, meta)
KERNEL_BARS = 192  # no kernel of ours reads further back
_BASE = Group((), base, BASE_STATE, "all")


@dataclass(frozen=True, eq=False)
class Plan:
    """The features of one interval and configuration.

    Attributes:
        specs: in column order.
        groups: the kernels' groups; group g owns state[state_at[g]:state_at[g + 1]].
        value_at, column, lookback: see `drive`.
        clock_columns: columns of the clock's features, in `clock_specs` order.
        user, user_columns: the user's own features and their columns.
        cross_columns, cross_lookback: of the cross-symbol features, in `cross_specs` order; empty where not wanted.
    """

    interval: str
    config: FeaturesConfig
    specs: tuple[FeatureSpec, ...]
    groups: tuple[Group, ...]
    state_at: npt.NDArray[np.int64]
    value_at: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    lookback: npt.NDArray[np.int64]
    clock_columns: npt.NDArray[np.int64]
    cross_columns: npt.NDArray[np.int64]
    cross_lookback: npt.NDArray[np.int64]
    user: tuple[UserFeature, ...]
    user_columns: npt.NDArray[np.int64]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs)

    @cached_property
    def window_bars(self) -> int:
        """Bars that the stream keeps of a symbol: as many as the furthest look of a kernel or a user's feature."""
        return max(KERNEL_BARS, *(f.spec.lookback_bars for f in self.user), 0)

    def kernels(self) -> Any:
        """The compiled kernels (compiled on first use, then from disk)."""
        return _kernels(tuple(group.kernel for group in self.groups))


def compile_share(share: int, shares: int) -> int:
    """Compile every `shares`-th kernel of all intervals from `share` on, ahead of use; returns how many."""
    kernels = [base, *(group.kernel for category in _CATEGORIES for group in category.groups)][share::shares]
    for kernel in kernels:
        compiled(kernel)
    return len(kernels)


@lru_cache(maxsize=16)
def _kernels(kernels: tuple[Any, ...]) -> Any:
    return kernel_list(kernels)


def plan(interval: str, config: FeaturesConfig | None = None) -> Plan:
    """The plan of an interval (cached; a changed file of user features makes a new one)."""
    config = config or FeaturesConfig()
    return _plan(interval, config, load(config.user_features) if config.user_features else ())


@lru_cache(maxsize=64)
def _plan(interval: str, config: FeaturesConfig, user: tuple[UserFeature, ...]) -> Plan:
    kind = "intraday" if intervals.is_intraday(interval) else "daily"
    wanted = set(config.categories)
    groups = [_BASE]
    by_category: dict[str, list[FeatureSpec]] = {name: [] for name in config.categories}
    for category in _CATEGORIES:
        for group in category.groups:
            if group.intervals in ("all", kind) and category.name in wanted:
                groups.append(group)
                by_category[category.name] += group.specs
    clock = clock_specs(kind == "intraday") if "temporal" in wanted else ()
    if clock:
        by_category["temporal"] = [*clock, *by_category["temporal"]]
    cross = cross_specs(config) if "cross_symbol" in wanted else ()
    if cross:
        by_category["cross_symbol"] += cross
    specs = tuple(spec for name in config.categories for spec in by_category[name]) + tuple(
        f.spec for f in user
    )
    at = {spec.name: k for k, spec in enumerate(specs)}
    if len(at) != len(specs):
        twice = sorted({s.name for s in specs if sum(s.name == other.name for other in specs) > 1})
        raise ConfigError(f"Two features are called {twice}.", hint="Give the user's feature another name.")
    owned = [spec for group in groups for spec in group.specs]
    return Plan(
        interval=interval,
        config=config,
        specs=specs,
        groups=tuple(groups),
        state_at=np.cumsum([0, *(g.state for g in groups)]),
        value_at=np.cumsum([0, *(len(g.specs) for g in groups)]),
        column=np.array([at.get(s.name, len(specs)) for s in owned], dtype=np.int64),
        lookback=np.array([s.lookback_bars for s in owned], dtype=np.int64),
        clock_columns=np.array([at[s.name] for s in clock], dtype=np.int64),
        cross_columns=np.array([at[s.name] for s in cross], dtype=np.int64),
        cross_lookback=np.array([s.lookback_bars for s in cross], dtype=np.int64),
        user=user,
        user_columns=np.array([at[f.spec.name] for f in user], dtype=np.int64),
    )


def feature_names(interval: str, config: FeaturesConfig | None = None) -> tuple[str, ...]:
    """The features' names in the FeatureService's order."""
    return plan(interval, config).names


def catalogue(interval: str, config: FeaturesConfig | None = None) -> tuple[FeatureSpec, ...]:
    """The features' descriptions in the FeatureService's order."""
    return plan(interval, config).specs


def warmup_bars(interval: str, config: FeaturesConfig | None = None) -> int:
    """Bars a symbol must have before its row is complete: the longest look-back."""
    return max((spec.lookback_bars for spec in plan(interval, config).specs), default=0)


def require(names: Iterable[str], interval: str, config: FeaturesConfig | None = None) -> None:
    """Check that `names` is exactly the feature set of this interval, in its order.

    Raises:
        DataError: an unknown, missing or misplaced feature.
    """
    have, came = feature_names(interval, config), tuple(names)
    for name in came:
        if name not in have:
            raise DataError(
                f"There is no feature {name!r} on {interval} bars.",
                hint=did_you_mean(name, have) or "See `barcast features list`.",
            )
    if came != have:
        missing = [name for name in have if name not in came]
        what = f"lacks {missing[:5]} ({len(missing)} in all)" if missing else "is in another order"
        raise DataError(
            f"The feature set ({len(came)} features) {what}; {interval} bars have {len(have)}.",
            hint="It belongs to another feature generation: train a model on this one, or restore that configuration.",
        )

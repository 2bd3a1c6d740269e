"""A user's own features: a Python file named in the configuration, loaded once and tested for look-ahead at once.

The file defines `FEATURES`, a list of dicts: name, formula, lookback_bars, unit, source, function. The function takes a
dict of NumPy arrays (open, high, low, close, volume, time in seconds) of one symbol's bars, oldest first, and
returns one
value per bar; the value at a bar may depend on that bar and the lookback_bars - 1 before it, on nothing else. In
batch it gets all bars, in the stream the last lookback_bars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from barcast import user_file
from barcast.errors import BarcastError, ConfigError
from barcast.features.series import TIME, C, H, L, O, V
from barcast.features.spec import FeatureSpec
from barcast.user_file import Arrays

if TYPE_CHECKING:
    from barcast.features.memory import Memory
    from barcast.features.plan import Plan

MOST_BARS = 5000  # the stream keeps twice as many bars of every symbol: 2.5 MB each at this length
_ROWS = {"open": O, "high": H, "low": L, "close": C, "volume": V, "time": TIME}
_KEYS = {"name", "formula", "lookback_bars", "unit", "source", "function"}


@dataclass(frozen=True)
class UserFeature:
    """One feature of the user's file; `digest` is of the file's content."""

    spec: FeatureSpec
    function: Callable[[Arrays], Any]
    digest: str

    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        """One value per bar.

        Raises:
            ConfigError: the function failed or returned something else.
        """
        name = self.spec.name
        try:
            with np.errstate(all="ignore"):
                out = np.asarray(self.function(user_file.copies(arrays)), dtype=np.float64)
        except BarcastError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The user's feature {name!r} failed: {type(error).__name__}: {error}"
            ) from error
        if out.shape != arrays["close"].shape:
            raise ConfigError(
                f"The user's feature {name!r} returned shape {out.shape}; one value per bar "
                f"{arrays['close'].shape} was expected.",
                hint="Return an array as long as bars['close'], NaN where there is no value.",
            )
        return out


def load(path: str) -> tuple[UserFeature, ...]:
    """The features of a file, each tested for look-ahead and for its look-back.

    Raises:
        ConfigError: the file is missing or badly formed, or a feature reads ahead or further back than it says.
    """
    return _load(*user_file.content_of(path, "features.user_features"))


@lru_cache(maxsize=8)
def _load(path: str, digest: str) -> tuple[UserFeature, ...]:
    declared = getattr(user_file.module_of(path, digest), "FEATURES", None)
    if not isinstance(declared, list) or not declared:
        raise ConfigError(f"{path} defines no list FEATURES.", hint="See the guide `add a feature`.")
    features = tuple(_one(path, digest, entry) for entry in declared)
    for feature in features:
        prove(feature)
    return features


def _one(path: str, digest: str, entry: Any) -> UserFeature:
    if not isinstance(entry, Mapping) or set(entry) != _KEYS:
        came = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
        raise ConfigError(f"An entry of FEATURES in {path} has {came}; {sorted(_KEYS)} were expected.")
    bars = entry["lookback_bars"]
    if not isinstance(bars, int) or not 1 <= bars <= MOST_BARS:
        raise ConfigError(
            f"{entry['name']!r}: lookback_bars is {bars!r}; 1 to {MOST_BARS} was expected.",
            hint="Look at fewer bars, or use a workspace of a longer interval: look-backs are counted in its bars.",
        )
    texts = [str(entry[key]) for key in ("name", "formula", "unit", "source")]
    return UserFeature(
        FeatureSpec(texts[0], "user", texts[1], bars, texts[2], texts[3], bars), entry["function"], digest
    )


def prove(feature: UserFeature) -> None:
    """Run the feature on made-up bars, whole, cut short and cut at the front: the newest value must be the same.

    Raises:
        ConfigError: it reads bars that come later, or further back than its look-back.
    """
    bars = feature.spec.lookback_bars
    n = max(3 * bars, 60) + 40
    arrays = user_file.made_up_bars(n)
    whole = feature.values(arrays)
    scaled = feature.values(user_file.scaled(arrays, 3.0))
    for at in (bars - 1, bars, n // 2, n - 7, n - 2):
        if at < bars - 1:
            continue
        cut = feature.values({key: value[: at + 1] for key, value in arrays.items()})[-1]
        window = feature.values({key: value[at + 1 - bars : at + 1] for key, value in arrays.items()})[-1]
        if not _same(whole[at], cut):
            raise ConfigError(
                f"The user's feature {feature.spec.name!r} looks ahead: at bar {at} it is {whole[at]:.6g} with "
                f"the bars after it and {cut:.6g} without.",
                hint="Use bars up to and including the present one only (no shift(-1), no centred window, no "
                "statistics of the whole array).",
            )
        if not _same(whole[at], window):
            raise ConfigError(
                f"The user's feature {feature.spec.name!r} reads further back than its look-back of {bars} bars: "
                f"{whole[at]:.6g} with all history, {window:.6g} with {bars} bars.",
                hint="Declare the longer look-back, or bound the computation to the window.",
            )
        if not _same(whole[at], scaled[at], 1e-6):
            raise ConfigError(
                f"The user's feature {feature.spec.name!r} changes when all prices are multiplied by 3 "
                f"({whole[at]:.6g}, then {scaled[at]:.6g}): a split would change it.",
                hint="Divide by a price (the close, a moving average) so that the price level cancels.",
            )


def _same(a: float, b: float, tolerance: float = 1e-7) -> bool:
    if np.isnan(a) or np.isnan(b):
        return bool(np.isnan(a) and np.isnan(b))
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-6))


def user_values(
    p: Plan, memory: Memory, slots: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
) -> None:
    """The stream's user features: each over its own window of the newest bars of every slot."""
    m = memory.arrays
    for feature, column in zip(p.user, p.user_columns, strict=True):
        bars = feature.spec.lookback_bars
        for k, slot in enumerate(slots):
            at = int(m["at"][slot]) + 1
            value = np.nan
            if m["seen"][slot] >= bars:
                value = feature.values(
                    {key: m["x"][slot, row, at - bars : at] for key, row in _ROWS.items()}
                )[-1]
            values[column, k] = value if np.isfinite(value) and abs(value) < 3e38 else np.nan


def user_table(
    p: Plan, x: npt.NDArray[np.float64], new: int, before: int, values: npt.NDArray[np.float32], at: int
) -> None:
    """The batch's user features of one symbol: over all columns of x, of which the last `new` are wanted."""
    for feature, column in zip(p.user, p.user_columns, strict=True):
        out = feature.values({key: x[row] for key, row in _ROWS.items()})[x.shape[1] - new :]
        seen = before + 1 + np.arange(new)
        good = (seen >= feature.spec.lookback_bars) & (np.abs(out) < 3e38)
        values[column, at : at + new] = np.where(good, out, np.nan)

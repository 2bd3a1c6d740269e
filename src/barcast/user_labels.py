"""A user's own labels: a Python file named in the configuration, tried out when it is loaded.

The file defines `label(bars, horizon_bars)`. `bars` holds NumPy arrays of one symbol's adjusted bars (open, high, low,
close, volume, time in seconds), oldest first; `horizon_bars` is the longest holding time. It returns two arrays, one
value per bar: how many bars the position that is entered at the next open is held (1 to horizon_bars, NaN where not yet
known), and the class (-1 SELL, 0 HOLD, 1 BUY) or None, which leaves classes to the fitted thresholds. What it says of a
bar may depend on the bars up to the one in which the exit trades, and on no later one: purging relies on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast import user_file
from barcast.errors import ConfigError
from barcast.user_file import Arrays

Answer = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]
_TRIED_BARS = 400


def load(path: str, horizon_bars: int) -> Callable[[Arrays], Answer]:
    """The file's function, checked: bars in, holding times and classes out.

    Raises:
        ConfigError: no file, no function, or labels that read past their own end or change with the price level.
    """
    return _load(*user_file.content_of(path, "labels.user_labels"), horizon_bars)


@lru_cache(maxsize=8)
def _load(path: str, digest: str, horizon_bars: int) -> Callable[[Arrays], Answer]:
    function = getattr(user_file.module_of(path, digest), "label", None)
    if not callable(function):
        raise ConfigError(f"{path} defines no function label.", hint="See the guide `add a feature`.")

    def answer(arrays: Arrays) -> Answer:
        return _answer(path, function, arrays, horizon_bars)

    prove(path, answer, horizon_bars)
    return answer


def _answer(path: str, function: Callable[..., Any], arrays: Arrays, horizon_bars: int) -> Answer:
    try:
        with np.errstate(all="ignore"):
            held, side = function(user_file.copies(arrays), horizon_bars)
    except Exception as error:
        raise ConfigError(f"label() in {path} failed: {type(error).__name__}: {error}") from error
    held = np.asarray(held, dtype=np.float64)
    side = None if side is None else np.asarray(side, dtype=np.float64)
    for values in (held, side):
        if values is not None and values.shape != arrays["close"].shape:
            raise ConfigError(
                f"label() in {path} returned shape {values.shape}; one value per bar "
                f"{arrays['close'].shape} was expected.",
                hint="Return two arrays as long as bars['close'] (the second may be None), NaN where not known.",
            )
    known = np.isfinite(held)
    wrong = known & ((held < 1) | (held > horizon_bars) | (held != np.round(held)))
    if wrong.any():
        raise ConfigError(
            f"label() in {path} holds for {held[wrong][0]:g} bars; a whole number of 1 to {horizon_bars} was expected.",
            hint="horizon_bars of the configuration is the longest holding time.",
        )
    if side is not None and not np.isin(side[known], (-1, 0, 1)).all():
        raise ConfigError(
            f"label() in {path} gave a class other than -1, 0 and 1.", hint="-1 SELL, 0 HOLD, 1 BUY."
        )
    return held, side


def prove(path: str, answer: Callable[[Arrays], Answer], horizon_bars: int) -> None:
    """Try the labels on made-up bars, whole, cut after their exits, and at three times the price.

    Raises:
        ConfigError: nothing is labelled, a label depends on bars after its exit, or on the price level.
    """
    arrays = user_file.made_up_bars(_TRIED_BARS + 2 * horizon_bars)
    held, side = answer(arrays)
    known = np.flatnonzero(np.isfinite(held))
    if not len(known):
        raise ConfigError(f"label() in {path} labels none of {len(held)} bars.", hint="Return holding times.")
    for at in known[np.linspace(0, len(known) - 1, 12).astype(int)]:
        end = int(at + 1 + held[at]) + 1
        cut = answer({name: values[:end] for name, values in arrays.items()})
        if not _same(cut[0][at], held[at]) or (side is not None and not _same(_at(cut[1], at), side[at])):
            raise ConfigError(
                f"label() in {path} reads bars after its own exit: bar {at} is held for {held[at]:g} bars with them, "
                f"{cut[0][at]:g} without, or gets another class.",
                hint="Return the holding time that covers every bar the label reads.",
            )
    again, same_side = answer(user_file.scaled(arrays, 3.0))
    if not np.array_equal(again, held, equal_nan=True) or (
        side is not None and not np.array_equal(_all(same_side)[known], side[known])
    ):
        raise ConfigError(
            f"label() in {path} changes when all prices are multiplied by 3: a split would change it.",
            hint="Compare returns, or divide by a price.",
        )


def _same(a: float, b: float) -> bool:
    return bool(a == b or (np.isnan(a) and np.isnan(b)))


def _at(side: npt.NDArray[np.float64] | None, at: int) -> float:
    return float("nan") if side is None else float(side[at])


def _all(side: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    return np.zeros(0) if side is None else side

"""B6: what the other symbols say. Describes the features; `cross_kernels.py` computes them, event by event.

An event is the bars of one close time that were known in time; a bar that came late makes an event of its own after
them, in batch and in stream alike. Others enter by their latest bar unless it is older than the maximum age.
"""

# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast import intervals
from barcast.config.features import FeaturesConfig
from barcast.features.correlation_kernels import close_bucket, refresh_correlations
from barcast.features.cross_kernels import NUM_COLUMNS, PAIRS, SETTLED, cross_event
from barcast.features.spec import FeatureSpec

_MARKET, _RELATION, _PEERS, _CORRELATION = (
    "market_available",
    "relation_available",
    "peers_available",
    "correlation_available",
)
_CAPM = "Sharpe, Journal of Finance 19 (1964)"
_LEAD = "Lo and MacKinlay, Review of Financial Studies 3 (1990)"
_MOMENTUM = "Jegadeesh and Titman, Journal of Finance 48 (1993)"
_BREADTH = "Zweig, Winning on Wall Street (1986)"
_DISPERSION = "Solnik and Roulet, Financial Analysts Journal 56 (2000)"
_PAIRS = "Gatev, Goetzmann and Rouwenhorst, Review of Financial Studies 19 (2006)"
_ROTATION = "Moskowitz and Grinblatt, Journal of Finance 54 (1999)"
_RESIDUAL = "Blitz, Huij and Martens, Journal of Empirical Finance 18 (2011)"
_O = "mean over the other symbols"

# name, formula, look-back of the symbol itself, unit, source, neutral, flag
_SPECS: tuple[tuple[str, str, int, str, str, float | None, str | None], ...] = (
    ("market_available", "1 where another symbol has a fresh return", 1, "flag", _CAPM, None, None),
    ("market_return_1", f"{_O} of the last log return", 2, "log return", _CAPM, 0.0, _MARKET),
    ("market_return_5", f"{_O} of the 5-bar log return", 6, "log return", _CAPM, 0.0, _MARKET),
    ("market_return_20", f"{_O} of the 20-bar log return", 21, "log return", _CAPM, 0.0, _MARKET),
    ("market_breadth_1", "share of the other symbols that rose over their last bar", 2, "share", _BREADTH, 0.5, _MARKET),
    ("market_breadth_20", "share of the other symbols that rose over 20 bars", 21, "share", _BREADTH, 0.5, _MARKET),
    ("market_volume", f"{_O} of volume by its own 20-bar mean", 20, "ratio", _BREADTH, 1.0, _MARKET),
    ("market_rsi", f"{_O} of RSI 14", 15, "0..100", _BREADTH, 50.0, _MARKET),
    ("market_dispersion_1", "deviation across symbols of the last log return", 2, "log return", _DISPERSION, 0.0, _MARKET),
    ("market_dispersion_20", "deviation across symbols of the 20-bar log return", 21, "log return", _DISPERSION, 0.0, _MARKET),
    ("market_dispersion_trend", "log of the dispersion by its exponential average (weight 2/51), within +-3", 2, "log ratio", _DISPERSION, 0.0, _MARKET),
    ("relative_return_1", f"last log return less the {_O}", 2, "log return", _MOMENTUM, 0.0, _MARKET),
    ("relative_return_5", f"5-bar log return less the {_O}", 6, "log return", _MOMENTUM, 0.0, _MARKET),
    ("relative_return_20", f"20-bar log return less the {_O}", 21, "log return", _MOMENTUM, 0.0, _MARKET),
    ("relative_return_60", f"60-bar log return less the {_O}", 61, "log return", _MOMENTUM, 0.0, _MARKET),
    ("relative_volatility", f"log of the 20-bar volatility by the {_O}, within +-5", 21, "log ratio", _CAPM, 0.0, _MARKET),
    ("relative_volume", f"volume by its 20-bar mean, less the {_O}", 20, "ratio", _BREADTH, 0.0, _MARKET),
    ("relative_rsi", f"RSI 14 less the {_O}", 15, "-100..100", _MOMENTUM, 0.0, _MARKET),
    ("rank_return_5", "share of the other symbols with a smaller 5-bar log return, equal ones counted half", 6, "share", _MOMENTUM, 0.5, _MARKET),
    ("rank_return_20", "share of the other symbols with a smaller 20-bar log return, equal ones counted half", 21, "share", _MOMENTUM, 0.5, _MARKET),
    ("rank_volume", "share of the other symbols with a smaller relative volume, equal ones counted half", 20, "share", _BREADTH, 0.5, _MARKET),
    ("rank_volatility", "share of the other symbols with a smaller 20-bar volatility, equal ones counted half", 21, "share", _CAPM, 0.5, _MARKET),
    ("rotation_20", "rank of the 20-bar log return less its value 20 bars ago (0 until there is one)", 21, "share", _ROTATION, 0.0, _MARKET),
    ("rotation_leader", "1 where the rank of the 20-bar log return is above 0.8", 21, "flag", _ROTATION, 0.0, _MARKET),
    ("rotation_laggard", "1 where the rank of the 20-bar log return is below 0.2", 21, "flag", _ROTATION, 0.0, _MARKET),
    ("divergence_20", f"20-bar log return less the {_O}, by the dispersion, within +-10", 21, "deviations", _PAIRS, 0.0, _MARKET),
    ("divergence_sign_20", "1 where the 20-bar log returns of the symbol and of the others have opposite signs", 21, "flag", _PAIRS, 0.0, _MARKET),
    ("relation_available", f"1 after {PAIRS} bars with another symbol's bars", 1, "flag", _CAPM, None, None),
    ("market_beta", "slope of the log return on the others' mean, exponentially weighted (2/51), within +-10", 2, "slope", _CAPM, 1.0, _RELATION),
    ("market_correlation", "correlation of the log return with the others' mean, exponentially weighted (2/51)", 2, "-1..1", _CAPM, 0.0, _RELATION),
    ("residual_return_1", "log return less the slope times the others' mean", 2, "log return", _RESIDUAL, 0.0, _RELATION),
    ("residual_momentum", "exponential average (2/21) of the residual by its deviation; 0 where constant", 2, "deviations", _RESIDUAL, 0.0, _RELATION),
    ("market_leads", "correlation of the log return with the others' mean one bar earlier, exponentially weighted (2/51)", 2, "-1..1", _LEAD, 0.0, _RELATION),
    ("leads_market", "correlation of the others' mean with the symbol's log return one bar earlier, exponentially weighted (2/51)", 2, "-1..1", _LEAD, 0.0, _RELATION),
    ("leadership", "how far the symbol leads the market more than it follows: leads_market - market_leads", 2, "-2..2", _LEAD, 0.0, _RELATION),
    ("market_return_lag_1", "the others' mean log return at the symbol's bar before", 2, "log return", _LEAD, 0.0, _MARKET),
    ("leader_return_1", "last log return of the other fresh symbol with the highest leads_market; 0 where none has one", 1, "log return", _LEAD, 0.0, _MARKET),
    ("peers_available", "1 where a fresh symbol is correlated at least at the threshold", 1, "flag", _PAIRS, None, None),
    ("peer_count", "correlated symbols by the most that are kept", 1, "share", _PAIRS, 0.0, _PEERS),
    ("peer_correlation", "mean correlation of the fresh peers", 1, "-1..1", _PAIRS, 0.0, _PEERS),
    ("peer_return_1", "correlation-weighted mean of the peers' last log return", 1, "log return", _PAIRS, 0.0, _PEERS),
    ("peer_return_5", "correlation-weighted mean of the peers' 5-bar log return", 1, "log return", _PAIRS, 0.0, _PEERS),
    ("peer_return_20", "correlation-weighted mean of the peers' 20-bar log return", 1, "log return", _PAIRS, 0.0, _PEERS),
    ("peer_relative_5", "5-bar log return less the peers' weighted mean", 6, "log return", _PAIRS, 0.0, _PEERS),
    ("peer_relative_20", "20-bar log return less the peers' weighted mean", 21, "log return", _PAIRS, 0.0, _PEERS),
    ("peer_volume", "correlation-weighted mean of the peers' relative volume", 1, "ratio", _PAIRS, 1.0, _PEERS),
    ("peer_rsi", "correlation-weighted mean of the peers' RSI 14 less the symbol's own", 15, "-100..100", _PAIRS, 0.0, _PEERS),
    ("correlation_available", "1 where a correlation with another symbol is known", 1, "flag", "Pearson", None, None),
    ("correlation_highest", "highest correlation with another symbol at the last refresh", 1, "-1..1", "Pearson", 0.0, _CORRELATION),
    ("correlation_mean", "mean correlation with all other symbols at the last refresh", 1, "-1..1", "Pearson", 0.0, _CORRELATION),
    ("correlation_change", "mean correlation less that of the refresh before", 1, "-1..1", "Pearson", 0.0, _CORRELATION),
)  # fmt: skip
assert len(_SPECS) == NUM_COLUMNS


_RELATED = {name for name, *_, flag in _SPECS if flag == _RELATION} | {
    "market_dispersion_trend",
    "leader_return_1",
}


def settles(name: str, look: int) -> int:
    """Bars until the beginning of history no longer matters: the relations' exponential weights forget slowly."""
    return look + SETTLED if name in _RELATED else look


def cross_specs(config: FeaturesConfig) -> tuple[FeatureSpec, ...]:
    """The cross-symbol features in column order."""
    tail = (
        f" (log returns of at least an hour over {config.correlation_lookback_hours:g} h, refreshed every "
        f"{config.correlation_refresh_hours:g} h, threshold {config.correlation_threshold:g})"
    )
    return tuple(
        FeatureSpec(
            name, "cross_symbol", words + (tail if name in (_PEERS, _CORRELATION) else ""), look, unit, source, settles(name, look), True, neutral, flag
        )
        for name, words, look, unit, source, neutral, flag in _SPECS
    )  # fmt: skip


class CrossState:
    """What is remembered of all symbols between events.

    Slots are given to symbols in the order they appear; sums run in the symbols' alphabetical order, so that neither
    the order of arrival nor of a table's rows changes a bit.
    """

    _MAX_BUCKETS = 2000  # a correlation needs no more points; a longer look-back takes coarser returns

    def __init__(self, interval: str, config: FeaturesConfig, symbols: Sequence[str] = ()) -> None:
        step = intervals.seconds(interval)
        lookback = config.correlation_lookback_hours * 3600
        bucket = max(step, 3600, int(np.ceil(lookback / self._MAX_BUCKETS / 3600)) * 3600)
        self.rules = np.array(
            [
                int(config.peer_max_age_bars * step * 1e6),
                bucket * 1_000_000,
                int(config.correlation_refresh_hours * 3.6e9),
                int(lookback * 1e6),
                config.correlation_min_observations,
                0,
            ],
            dtype=np.int64,
        )
        self.threshold = config.correlation_threshold
        self.max_peers = config.max_peers
        self.length = int(lookback // bucket) + 2
        self.symbols: list[str] = []
        self.arrays = _arrays(0, self.length, self.max_peers)
        self.order = np.zeros(0, dtype=np.int64)
        self.add(symbols)

    def add(self, symbols: Sequence[str]) -> None:
        """Give new symbols a slot each."""
        new = [name for name in symbols if name not in set(self.symbols)]
        if not new:
            return
        before = len(self.symbols)
        self.symbols += new
        grown = _arrays(len(self.symbols), self.length, self.max_peers)
        for name, array in self.arrays.items():
            grown[name][tuple(slice(0, k) for k in array.shape)] = array
        if before == 0:
            grown["ring_times"][:] = 0
        self.arrays = grown
        self.order = np.array(sorted(range(len(self.symbols)), key=self.symbols.__getitem__), dtype=np.int64)

    def event(
        self, time_us: int, who: npt.NDArray[np.int64], fields: npt.NDArray[np.float64],
        columns: npt.NDArray[np.int64], lookback: npt.NDArray[np.int64], seen: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], late: bool,
    ) -> None:  # fmt: skip
        """Take the bars of one event and write their features.

        Args:
            time_us: close time of the bars.
            who: slots of the symbols that have a bar, in alphabetical order of the symbols.
            fields: (len(who), 8) what others may see (see `series.SHARED`).
            columns: row of `values` of each cross-symbol feature, in `cross_specs` order; lookback: of each.
            seen: bars of each symbol seen so far, this one included.
            values: (F, n); rows: its column for each of `who`.
            late: whether the event holds a bar that missed the deadline.
        """
        a = self.arrays
        if close_bucket(
            time_us, self.rules, a["clock"], a["last"], a["last_time"], a["ring"], a["ring_times"]
        ):
            refresh_correlations(
                time_us, self.rules, self.threshold, a["clock"], self.order, a["ring"], a["ring_times"],
                a["correlation"], a["peers"], a["weights"], a["links"],
            )  # fmt: skip
        cross_event(
            time_us, self.rules, a["clock"], self.order, who, fields, late, a["last"], a["last_time"], a["relation"],
            a["ranks"], a["peers"], a["weights"], a["links"], a["market"], columns, lookback, seen, values, rows,
        )  # fmt: skip

    def correlations(self) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Symbols in alphabetical order and their correlation matrix at the last refresh; NaN where unknown."""
        matrix = self.arrays["correlation"][np.ix_(self.order, self.order)].copy()
        np.fill_diagonal(matrix, 1.0)
        return [self.symbols[k] for k in self.order], matrix


def _arrays(num: int, length: int, peers: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "last": np.full((num, 8), np.nan),
        "last_time": np.full(num, np.iinfo(np.int64).min // 2),
        "relation": np.zeros((num, 20)),
        "ranks": np.full((num, 21), np.nan),
        "ring": np.full((num, length), np.nan),
        "ring_times": np.zeros(length, dtype=np.int64),
        "correlation": np.full((num, num), np.nan),
        "peers": np.full((num, peers), -1, dtype=np.int64),
        "weights": np.zeros((num, peers)),
        "links": np.zeros((num, 5)),  # known, highest, mean, change, number of peers
        "clock": np.array(
            [-(2**62), -(2**62), -(2**62), 0], dtype=np.int64
        ),  # bucket, last event, refresh, ring entries
        "market": np.zeros(4),
    }

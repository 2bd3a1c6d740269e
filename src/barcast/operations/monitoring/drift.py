"""Drift of features against the training reference, and of a model's answers against its own earlier ones.

Prices change their character all the time, so a fixed limit on a stability index alarms in every calm or wild
month. The limit here is the training period itself: it is cut into windows as long as the newest one, and only
a window unlike all of those counts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barcast.bars.quality.features import (
    FeatureProfile,
    bin_shares,
    finite,
    profile_features,
    stability_index,
)

Values = NDArray[np.float64]
TOP = 5


@dataclass(frozen=True)
class Shifted:
    """One feature that moved.

    Attributes:
        psi: population stability index against the reference.
        ks: Kolmogorov and Smirnov's largest distance of the two distribution functions, 0 to 1.
        wasserstein: mean distance to carry one distribution to the other, in the reference's standard deviations.
    """

    name: str
    psi: float
    ks: float
    wasserstein: float


@dataclass(frozen=True)
class FeatureDrift:
    """The newest window against the reference.

    Attributes:
        share: share of the features whose index is above the limit.
        typical: the highest such share among the reference's own windows.
        psi: mean index over all features.
        top: the features that moved most.
    """

    share: float
    typical: float
    psi: float
    top: tuple[Shifted, ...]


def feature_drift(
    reference: pl.DataFrame, recent: pl.DataFrame, window_bars: int, max_psi: float
) -> FeatureDrift | None:
    """Compare feature frames (symbol, event_timestamp, created_timestamp, features).

    Args:
        reference: rows of the training period.
        recent: the newest rows.
        window_bars: length of the reference's windows.
        max_psi: a feature above it counts as shifted.

    Returns:
        None where either side has too few rows to say anything.
    """
    profile = profile_features(reference)
    own = [w for w in _windows(reference, window_bars) if w.height >= 0.8 * recent.height]
    if not profile.edges or recent.height < 50 or len(own) < 2:
        return None
    found = _psi(profile, recent)
    past = np.array([np.mean(_psi(profile, window) > max_psi) for window in own])
    # one that the newest rows do not know has no distribution to compare
    order = [i for i in np.argsort(-np.nan_to_num(found)) if np.isfinite(found[i])][:TOP]
    names = list(profile.edges)
    return FeatureDrift(
        share=float(np.mean(found > max_psi)),
        typical=float(past.max()),
        psi=float(np.nanmean(found)) if order else 0.0,
        top=tuple(_shifted(names[i], float(found[i]), reference, recent) for i in order),
    )


def answer_drift(earlier: pl.DataFrame, recent: pl.DataFrame) -> tuple[float, float]:
    """(PSI, KS) of the lean p_buy - p_sell, the larger of it and of the confidence's."""
    from scipy import stats

    worst = (0.0, 0.0)
    for lean in (pl.col("p_buy") - pl.col("p_sell"), pl.col("confidence")):
        before = earlier.select(lean.alias("v"))["v"].to_numpy()
        after = recent.select(lean.alias("v"))["v"].to_numpy()
        edges = np.unique(np.quantile(before, np.linspace(0, 1, 11)[1:-1]))
        psi = stability_index(tuple(bin_shares(before, edges)), bin_shares(after, edges))
        worst = max(worst, (psi, float(stats.ks_2samp(before, after).statistic)))
    return worst


def typical_drift(answers: pl.DataFrame, stretches: int = 3) -> float:
    """The highest PSI (of `answer_drift`) among stretches of answers in order of time, each against the others.

    Neighbouring bars get like answers, and symbols move together: a few days of an honest model are unlike the next.
    """
    cuts = np.linspace(0, answers.height, stretches + 1).astype(int)
    return max(
        answer_drift(pl.concat([answers[:first], answers[last:]]), answers[first:last])[0]
        for first, last in itertools.pairwise(cuts)
    )


def _windows(frame: pl.DataFrame, window_bars: int) -> list[pl.DataFrame]:
    """The frame cut into stretches of `window_bars` successive closes."""
    times = frame["event_timestamp"].unique().sort()
    cuts: list[datetime] = [times[i] for i in range(0, len(times) - window_bars + 1, window_bars)]
    ends = [*cuts[1:], times[-1]]
    return [
        frame.filter(pl.col("event_timestamp").is_between(a, b, closed="left" if b != times[-1] else "both"))
        for a, b in zip(cuts, ends, strict=True)
    ]


def _psi(profile: FeatureProfile, frame: pl.DataFrame) -> Values:
    """(features,) stability index of each profiled feature; NaN where the frame does not know it."""
    found = np.full(len(profile.edges), np.nan)
    for i, (name, edges) in enumerate(profile.edges.items()):
        if name not in frame.columns:
            continue
        values = finite(frame[name])
        if values.size:
            found[i] = stability_index(profile.shares[name], bin_shares(values, np.asarray(edges)))
    return found


def _shifted(name: str, psi: float, reference: pl.DataFrame, recent: pl.DataFrame) -> Shifted:
    from scipy import stats

    before, after = finite(reference[name]), finite(recent[name])
    scale = float(before.std()) or 1.0
    return Shifted(
        name,
        psi,
        float(stats.ks_2samp(before, after).statistic),
        float(stats.wasserstein_distance(before, after)) / scale,
    )

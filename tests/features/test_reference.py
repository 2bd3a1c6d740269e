"""What no library has, against slow and obvious references: each feature again from its words, one bar at a time."""

# ruff: noqa: E501  # a feature is one line

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import talib
from feature_bars import make_bars

from barcast.bars.calendar import Calendar
from barcast.features import compute

FRAME = make_bars(1, 900, seed=21)
O, H, L, C, V = (FRAME[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))  # noqa: E741
R = np.append(np.nan, np.diff(np.log(C)))
ATR, RSI = talib.ATR(H, L, C, 14), talib.RSI(C, 14)
E20, E50 = talib.EMA(C, 20), talib.EMA(C, 50)
AT = [420, *range(438, 446), 555, 640, 700, 899]
Reference = Callable[[int], float]


def last(values: np.ndarray, t: int, n: int) -> np.ndarray:
    return values[t - n + 1 : t + 1]


@cache
def sd(t: int, n: int) -> float:
    return float(last(R, t, n).std())


def ranked(values: np.ndarray) -> float:
    """Share of the values below the last one, equal ones counted half."""
    return float(((values < values[-1]).sum() + 0.5 * (values == values[-1]).sum()) / len(values))


def slope(values: np.ndarray) -> float:
    return float(np.polyfit(range(len(values)), values, 1)[0])


def roc(t: int, n: int) -> float:
    return 100 * (C[t] / C[t - n] - 1)


def relative_volume(t: int) -> float:
    return float(V[t] / last(V, t, 20).mean())


def drawn_span_a(t: int) -> float:
    return float(
        ((last(H, t, 9).max() + last(L, t, 9).min()) / 2 + (last(H, t, 26).max() + last(L, t, 26).min()) / 2)
        / 2
    )


def cloud(t: int) -> tuple[float, float]:
    return drawn_span_a(t - 26), float((last(H, t - 26, 52).max() + last(L, t - 26, 52).min()) / 2)


def cloud_distance(t: int) -> float:
    low, high = sorted(cloud(t))
    return (C[t] - high if C[t] > high else C[t] - low if C[t] < low else 0.0) / C[t]


def choppiness(t: int) -> float:
    path = sum(max(H[k], C[k - 1]) - min(L[k], C[k - 1]) for k in range(t - 13, t + 1))
    return 100 * np.log10(path / (last(H, t, 14).max() - last(L, t, 14).min())) / np.log10(14)


def sure_thing(t: int) -> float:
    parts = ((10, 10), (15, 10), (20, 10), (30, 15))
    return sum(w * np.mean([roc(k, n) for k in range(t - m + 1, t + 1)]) for w, (n, m) in enumerate(parts, 1))


def vigor(t: int) -> float:
    def weighted(a: np.ndarray, b: np.ndarray) -> float:
        return sum(w * (a[k - i] - b[k - i]) for k in range(t - 9, t + 1) for i, w in enumerate((1, 2, 2, 1)))

    return weighted(C, O) / weighted(H, L)


def ulcer(t: int) -> float:
    falls = [100 * (C[k] / last(C, k, 14).max() - 1) for k in range(t - 13, t + 1)]
    return float(np.sqrt(np.mean(np.square(falls))))


def ease(t: int) -> float:
    def one(k: int) -> float:
        return (H[k] + L[k] - H[k - 1] - L[k - 1]) / 2 / C[k] * (H[k] - L[k]) / C[k] / relative_volume(k)

    return 1e4 * float(np.mean([one(k) for k in range(t - 13, t + 1)]))


def streak(t: int) -> float:
    side, n = np.sign(C[t] - C[t - 1]), 0
    while n < 20 and side and np.sign(C[t - n] - C[t - n - 1]) == side:
        n += 1
    return float(side * n)


def rogers_satchell(t: int, n: int) -> float:
    o, h, l, c = (last(x, t, n) for x in (O, H, L, C))  # noqa: E741
    return float((np.log(h / c) * np.log(h / o) + np.log(l / c) * np.log(l / o)).mean())


def garman_klass(t: int) -> float:
    o, h, l, c = (last(x, t, 20) for x in (O, H, L, C))  # noqa: E741
    return float(np.sqrt((0.5 * np.log(h / l) ** 2 - (2 * np.log(2) - 1) * np.log(c / o) ** 2).mean()))


def yang_zhang(t: int) -> float:
    k = 0.34 / (1.34 + 21 / 19)
    night = np.log(last(O, t, 20) / last(C, t - 1, 20))
    day = np.log(last(C, t, 20) / last(O, t, 20))
    return float(np.sqrt(night.var(ddof=1) + k * day.var(ddof=1) + (1 - k) * rogers_satchell(t, 20)))


def engulfing(t: int) -> float:
    now, before = C[t] - O[t], C[t - 1] - O[t - 1]
    if (
        now * before < 0
        and max(C[t], O[t]) >= max(C[t - 1], O[t - 1])
        and min(C[t], O[t]) <= min(C[t - 1], O[t - 1])
    ):
        return float(np.clip(now / abs(before), -5, 5))
    return 0.0


def hammer(t: int) -> float:
    span = H[t] - L[t]
    body = max(abs(C[t] - O[t]), 0.1 * span)
    shadows = min(C[t], O[t]) - L[t] - (H[t] - max(C[t], O[t]))
    return float(np.clip(shadows / body, -10, 10))


def swing(t: int, side: int) -> float:
    """Nearest swing beyond the close in 60 bars; the extreme where there is none."""
    x = H if side > 0 else -L
    level = C[t] if side > 0 else -C[t]
    found = [
        x[k]
        for k in range(t - 59, t - 2)
        if x[k] > level and all(x[k] > x[k + i] for i in (-3, -2, -1, 1, 2, 3))
    ]
    best = min(found) if found else max(last(x, t, 60))
    return float(best / C[t] - 1 if side > 0 else 1 + best / C[t])


def downside(t: int) -> float:
    r = last(R, t, 20)
    return float((r[r < 0] ** 2).sum() / (r**2).sum())


def vol20(t: int) -> float:
    return sd(t, 20)


@cache
def volatility_rank(t: int) -> float:
    return ranked(np.array([vol20(k) for k in range(t - 99, t + 1)]))


def third(t: int) -> int:
    rank = volatility_rank(t)
    return 0 if rank < 1 / 3 else 2 if rank > 2 / 3 else 1


def age(t: int) -> float:
    n = 1
    while n < 200 and third(t - n) == third(t):
        n += 1
    return n / 100


def trend_score(t: int) -> float:
    return float(np.clip(last(R, t, 50).mean() * np.sqrt(50) / sd(t, 50), -10, 10))


def trend(t: int) -> int:
    return 1 if trend_score(t) > 1 and C[t] > E50[t] else -1 if trend_score(t) < -1 and C[t] < E50[t] else 0


def momentum(t: int) -> float:
    return float(np.clip(last(R, t, 20).sum() / (vol20(t) * np.sqrt(20)), -10, 10))


def persistence(t: int) -> float:
    now = C[t] - C[t - 10]
    return sum((C[k] - C[k - 10]) * now > 0 for k in range(t - 19, t + 1)) / 20


def volume_rank(t: int) -> float:
    means = [last(V, t - 5 * k, 5).mean() for k in range(19, -1, -1)]
    return ranked(np.array(means))


def tail_share(t: int) -> float:
    return float((np.abs(last(R, t, 50)) > 2 * sd(t, 50)).mean())


def stress(t: int) -> float:
    return (volatility_rank(t) + 1 - ranked(last(C, t, 100)) + downside(t) + min(5 * tail_share(t), 1)) / 4


def greed_index(t: int) -> float:
    rising = float((last(R, t, 20) > 0).mean())
    return (RSI[t] / 100 + ranked(last(C, t, 100)) + rising + 1 - volatility_rank(t)) / 4


def unit(t: int) -> float:
    return R[t] / vol20(t)


def explained(t: int, n: int) -> float:
    return float(np.corrcoef(np.log(last(C, t, n)), np.arange(n))[0, 1] ** 2)


REFERENCES: dict[str, Reference] = {
    **{f"{name}_zscore_50": lambda t, x=x: (x[t] - last(C, t, 50).mean()) / last(C, t, 50).std() for name, x in (("open", O), ("high", H), ("low", L))},  # type: ignore[misc]
    "volume_zscore_50": lambda t: (V[t] - last(V, t, 50).mean()) / last(V, t, 50).std(),
    "close_range_position_50": lambda t: (C[t] - last(L, t, 50).min()) / (last(H, t, 50).max() - last(L, t, 50).min()),
    "ichimoku_cloud_distance": cloud_distance,
    "ichimoku_cloud_width": lambda t: (cloud(t)[0] - cloud(t)[1]) / C[t],
    "choppiness_14": choppiness,
    "kst_10_15_20_30": sure_thing,
    "relative_vigor_10": vigor,
    "ulcer_14": ulcer,
    "ease_of_movement_14": ease,
    **{f"log_return_{n}": lambda t, n=n: np.log(C[t] / C[t - n]) for n in (1, 5, 10, 60)},  # type: ignore[misc]
    "return_per_risk_20": lambda t: last(R, t, 20).mean() / sd(t, 20),
    "autocorrelation_1_50": lambda t: np.corrcoef(last(R, t, 50), last(R, t - 1, 50))[0, 1],
    "up_share_20": lambda t: (last(R, t, 20) > 0).mean(),
    "streak": streak,
    "largest_gain_20": lambda t: last(R, t, 20).max(),
    "largest_loss_20": lambda t: last(R, t, 20).min(),
    "volatility_10": lambda t: sd(t, 10),
    "volatility_annual_50": lambda t: sd(t, 50) * np.sqrt(365.25 * 288),
    "volatility_ratio_5_50": lambda t: sd(t, 5) / sd(t, 50),
    "parkinson_20": lambda t: np.sqrt((np.log(last(H, t, 20) / last(L, t, 20)) ** 2).mean() / (4 * np.log(2))),
    "garman_klass_20": garman_klass,
    "rogers_satchell_20": lambda t: np.sqrt(rogers_satchell(t, 20)),
    "yang_zhang_20": yang_zhang,
    "downside_share_20": downside,
    "body_ratio": lambda t: (C[t] - O[t]) / (H[t] - L[t]),
    "upper_shadow_ratio": lambda t: (H[t] - max(O[t], C[t])) / (H[t] - L[t]),
    "lower_shadow_ratio": lambda t: (min(O[t], C[t]) - L[t]) / (H[t] - L[t]),
    "range_ratio": lambda t: (H[t] - L[t]) / C[t],
    "opening_gap": lambda t: np.log(O[t] / C[t - 1]),
    "body_atr": lambda t: (C[t] - O[t]) / ATR[t],
    "mean_body_ratio_5": lambda t: (last(C - O, t, 5) / last(H - L, t, 5)).mean(),
    "engulfing": engulfing,
    "hammer": hammer,
    "range_expansion_7": lambda t: np.clip((H[t] - L[t]) / last(H - L, t - 1, 7).mean(), 0, 20),
    **{f"resistance_distance_{n}": lambda t, n=n: last(H, t, n).max() / C[t] - 1 for n in (20, 100)},  # type: ignore[misc]
    **{f"support_distance_{n}": lambda t, n=n: C[t] / last(L, t, n).min() - 1 for n in (20, 100)},  # type: ignore[misc]
    "swing_resistance": lambda t: swing(t, 1),
    "swing_support": lambda t: swing(t, -1),
    "pivot_distance": lambda t: C[t] / ((last(H, t - 1, 20).max() + last(L, t - 1, 20).min() + C[t - 1]) / 3) - 1,
    "drawdown_120": lambda t: np.log(C[t] / last(C, t, 120).max()),
    "slope_acceleration_20": lambda t: slope(np.log(last(C, t, 10))) - slope(np.log(last(C, t, 20))),
    "volatility_rank_100": volatility_rank,
    **{f"volatility_regime_{name}": lambda t, k=k: third(t) == k for k, name in enumerate(("low", "medium", "high"))},  # type: ignore[misc]
    "volatility_trend_20": lambda t: np.log(vol20(t) / vol20(t - 20)),
    "volatility_of_volatility_50": lambda t: np.std([vol20(k) for k in range(t - 49, t + 1)]) / np.mean([vol20(k) for k in range(t - 49, t + 1)]),
    "volatility_regime_age": age,
    "trend_score_50": trend_score,
    **{f"trend_regime_{name}": lambda t, k=k: trend(t) == k for k, name in ((1, "bull"), (-1, "bear"), (0, "sideways"))},  # type: ignore[misc]
    "trend_alignment": lambda t: np.mean([np.sign(C[t] - E20[t]), np.sign(E20[t] - E50[t]), np.sign(slope(np.log(last(C, t, 50))))]),
    "trend_reversal_distance": lambda t: (C[t] - last(C, t, 100).min()) / np.ptp(last(C, t, 100)),
    "momentum_score": momentum,
    "momentum_regime_strong_up": lambda t: momentum(t) > 1 and RSI[t] > 60,
    "momentum_regime_strong_down": lambda t: momentum(t) < -1 and RSI[t] < 40,
    "momentum_regime_weak": lambda t: abs(momentum(t)) <= 0.5,
    "momentum_persistence_20": persistence,
    "volume_regime_rank_100": volume_rank,
    "volume_regime_high": lambda t: relative_volume(t) > 1.5,
    "volume_regime_normal": lambda t: 0.5 <= relative_volume(t) <= 1.5,
    "volume_regime_low": lambda t: relative_volume(t) < 0.5,
    "drawdown_stress_100": lambda t: min(np.log(last(C, t, 100).max() / C[t]) / (vol20(t) * 10), 10),
    "tail_share_50": tail_share,
    "downside_tail_50": lambda t: np.sort(last(R, t, 50))[:5].mean() / sd(t, 50),
    "leverage_effect_50": lambda t: np.corrcoef(last(R, t - 1, 50), np.abs(last(R, t, 50)))[0, 1],
    "stress_index": stress,
    "fear": lambda t: stress(t) > 0.65,
    "greed": lambda t: stress(t) < 0.35,
    "greed_index": greed_index,
    "panic_volume": lambda t: np.clip(relative_volume(t) * unit(t), -50, 0),
    "rsi_volume_interaction": lambda t: (RSI[t] - 50) / 50 * min(relative_volume(t), 5),
    "return_volume_interaction": lambda t: np.clip(unit(t) * min(relative_volume(t), 5), -25, 25),
    "signed_squared_return": lambda t: np.clip(np.sign(R[t]) * unit(t) ** 2, -25, 25),
    "trend_quality_interaction": lambda t: momentum(t) * explained(t, 20),
    "reversal_interaction": lambda t: np.clip(unit(t) * (C[t] - last(C, t, 50).mean()) / last(C, t, 50).std(), -25, 25),
    "momentum_volatility_interaction": lambda t: np.clip(momentum(t) * np.log(vol20(t) / np.mean([vol20(k) for k in range(t - 49, t + 1)])), -10, 10),
}  # fmt: skip


@pytest.fixture(scope="module")
def computed() -> pl.DataFrame:
    return compute(FRAME, interval="5m", calendar=Calendar.of("24/7"))


@pytest.mark.parametrize("name", REFERENCES)
def test_feature_equals_its_words(computed: pl.DataFrame, name: str) -> None:
    ours = computed[name].to_numpy()[AT]
    theirs: Any = np.array([float(REFERENCES[name](t)) for t in AT])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * max(np.abs(theirs).max(), 1e-3))

"""Measures of complexity against antropy, PyWavelets, arch, SciPy and slow, obvious references."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from feature_bars import make_bars

from barcast.bars.calendar import Calendar
from barcast.features import compute

# antropy compiles with numba and warns about its own cache folder on some file systems
pytestmark = pytest.mark.filterwarnings("ignore::numba.NumbaWarning")

FRAME = make_bars(1, 400, seed=31, volatility=0.01)
CLOSE = FRAME["close"].to_numpy()
R = np.append(np.nan, np.log(CLOSE[1:] / CLOSE[:-1]))
V = FRAME["volume"].to_numpy()
AT = [140, 201, 333, 399]


@pytest.fixture(scope="module")
def computed() -> pl.DataFrame:
    return compute(FRAME, interval="5m", calendar=Calendar.of("24/7"))


def window(values: np.ndarray, at: int, n: int) -> np.ndarray:
    return values[at - n + 1 : at + 1]


@pytest.mark.parametrize("at", AT)
def test_entropies_and_dimensions_equal_antropy(computed: pl.DataFrame, at: int) -> None:
    import antropy

    log_close = np.log(CLOSE)
    expected = {
        "permutation_entropy_60": antropy.perm_entropy(window(CLOSE, at, 60), order=3, normalize=True),
        "petrosian_dimension_60": antropy.petrosian_fd(window(log_close, at, 60)),
        "katz_dimension_60": antropy.katz_fd(window(log_close, at, 60)),
        "higuchi_dimension_60": antropy.higuchi_fd(window(log_close, at, 60), kmax=7),
        "lempel_ziv_60": antropy.lziv_complexity((window(R, at, 60) > 0).astype(int), normalize=True),
        "hjorth_mobility_60": antropy.hjorth_params(window(R, at, 60))[0],
        "hjorth_complexity_60": antropy.hjorth_params(window(R, at, 60))[1],
    }
    for name, value in expected.items():
        tolerance = (
            0.03 if name.startswith(("higuchi", "hjorth")) else 1e-5
        )  # antropy's own step counts and divisors differ
        assert computed[name][at] == pytest.approx(float(value), rel=tolerance), name


@pytest.mark.parametrize("at", AT)
def test_sample_entropy_equals_its_definition(computed: pl.DataFrame, at: int) -> None:
    x = window(R, at, 48)
    r, n = 0.2 * x.std(), len(x)
    pairs = [(i, j) for i in range(n - 2) for j in range(i + 1, n - 2)]
    short = sum(max(abs(x[i + k] - x[j + k]) for k in range(2)) < r for i, j in pairs)
    long = sum(max(abs(x[i + k] - x[j + k]) for k in range(3)) < r for i, j in pairs)
    expected = math.log(short / long) if long else math.log(max(short, 1) + 1)
    assert computed["sample_entropy_48"][at] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("at", AT)
def test_haar_energies_equal_pywavelets(computed: pl.DataFrame, at: int) -> None:
    import pywt

    x = window(R, at, 64)
    bands = pywt.wavedec(x, "haar", mode="periodization", level=4)
    energy = np.array([float((b**2).sum()) for b in bands[::-1]])
    share = energy / energy.sum()
    for k, name in enumerate([*(f"wavelet_energy_{d}" for d in range(1, 5)), "wavelet_energy_rest"]):
        assert computed[name][at] == pytest.approx(share[k], rel=1e-5)
    assert computed["wavelet_entropy_64"][at] == pytest.approx(
        -(share * np.log(share)).sum() / math.log(5), rel=1e-5
    )


@pytest.mark.parametrize("at", AT)
def test_spectrum_equals_numpy(computed: pl.DataFrame, at: int) -> None:
    x = window(R, at, 64)
    power = np.abs(np.fft.rfft(x - x.mean()))[1:] ** 2
    share = power / power.sum()
    assert computed["spectral_entropy_64"][at] == pytest.approx(
        -(share * np.log(share)).sum() / math.log(32), rel=1e-5
    )
    assert computed["quick_power_64"][at] == pytest.approx(share[7:].sum(), rel=1e-5)


@pytest.mark.parametrize("at", AT)
def test_mutual_information_equals_counting(computed: pl.DataFrame, at: int) -> None:
    a, b = window(R, at, 100), window(R, at - 1, 100)

    def cut(v: np.ndarray) -> list[int]:
        z = (v - v.mean()) / v.std()
        return [0 if p < -0.43 else 2 if p > 0.43 else 1 for p in z]

    p, q = cut(a), cut(b)
    joint, left, right = Counter(zip(p, q, strict=True)), Counter(p), Counter(q)
    expected = sum(c / 100 * math.log(c * 100 / (left[i] * right[j])) for (i, j), c in joint.items())
    assert computed["mutual_information_lag_1"][at] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("at", AT)
def test_moments_equal_scipy(computed: pl.DataFrame, at: int) -> None:
    from scipy import stats

    for n in (50, 100):
        assert computed[f"skewness_{n}"][at] == pytest.approx(stats.skew(window(R, at, n)), rel=1e-5)
        assert computed[f"kurtosis_{n}"][at] == pytest.approx(
            stats.kurtosis(window(R, at, n)), rel=1e-5, abs=1e-6
        )


@pytest.mark.parametrize("at", AT)
def test_fluctuation_and_hurst_equal_their_definitions(computed: pl.DataFrame, at: int) -> None:
    x = window(R, at, 128)
    walk = np.cumsum(x - x.mean())
    sizes = [4, 8, 16, 32]
    left = []
    for size in sizes:
        boxes = walk.reshape(-1, size)
        left.append(
            math.sqrt(
                np.mean(
                    [
                        np.mean((b - np.polyval(np.polyfit(range(size), b, 1), range(size))) ** 2)
                        for b in boxes
                    ]
                )
            )
        )
    assert computed["fluctuation_exponent_128"][at] == pytest.approx(
        np.polyfit(np.log(sizes), np.log(left), 1)[0], rel=1e-4
    )
    log_close = window(np.log(CLOSE), at, 128)
    lags = [1, 2, 4, 8, 16]
    moves = [np.abs(log_close[k:] - log_close[:-k]).mean() for k in lags]
    assert computed["hurst_128"][at] == pytest.approx(np.polyfit(np.log(lags), np.log(moves), 1)[0], rel=1e-4)
    ranges = []
    for size in (8, 16, 32, 64, 128):
        boxes = x.reshape(-1, size)
        devs = np.cumsum(boxes - boxes.mean(axis=1, keepdims=True), axis=1)
        ranges.append(
            ((np.maximum(devs.max(axis=1), 0) - np.minimum(devs.min(axis=1), 0)) / boxes.std(axis=1)).mean()
        )
    assert computed["hurst_rescaled_128"][at] == pytest.approx(
        np.polyfit(np.log([8, 16, 32, 64, 128]), np.log(ranges), 1)[0], rel=1e-4
    )


def test_hurst_tells_trending_from_reverting_series() -> None:
    random = np.random.default_rng(0)
    base = make_bars(1, 600, seed=1)
    out = {}
    for name, weight in (("trending", 0.8), ("reverting", -0.8)):
        steps = np.zeros(600)
        for k in range(1, 600):
            steps[k] = weight * steps[k - 1] + random.normal(0, 0.003)
        close = 100 * np.exp(np.cumsum(steps))
        frame = base.with_columns(
            open=pl.Series(close),
            high=pl.Series(close * 1.001),
            low=pl.Series(close * 0.999),
            close=pl.Series(close),
        )
        out[name] = compute(frame, interval="5m", calendar=Calendar.of("24/7"))["hurst_128"].mean()
    assert out["trending"] > 0.6
    assert out["reverting"] < 0.4


def test_garch_variance_equals_arch_with_the_same_parameters(computed: pl.DataFrame) -> None:
    """arch's filter, restarted at each bar's target, is the reference: 0.05 x variance over 100 bars is the
    constant."""
    level = pl.Series(R).rolling_var(100, ddof=0).to_numpy()
    variance = np.full(len(R), np.nan)
    for t in range(100, len(R)):
        before = variance[t - 1] if t > 100 else level[t]
        variance[t] = 0.05 * level[t] + 0.1 * R[t] ** 2 + 0.85 * before
    ours = computed["garch_volatility"].to_numpy()
    known = np.isfinite(ours)
    np.testing.assert_allclose(ours[known], np.sqrt(variance[known]), rtol=1e-4)

    from arch.univariate import GARCH, ZeroMean

    returns = 100 * R[1:]
    constant = 0.05 * returns.var()
    model = ZeroMean(returns, volatility=GARCH())
    theirs = model.fix([constant, 0.1, 0.85]).conditional_volatility / 100
    correlation = np.corrcoef(ours[200:-1], theirs[200:])[0, 1]  # ours at t is arch's for t + 1
    assert correlation > 0.97

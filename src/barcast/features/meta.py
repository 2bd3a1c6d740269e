"""B7: interactions, moments, entropies, mutual information, wavelets, Hurst exponents, fractal dimensions.

All of log returns or log closes over a bounded window, so that neither the price level nor history's start matters.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.kernels import TINY, clip, mean, r_squared, sum_squares, zscore
from barcast.features.meta_kernels import (
    binned_entropy,
    fluctuation_exponent,
    haar_energies,
    higuchi,
    hjorth,
    katz,
    lempel_ziv,
    mutual_information,
    permutation_entropy,
    petrosian,
    rescaled_range,
    sample_entropy,
    scaling_exponent,
    spectral_entropy,
)
from barcast.features.series import LC, M20, RSI, RVOL, VOL20, C, R
from barcast.features.spec import Category
from barcast.features.warmup import wilder_bars

meta = Category("meta")

_CROSS = "polynomial and interaction terms, Hastie, Tibshirani and Friedman (2009)"
_MOMENTS = "Tsay, Analysis of Financial Time Series (2010)"
_WAVELET = "Percival and Walden, Wavelet Methods for Time Series Analysis (2000)"


@meta.group(
    ("rsi_volume_interaction", "(RSI 14 - 50) / 50 x relative volume (at most 5)", wilder_bars(14), "scaled", _CROSS),
    ("return_volume_interaction", "log return in 20-bar deviations x relative volume (at most 5), within +-25; 0 where constant", 21, "scaled", _CROSS),
    ("signed_squared_return", "squared log return in 20-bar deviations with the return's sign, within +-25; 0 where constant", 21, "deviations squared", _CROSS),
    ("trend_quality_interaction", "20-bar log return in its deviations x share of variance that the 20-bar line explains", 21, "scaled", _CROSS),
    ("reversal_interaction", "log return in 20-bar deviations x close in 50-bar deviations, within +-25; 0 where constant", 50, "scaled", _CROSS),
    ("momentum_volatility_interaction", "20-bar log return in its deviations x log of 20-bar volatility by its 50-bar mean, within +-10", 70, "scaled", _CROSS),
    ("skewness_50", "skewness of log returns over 50 bars; 0 where constant", 51, "moment", _MOMENTS),
    ("skewness_100", "skewness of log returns over 100 bars; 0 where constant", 101, "moment", _MOMENTS),
    ("kurtosis_50", "excess kurtosis of log returns over 50 bars; 0 where constant", 51, "moment", _MOMENTS),
    ("kurtosis_100", "excess kurtosis of log returns over 100 bars; 0 where constant", 101, "moment", _MOMENTS),
)  # fmt: skip
def interactions(x, t, n, s, out):
    if n < 21:
        return
    sd = x[VOL20, t]
    z = x[R, t] / sd if sd > TINY else 0.0
    trend = x[M20, t] / (sd * math.sqrt(20.0)) if sd > TINY else 0.0
    volume = min(x[RVOL, t], 5.0)
    out[0] = (x[RSI, t] - 50.0) / 50.0 * volume
    out[1] = clip(z * volume, -25.0, 25.0)
    out[2] = clip(z * abs(z), -25.0, 25.0)
    out[3] = clip(trend, -10.0, 10.0) * r_squared(x, LC, t, 20)
    if n >= 50:
        out[4] = clip(z * zscore(x, C, t, 50, x[C, t]), -25.0, 25.0)
    if n >= 70:
        m = mean(x, VOL20, t, 50)
        out[5] = clip(trend * math.log(sd / m), -10.0, 10.0) if sd > TINY and m > TINY else 0.0
    for k, w in enumerate((50, 100)):
        if n > w:
            m = mean(x, R, t, w)
            v = sum_squares(x, R, t, w, m) / w
            third = fourth = 0.0
            for i in range(t - w + 1, t + 1):
                d = x[R, i] - m
                third += d * d * d
                fourth += d * d * d * d
            out[6 + k] = third / w / (v * math.sqrt(v)) if v > 1e-20 else 0.0
            out[8 + k] = fourth / w / (v * v) - 3.0 if v > 1e-20 else 0.0


@meta.group(
    ("permutation_entropy_60", "entropy of the orders of three neighbouring closes over 60 bars, as a share of the greatest", 61, "share", "Bandt and Pompe, Physical Review Letters 88 (2002)"),
    ("sample_entropy_48", "sample entropy (2, 0.2) of log returns over 48 bars; 0 where constant", 49, "nats", "Richman and Moorman, American Journal of Physiology 278 (2000)"),
    ("shannon_entropy_100", "entropy of log returns over 100 bars in eight bins of half a deviation, as a share of the greatest", 102, "share", "Shannon, Bell System Technical Journal 27 (1948)"),
    ("spectral_entropy_64", "entropy of the periodogram of 64 log returns, as a share of the greatest; 0 where constant", 65, "share", "Inouye et al., Electroencephalography 79 (1991)"),
    ("quick_power_64", "share of the periodogram's power at periods up to 8 bars; 0.5 where constant", 65, "share", "Inouye et al. (1991)"),
    ("mutual_information_lag_1", "mutual information over 100 bars of the log return with the one before, in thirds", 102, "nats", "Fraser and Swinney, Physical Review A 33 (1986)"),
    ("mutual_information_volume", "mutual information over 100 bars of the log return with relative volume, in thirds", 120, "nats", "Fraser and Swinney (1986)"),
    ("lempel_ziv_60", "Lempel-Ziv complexity of rising against other bars over 60, by 60 / log2 60", 61, "ratio", "Lempel and Ziv, IEEE Transactions on Information Theory 22 (1976)"),
    ("hjorth_mobility_60", "deviation of the change of the log return by that of the log return over 60 bars", 61, "ratio", "Hjorth, Electroencephalography 29 (1970)"),
    ("hjorth_complexity_60", "mobility of the change of the log return by the mobility of the log return", 61, "ratio", "Hjorth (1970)"),
)  # fmt: skip
def information(x, t, n, s, out):
    if n >= 49:
        out[1] = sample_entropy(x, R, t, 48)
    if n >= 61:
        out[0] = permutation_entropy(x, C, t, 60)
        out[7] = lempel_ziv(x, R, t, 60)
        hjorth(x, R, t, 60, out[8:10])
    if n >= 65:
        spectral_entropy(x, R, t, out[3:5])
    if n >= 102:
        out[2] = binned_entropy(x, R, t, 100)
        out[5] = mutual_information(x, R, R, t, 100, 1)
    if n >= 120:
        out[6] = mutual_information(x, R, RVOL, t, 100, 0)


@meta.group(
    ("wavelet_energy_1", "share of the energy of 64 log returns in the Haar details of 2 bars; 0.2 where constant", 65, "share", _WAVELET),
    ("wavelet_energy_2", "the same for 4 bars", 65, "share", _WAVELET),
    ("wavelet_energy_3", "the same for 8 bars", 65, "share", _WAVELET),
    ("wavelet_energy_4", "the same for 16 bars", 65, "share", _WAVELET),
    ("wavelet_energy_rest", "the same for all longer scales", 65, "share", _WAVELET),
    ("wavelet_entropy_64", "entropy of these five shares, as a share of log 5", 65, "share", "Rosso et al., Journal of Neuroscience Methods 105 (2001)"),
    ("hurst_128", "slope of the log mean absolute change of the log close over 1 to 16 bars, in 128 bars; 0.5 where constant", 128, "exponent", "Di Matteo, Quantitative Finance 7 (2007)"),
    ("hurst_rescaled_128", "rescaled range exponent of 128 log returns over blocks of 8 to 128; 0.5 where constant", 129, "exponent", "Hurst, Transactions of the ASCE 116 (1951)"),
    ("fluctuation_exponent_128", "detrended fluctuation exponent of 128 log returns over boxes of 4 to 32; 0.5 where constant", 129, "exponent", "Peng et al., Physical Review E 49 (1994)"),
    ("higuchi_dimension_60", "Higuchi's fractal dimension of the log close over 60 bars (steps 1 to 6); 1 where constant", 60, "dimension", "Higuchi, Physica D 31 (1988)"),
    ("katz_dimension_60", "Katz's fractal dimension of the log close over 60 bars, at most 10; 1 where constant", 60, "dimension", "Katz, Computers in Biology and Medicine 18 (1988)"),
    ("petrosian_dimension_60", "Petrosian's fractal dimension of the log close over 60 bars", 60, "dimension", "Petrosian, IEEE Symposium on Computer-Based Medical Systems (1995)"),
)  # fmt: skip
def fractals(x, t, n, s, out):
    if n >= 60:
        out[9] = higuchi(x, LC, t, 60)
        out[10] = katz(x, LC, t, 60)
        out[11] = petrosian(x, LC, t, 60)
    if n >= 65:
        haar_energies(x, R, t, out[0:6])
    if n >= 128:
        out[6] = scaling_exponent(x, LC, t)
    if n >= 129:
        out[7] = rescaled_range(x, R, t)
        out[8] = fluctuation_exponent(x, R, t)

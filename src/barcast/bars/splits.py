"""Corporate actions. Price and volume factors from a provider's adjusted close, and live splits.

`price_factor` = adjusted close / close: it holds splits and dividends. Volume must follow splits only, so
splits are told from dividends: a split multiplies the price factor by a ratio of small whole numbers of at
least 5:4 (or at most 4:5) from one bar to the next, and the price as traded jumps by about the same ratio at
that bar's open.
"""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction

import polars as pl

from barcast.errors import DataError

# Ratios that companies use; a special dividend (MSFT 2004: factor 1.11) must fall outside all of them.
_WHOLE = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50)
_RATIOS = sorted(
    {Fraction(n) for n in _WHOLE}
    | {Fraction(1, n) for n in _WHOLE}
    | {Fraction(3, 2), Fraction(5, 4), Fraction(4, 3), Fraction(5, 3), Fraction(5, 2), Fraction(7, 2)}
    | {Fraction(2, 3), Fraction(4, 5), Fraction(3, 4), Fraction(2, 5)}
)
_FACTOR_TOLERANCE = 0.02  # a dividend on the day of the split shifts the factor a little
_PRICE_TOLERANCE = 0.25  # overnight move allowed between the last close and the open after the split


def detect(price_factor: pl.Series, open_: pl.Series, close: pl.Series) -> pl.Series:
    """Split ratio at each bar of ONE symbol in time order: 2.0 at the first bar after a 2:1, else 1.0."""
    ratios = []
    change = (price_factor / price_factor.shift(1)).to_list()
    jump = (close.shift(1) / open_).to_list()
    for factor, price in zip(change, jump, strict=True):
        ratios.append(1.0 if factor is None or price is None else _ratio(factor, price))
    return pl.Series("split_ratio", ratios, dtype=pl.Float64)


def _ratio(factor: float, price: float) -> float:
    nearest = min((float(r) for r in _RATIOS), key=lambda r: abs(factor / r - 1))
    is_split = abs(factor / nearest - 1) <= _FACTOR_TOLERANCE and abs(price / nearest - 1) <= _PRICE_TOLERANCE
    return nearest if is_split else 1.0


def with_factors(frame: pl.DataFrame) -> pl.DataFrame:
    """Add price_factor and volume_factor to bars that have an `adjusted_close`.

    Args:
        frame: symbol, event_timestamp, open, close, adjusted_close.

    Returns:
        the frame sorted by symbol and time, without adjusted_close. volume_factor is the product of the split
        ratios that come after the bar, so it is 1 at the last bar.
    """
    frame = frame.sort("symbol", "event_timestamp").with_columns(
        price_factor=pl.col("adjusted_close") / pl.col("close")
    )
    parts = []
    for _, group in frame.group_by("symbol", maintain_order=True):
        ratio = detect(group["price_factor"], group["open"], group["close"])
        later = ratio.shift(-1, fill_value=1.0).cum_prod(reverse=True)
        parts.append(group.with_columns(volume_factor=later))
    joined = pl.concat(parts) if parts else frame.with_columns(volume_factor=pl.lit(1.0))
    return joined.drop("adjusted_close")


def restate(
    bars: pl.DataFrame, *, symbol: str, split_ratio: float, effective: datetime, known_at: datetime
) -> pl.DataFrame:
    """Corrections of `symbol`'s history for a split that has just become effective.

    Bars that closed before `effective` get price_factor / ratio and volume_factor × ratio, known since
    `known_at`; append them to the store, which records the change. Prices as traded do not change.

    Raises:
        DataError: the ratio is not a positive number other than 1, or there is no earlier bar.
    """
    if not split_ratio > 0 or split_ratio == 1:
        raise DataError(
            f"Split ratio {split_ratio} of {symbol} is no split.", hint="2.0 means two new shares for one."
        )
    earlier = bars.filter((pl.col("symbol") == symbol) & (pl.col("event_timestamp") < effective))
    if earlier.height == 0:
        raise DataError(
            f"{symbol} has no bar before {effective}; nothing to restate.", hint="Check symbol and time."
        )
    return earlier.with_columns(
        price_factor=pl.col("price_factor") / split_ratio,
        volume_factor=pl.col("volume_factor") * split_ratio,
        created_timestamp=pl.lit(known_at, dtype=bars.schema["created_timestamp"]),
    )

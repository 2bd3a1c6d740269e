"""Market regimes known at each bar, without the network: bull, bear, sideways; volatility low, medium, high.

Adjusted bars go in, one row a bar comes out. Everything is causal: row t reads bars up to t. The same codes
are used by the network's heads, by report slices and by predictions. `known` takes them from the regime features where
the generation has these, so that features, heads and slices speak of one regime.
"""

from __future__ import annotations

import polars as pl

REGIMES = ("bull", "bear", "sideways")
VOLATILITY_REGIMES = ("low", "medium", "high")
# Features (category B5) that state the same, in the order of the codes.
FLAGS = {
    "regime": tuple(f"trend_regime_{name}" for name in REGIMES),
    "volatility_regime": tuple(f"volatility_regime_{name}" for name in VOLATILITY_REGIMES),
}
SCORE = "trend_score_50"


def known(bars: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """Regimes as the features state them, else by `rules`; columns and nulls as there.

    Args:
        bars: adjusted bars.
        features: frame "Features" of the same bars.
    """
    if not {SCORE, *FLAGS["regime"], *FLAGS["volatility_regime"]} <= set(features.columns):
        return rules(bars)

    def code(name: str) -> pl.Expr:
        flags = [pl.when(pl.col(flag) == 1).then(i) for i, flag in enumerate(FLAGS[name])]
        return pl.coalesce(flags).cast(pl.Int8).alias(name)

    strength = (pl.col(SCORE).abs() / 3).clip(0, 1).cast(pl.Float64).alias("trend_strength")
    return features.select("symbol", "event_timestamp", code("regime"), code("volatility_regime"), strength)


def rules(
    bars: pl.DataFrame,
    *,
    trend_bars: int = 60,
    trend_limit: float = 0.7,
    volatility_span_bars: int = 20,
    reference_bars: int = 500,
) -> pl.DataFrame:
    """Regimes by fixed rules.

    The trend score is the log return over `trend_bars` divided by its own standard deviation, were returns
    independent; beyond ± `trend_limit` it is bull or bear. Volatility (exponentially weighted) is compared
    with its own terciles over the last `reference_bars`.

    Returns:
        `symbol, event_timestamp, regime` Int8 (position in REGIMES), `volatility_regime` Int8 (position in
        VOLATILITY_REGIMES), `trend_strength` in [0, 1]; null until known.
    """
    log_return = pl.col("close").log().diff().over("symbol")
    volatility = log_return.pow(2).ewm_mean(span=volatility_span_bars).sqrt().over("symbol")
    frame = bars.sort("symbol", "event_timestamp").with_columns(
        log_return.alias("_r"), volatility.alias("_v")
    )
    move = pl.col("_r").rolling_sum(trend_bars).over("symbol")
    spread = pl.col("_r").rolling_std(trend_bars).over("symbol") * trend_bars**0.5
    score = pl.when(spread > 0).then(move / spread)

    def reference(share: float) -> pl.Expr:
        return pl.col("_v").rolling_quantile(share, window_size=reference_bars, min_samples=60).over("symbol")

    trend = pl.when(score > trend_limit).then(0).when(score < -trend_limit).then(1).otherwise(2)
    tercile = (
        pl.when(pl.col("_v") < reference(1 / 3))
        .then(0)
        .when(pl.col("_v") > reference(2 / 3))
        .then(2)
        .otherwise(1)
    )
    return frame.select(
        "symbol",
        "event_timestamp",
        pl.when(score.is_not_null()).then(trend).cast(pl.Int8).alias("regime"),
        pl.when(reference(0.5).is_not_null()).then(tercile).cast(pl.Int8).alias("volatility_regime"),
        (score.abs() / 3).clip(0, 1).alias("trend_strength"),
    )

"""Small worlds with a known truth: bars, and predictions whose skill is chosen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(
    num_symbols: int = 3, num_bars: int = 400, *, step: timedelta = timedelta(hours=1), seed: int = 0
) -> pl.DataFrame:
    """Correlated random walks; open differs from the previous close."""
    rng = np.random.default_rng(seed)
    market = rng.normal(0, 0.006, num_bars)
    parts = []
    for k in range(num_symbols):
        close = 100 * (k + 1) * np.exp(np.cumsum(0.7 * market + rng.normal(0, 0.006, num_bars)))
        open_ = np.roll(close, 1) * np.exp(rng.normal(0, 0.001, num_bars))
        open_[0] = close[0]
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [f"S{k}"] * num_bars,
                    "event_timestamp": [START + step * (i + 1) for i in range(num_bars)],
                    "open": open_,
                    "high": np.maximum(open_, close) * 1.001,
                    "low": np.minimum(open_, close) * 0.999,
                    "close": close,
                    "volume": rng.uniform(1e3, 2e3, num_bars),
                    "price_factor": np.ones(num_bars),
                    "volume_factor": np.ones(num_bars),
                }
            ).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
        )
    return pl.concat(parts)


def labelled(frame: pl.DataFrame, *, horizon_bars: int = 4, band: float = 0.5) -> pl.DataFrame:
    """Label rows of the bars frame: entry at the next bar's open, exit `horizon_bars` opens later."""
    return (
        frame.with_columns(
            (pl.col("open").shift(-1 - horizon_bars) / pl.col("open").shift(-1))
            .log()
            .over("symbol")
            .alias("forward_log_return"),
            pl.col("event_timestamp").shift(-1 - horizon_bars).over("symbol").alias("label_end_timestamp"),
            (pl.col("close").log().diff().rolling_std(20).over("symbol") * horizon_bars**0.5).alias(
                "volatility"
            ),
        )
        .drop_nulls(["forward_log_return", "volatility"])
        .with_columns((pl.col("forward_log_return") / pl.col("volatility")).alias("z"))
        .with_columns(
            pl.when(pl.col("z") > band)
            .then(2)
            .when(pl.col("z") < -band)
            .then(0)
            .otherwise(1)
            .cast(pl.Int8)
            .alias("label")
        )
        .select(
            "symbol", "event_timestamp", "label_end_timestamp", "forward_log_return", "volatility", "label"
        )
    )


def predictions(
    labels: pl.DataFrame, *, skill: float = 0.0, seed: int = 0, name: str = "network", sharpness: float = 0.6
) -> pl.DataFrame:
    """Predictions whose direction score is `skill` x the standardised outcome plus noise; 0 knows nothing."""
    rng = np.random.default_rng(seed)
    z = (labels["forward_log_return"] / labels["volatility"]).to_numpy()
    lean = skill * z + np.sqrt(max(0.0, 1 - skill**2)) * rng.normal(size=labels.height)
    logits = np.stack([-sharpness * lean, rng.normal(0, 0.2, labels.height), sharpness * lean], axis=1)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    regimes = np.array(["bear", "sideways", "bull"])
    return labels.with_columns(
        pl.lit(name).alias("model"),
        pl.lit(0, dtype=pl.Int32).alias("fold"),
        pl.Series("p_sell", p[:, 0]),
        pl.Series("p_hold", p[:, 1]),
        pl.Series("p_buy", p[:, 2]),
        pl.Series("confidence", p.max(axis=1)),
        pl.lit(0.05).alias("uncertainty"),
        pl.Series("expected_return", 0.01 * lean),
        pl.col("volatility").alias("expected_volatility"),
        pl.lit(1.0).alias("position_size"),
        pl.Series("regime", regimes[np.digitize(np.sin(np.arange(labels.height) / 40), [-0.3, 0.3])]),
        pl.Series(
            "volatility_regime", np.array(["low", "medium", "high"])[rng.integers(0, 3, labels.height)]
        ),
    )

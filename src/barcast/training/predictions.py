"""Answers of a model as the frame "Predictions" that evaluation and the gate read, one row a decision."""

from __future__ import annotations

import numpy as np
import polars as pl

from barcast.models.regime import REGIMES, VOLATILITY_REGIMES

_KNOWN = (
    ("label_end_timestamp", pl.Datetime("us", "UTC")),
    ("forward_log_return", pl.Float64),
    ("volatility", pl.Float64),
)


def predictions_frame(
    rows: pl.DataFrame, found: dict[str, np.ndarray], label: np.ndarray, *, fold: int, name: str
) -> pl.DataFrame:
    """Frame "Predictions" from answers; regimes are those known at t where the rows have them."""
    p = found["probabilities"].astype(np.float64)

    def named(column: str, names: tuple[str, ...]) -> pl.Series:
        answered = pl.Series(column, found[column].argmax(axis=1).astype(np.int8))
        codes = rows[column].fill_null(answered) if column in rows.columns else answered
        return codes.replace_strict(list(range(len(names))), list(names), return_dtype=pl.Utf8).alias(column)

    scalars = ("confidence", "uncertainty", "expected_return", "expected_volatility", "position_size")
    known = {c: rows[c] if c in rows.columns else pl.Series([None] * rows.height, dtype=d) for c, d in _KNOWN}
    return pl.DataFrame(
        {
            "symbol": rows["symbol"],
            "event_timestamp": rows["event_timestamp"],
            "label_end_timestamp": known["label_end_timestamp"],
            "model": pl.Series([name] * rows.height, dtype=pl.Utf8),
            "fold": pl.Series([fold] * rows.height, dtype=pl.Int32),
            "p_sell": p[:, 0],
            "p_hold": p[:, 1],
            "p_buy": p[:, 2],
            **{scalar: found[scalar].astype(np.float64) for scalar in scalars},
            "label": pl.Series([None if v < 0 else int(v) for v in label], dtype=pl.Int8),
            "forward_log_return": known["forward_log_return"],
            "volatility": known["volatility"],
            "regime": named("regime", REGIMES),
            "volatility_regime": named("volatility_regime", VOLATILITY_REGIMES),
        }
    )

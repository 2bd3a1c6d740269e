"""What an evaluation gives: the numbers and tables of several models on the same rows.

Filled by `evaluate.evaluate`; read by the report, the reliability index and the registry's metadata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig
from barcast.evaluation.backtest import BacktestResult


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        models: names, the first is the candidate, baselines last.
        rows: per model the checked predictions frame; all hold the same bars.
        metrics: per model {"ml", "financial", "learning"} -> {name: number}; NaN where undefined.
        intervals: per model {name: (low, high)} 95% from blocks of calendar time: accuracy, log_loss,
            net_bps_per_row, sharpe.
        backtests: per model.
        tables: per model {"bands", "thresholds", "side_thresholds", "coverage", "cost_curve", "capacity",
            "by_period", "by_regime", "by_symbol", "reliability"}.
        confusion: per model (3, 3) counts, rows = what happened.
        window: first and last bar decided on.
        dropped_rows: rows of any model that not all models had.
    """

    models: tuple[str, ...]
    rows: dict[str, pl.DataFrame]
    metrics: dict[str, dict[str, dict[str, float]]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    backtests: dict[str, BacktestResult]
    tables: dict[str, dict[str, pl.DataFrame]]
    confusion: dict[str, np.ndarray]
    window: tuple[datetime, datetime]
    horizon_bars: int
    bars_per_year: float
    block_days: float
    costs: CostsConfig
    dropped_rows: int = 0
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def candidate(self) -> str:
        """The model the report is about."""
        return self.models[0]

    def flat_metrics(self, model: str | None = None) -> dict[str, float]:
        """All defined numbers of a model as one mapping, for MLflow: "ml_accuracy", "financial_sharpe",
        ...
        """
        name = model or self.candidate
        return {
            f"{kind}_{key}": float(value)
            for kind, numbers in self.metrics[name].items()
            for key, value in numbers.items()
            if math.isfinite(value)
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary; undefined numbers are None."""

        def clean(value: float) -> float | None:
            return float(value) if math.isfinite(value) else None

        return {
            "models": list(self.models),
            "window": [t.isoformat() for t in self.window],
            "rows": self.rows[self.candidate].height,
            "dropped_rows": self.dropped_rows,
            "horizon_bars": self.horizon_bars,
            "block_days": self.block_days,
            "metrics": {
                m: {k: {n: clean(v) for n, v in values.items()} for k, values in kinds.items()}
                for m, kinds in self.metrics.items()
            },
            "intervals": {
                m: {n: [clean(low), clean(high)] for n, (low, high) in values.items()}
                for m, values in self.intervals.items()
            },
            "confusion": {m: c.tolist() for m, c in self.confusion.items()},
            "notes": list(self.notes),
        }

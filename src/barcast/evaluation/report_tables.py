"""The report's tables: which figures, in which words and units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from barcast.evaluation.results import Evaluation
from barcast.evaluation.words import day, number

# (group, (kind, metric, words, unit, which way is better: 1 more, -1 less, 0 neither))
_COMPARED: tuple[tuple[str, tuple[tuple[str, str, str, str, int], ...]], ...] = (
    (
        "Forecast",
        (
            ("ml", "accuracy", "Right answers", "percent", 1),
            ("ml", "balanced_accuracy", "Balanced accuracy", "percent", 1),
            ("ml", "f1_macro", "F1, mean of classes", "number", 1),
            ("ml", "mcc", "Matthews correlation", "number", 1),
            ("ml", "cohen_kappa", "Cohen's kappa", "number", 1),
            ("ml", "auc_roc_macro", "AUC-ROC", "number", 1),
            ("ml", "auc_pr_macro", "AUC-PR", "number", 1),
            ("ml", "rank_ic", "Rank correlation with the return", "number", 1),
            ("ml", "hit_rate", "Right side when acting", "percent", 1),
            ("ml", "acted_share", "Share of BUY and SELL", "percent", 0),
        ),
    ),
    (
        "Probabilities",
        (
            ("ml", "log_loss", "Log loss", "number", -1),
            ("ml", "brier", "Brier score", "number", -1),
            ("ml", "ece", "Calibration error", "percent", -1),
        ),
    ),
    (
        "Account after costs",
        (
            ("financial", "total_return", "Total return", "percent", 1),
            ("financial", "annual_return", "Return a year", "percent", 1),
            ("financial", "excess_annual_return", "Above buy-and-hold, a year", "percent", 1),
            ("financial", "annual_volatility", "Volatility a year", "percent", 0),
            ("financial", "sharpe", "Sharpe", "ratio", 1),
            ("financial", "sortino", "Sortino", "ratio", 1),
            ("financial", "calmar", "Calmar", "ratio", 1),
            ("financial", "information_ratio", "Information ratio", "ratio", 1),
            ("financial", "max_drawdown", "Deepest fall", "percent", 1),
            ("financial", "value_at_risk", "Value at risk, a bar", "fine_percent", 1),
            ("financial", "expected_shortfall", "Expected shortfall, a bar", "fine_percent", 1),
            ("financial", "stability", "Stability (R² of growth)", "ratio", 1),
            ("financial", "skewness", "Skewness", "ratio", 0),
            ("financial", "kurtosis", "Excess kurtosis", "ratio", 0),
        ),
    ),
    (
        "Trades",
        (
            ("financial", "trades", "Round trips", "count", 0),
            ("financial", "win_rate", "Won", "percent", 1),
            ("financial", "profit_factor", "Profit factor", "ratio", 1),
            ("financial", "average_win", "Average win", "fine_percent", 0),
            ("financial", "average_loss", "Average loss", "fine_percent", 0),
            ("financial", "average_trade_bps", "Average trade, bps", "bps", 1),
            ("financial", "trade_duration_bars", "Bars held", "ratio", 0),
            ("financial", "turnover_per_year", "Turnover a year, times equity", "count", 0),
            ("financial", "break_even_bps", "Break-even cost, bps one way", "bps", 1),
        ),
    ),
    (
        "Over time",
        (
            ("learning", "profit_weighted_accuracy", "Right answers weighted by the move", "percent", 1),
            ("learning", "accuracy_spread", "Best minus worst period", "percent", -1),
            ("learning", "regime_gap", "Best minus worst regime", "percent", -1),
            ("learning", "reaction_bars", "Bars to recover after a regime change", "ratio", -1),
        ),
    ),
)

_COLUMNS: dict[str, tuple[str, str]] = {
    "answer": ("answer", "text"),
    "low": ("from", "ratio"),
    "high": ("to", "ratio"),
    "rows": ("rows", "count"),
    "share": ("share", "percent"),
    "confidence": ("stated", "percent"),
    "accuracy": ("right", "percent"),
    "hit_rate": ("right side", "percent"),
    "gross_bps": ("gross bps", "bps"),
    "net_bps": ("net bps", "bps"),
    "net_bps_netted": ("net bps, trades netted", "bps"),
    "threshold": ("confidence from", "number"),
    "side_threshold": ("side confidence from", "percent"),
    "acted_share": ("acted", "percent"),
    "cost_bps": ("one-way bps", "ratio"),
    "total_return": ("total", "percent"),
    "annual_return": ("a year", "percent"),
    "sharpe": ("Sharpe", "ratio"),
    "symbol": ("symbol", "text"),
    "horizon_bars": ("held, bars", "count"),
    "acted_rows": ("acted rows", "count"),
    "break_even_bps": ("break-even bps", "bps"),
    "capital_cap": ("capital cap", "money"),
    "capital_break_even": ("capital at break-even", "money"),
    "regime": ("regime", "text"),
    "log_loss": ("log loss", "number"),
    "mcc": ("MCC", "number"),
    "skill": ("skill", "percent"),
    "ece": ("calibration error", "percent"),
    "rank_ic": ("rank corr.", "number"),
    "net_bps_per_row": ("net bps", "bps"),
    "overconfidence": ("overconfidence", "percent"),
    "profit_weighted_accuracy": ("right, weighted", "percent"),
    "slice": ("slice", "text"),
    "accuracy_change": ("change", "percent"),
    "judgement": ("judgement", "text"),
    "trained_model": ("model", "text"),
    "parameters": ("parameters", "count"),
    "training_seconds": ("trained in, s", "ratio"),
    "epochs": ("epochs", "count"),
    "best_epoch": ("best epoch", "count"),
    "latency_ms_p50": ("an answer, median ms", "ratio"),
    "latency_ms_p95": ("95% within, ms", "ratio"),
    "size_mib": ("files, MiB", "ratio"),
    "auc": ("AUC", "number"),
    "linear_log_loss": ("linear", "number"),
    "universal_log_loss": ("universal", "number"),
    "ensemble_log_loss": ("ensemble", "number"),
    "own_log_loss": ("own, by transfer", "number"),
    "champion_log_loss": ("own champion", "number"),
    "best": ("least", "text"),
}


@dataclass(frozen=True)
class Table:
    """Words ready to print."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> list[str]:
        """Lines of a Markdown table."""
        lines = ["| " + " | ".join(self.head) + " |", "|---|" + "---:|" * (len(self.head) - 1)]
        return lines + ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in self.rows]


def of_frame(frame: pl.DataFrame, columns: list[str] | None = None) -> Table:
    """The known columns of a frame in the report's words and units."""
    names = [c for c in (columns or frame.columns) if c in _COLUMNS]

    def cell(value: Any, kind: str) -> str:
        if kind == "text" or isinstance(value, str):
            return "–" if value is None else str(value)
        if hasattr(value, "strftime"):
            return day(value)
        return number(None if value is None else float(value), kind)

    return Table(
        tuple(_COLUMNS[c][0] for c in names),
        tuple(tuple(cell(row[c], _COLUMNS[c][1]) for c in names) for row in frame.iter_rows(named=True)),
    )


def tables(
    evaluation: Evaluation,
    slices: pl.DataFrame | None,
    operational: pl.DataFrame | None = None,
    ladder: pl.DataFrame | None = None,
) -> dict[str, Table]:
    """The candidate's tables by name."""
    own = evaluation.tables[evaluation.candidate]
    names = ("bands", "thresholds", "cost_curve", "capacity", "by_symbol")
    out = {name: of_frame(own[name]) for name in names}
    out["by_regime"] = of_frame(
        own["by_regime"].with_columns(
            pl.when(pl.col("kind") == "volatility_regime")
            .then(pl.format("volatility {}", "regime"))
            .otherwise("regime")
            .alias("regime")
        )
    )
    out["side_thresholds"] = of_frame(
        own["side_thresholds"].rename({"threshold": "side_threshold", "accuracy": "hit_rate"})
    )
    if slices is not None and slices.height:
        out["slices"] = of_frame(slices)
    if operational is not None and operational.height:
        out["operational"] = of_frame(operational)
    if ladder is not None and ladder.height:
        out["ladder"] = of_frame(ladder)
    return out


def comparison(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Groups of rows; each cell has its text and whether it is the best of its row."""
    out = []
    for title, metrics in _COMPARED:
        rows = []
        for kind, metric, label, unit, better in metrics:
            values = [evaluation.metrics[m][kind].get(metric, math.nan) for m in evaluation.models]
            known = [v * better for v in values if better and math.isfinite(v)]
            top = max(known) if len(known) > 1 and max(known) > min(known) else None
            rows.append(
                {
                    "name": label,
                    "cells": [
                        {"text": number(v, unit), "best": top is not None and v * better == top}
                        for v in values
                    ],
                }
            )
        out.append({"name": title, "rows": rows})
    return out

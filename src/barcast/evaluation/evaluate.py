"""One call that measures several models on the same rows: everything the report shows and the registry keeps.

Predictions of each model on the evaluation window and the bars in; `Evaluation` (numbers, tables, backtests)
out to `report.render`, the registry's metadata and the reliability index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig, EvaluationConfig
from barcast.decisions.confidence import threshold_table
from barcast.errors import RefusedError
from barcast.evaluation import (
    backtest,
    baselines,
    bootstrap,
    capacity,
    confidence,
    frames,
    metrics_financial,
    metrics_learning,
    metrics_ml,
)
from barcast.evaluation.backtest import BacktestResult
from barcast.evaluation.results import Evaluation

__all__ = ["Evaluation", "by_symbol", "common_rows", "evaluate", "of_model"]


def evaluate(
    predictions_by_model: Mapping[str, pl.DataFrame],
    bars_adjusted: pl.DataFrame,
    config: EvaluationConfig | None = None,
    *,
    costs: CostsConfig | None = None,
    horizon_bars: int,
    bars_per_year: float,
    history_labels: pl.DataFrame | None = None,
) -> Evaluation:
    """Measure every model, and the baselines that need no training, on the bars that all of them scored.

    Args:
        predictions_by_model: name -> predictions frame; the first is the candidate. `persistence` and
            `buy_and_hold` are added where absent.
        bars_adjusted: bars of the window with adjusted prices.
        horizon_bars: the labels' horizon.
        bars_per_year: of the calendar and interval (`Calendar.bars_per_year`).
        history_labels: symbol, label_end_timestamp, label of earlier rows, for persistence and the class
            prior.

    Raises:
        DataError: a frame that `frames.check` refuses.
        RefusedError: no model given, or the models have no row in common, or their labels differ.
    """
    config = config or EvaluationConfig()
    costs = costs or CostsConfig()
    if not predictions_by_model:
        raise RefusedError("There is no model to evaluate.", hint="Pass at least one predictions frame.")
    checked = {name: frames.check(f, name=name) for name, f in predictions_by_model.items()}
    rows, dropped = common_rows(checked)
    first = next(iter(rows.values()))
    prior = None
    if history_labels is not None:
        prior = baselines.class_prior(history_labels["label"].drop_nulls().to_numpy())
    if baselines.PERSISTENCE not in rows:
        joined = first if history_labels is None else _with_history(first, history_labels)
        rows[baselines.PERSISTENCE] = baselines.persistence(first, labels=joined, prior=prior)
    if baselines.BUY_AND_HOLD not in rows:
        rows[baselines.BUY_AND_HOLD] = baselines.buy_and_hold(first, prior=prior)
    names = tuple(rows)
    block_days = bootstrap.block_length_days(first, config.block_days)
    tests = {
        name: backtest.run(bars_adjusted, frame, _costs_of(name, costs), horizon_bars=horizon_bars)
        for name, frame in rows.items()
    }
    settings = (config, costs, horizon_bars, bars_per_year)
    measured = {
        name: _measure(name, frame, tests[name], tests[baselines.BUY_AND_HOLD], *settings)
        for name, frame in rows.items()
    }
    return Evaluation(
        models=names,
        rows=rows,
        metrics=measured,
        intervals={
            name: _intervals(frame, tests[name], costs, config, horizon_bars, bars_per_year, block_days)
            for name, frame in rows.items()
        },
        backtests=tests,
        tables={
            name: _tables(frame, bars_adjusted, costs, config, horizon_bars, bars_per_year)
            for name, frame in rows.items()
        },
        confusion={
            name: metrics_ml.confusion(frame["label"].to_numpy(), frames.probabilities(frame))
            for name, frame in rows.items()
        },
        window=(frames.oldest(first["event_timestamp"]), frames.newest(first["event_timestamp"])),
        horizon_bars=horizon_bars,
        bars_per_year=bars_per_year,
        block_days=block_days,
        costs=costs,
        dropped_rows=dropped,
        notes=_notes(first, dropped, block_days),
    )


def of_model(
    predictions: pl.DataFrame,
    bars_adjusted: pl.DataFrame,
    config: EvaluationConfig,
    *,
    costs: CostsConfig,
    horizon_bars: int,
    bars_per_year: float,
) -> dict[str, dict[str, float]]:
    """The numbers of one model on its own rows, as `Evaluation.metrics` holds them; no tables, no intervals.

    Raises:
        DataError: a frame that `frames.check` refuses.
    """
    rows = frames.check(predictions)
    hold = baselines.buy_and_hold(rows)
    tests = [
        backtest.run(bars_adjusted, frame, _costs_of(name, costs), horizon_bars=horizon_bars)
        for name, frame in (("", rows), (baselines.BUY_AND_HOLD, hold))
    ]
    return _measure("", rows, tests[0], tests[1], config, costs, horizon_bars, bars_per_year)


def _measure(
    name: str,
    frame: pl.DataFrame,
    test: BacktestResult,
    held: BacktestResult,
    config: EvaluationConfig,
    costs: CostsConfig,
    horizon_bars: int,
    bars_per_year: float,
) -> dict[str, dict[str, float]]:
    return {
        "ml": _ml(frame, config),
        "financial": metrics_financial.of_backtest(
            test,
            bars_per_year=bars_per_year,
            benchmark=held,
            risk_free_rate=config.risk_free_rate,
            tail=config.value_at_risk_share,
        )
        | {"break_even_bps": _break_even(name, frame, costs, horizon_bars)},
        "learning": metrics_learning.metrics(
            frame, costs, horizon_bars=horizon_bars, num_periods=config.learning_periods
        ),
    }


def common_rows(checked: Mapping[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], int]:
    """The rows that every model has, and how many were left out in all.

    Raises:
        RefusedError: nothing in common, or the same bar has two labels.
    """
    keys = ["symbol", "event_timestamp"]
    parts = list(checked.values())
    common = parts[0].select(keys)
    for part in parts[1:]:
        common = common.join(part.select(keys), on=keys, how="semi", maintain_order="left")
    if common.height == 0:
        spans = {
            n: f"{frames.oldest(f['event_timestamp'])} to {frames.newest(f['event_timestamp'])}"
            for n, f in checked.items()
        }
        raise RefusedError(
            f"The models have no bar in common: {spans}.", hint="Score all of them on the same window."
        )
    rows = {n: f.join(common, on=keys, how="semi", maintain_order="left") for n, f in checked.items()}
    outcome = [*keys, "label", "forward_log_return"]
    names = list(rows)
    for name in names[1:]:
        if not rows[name].select(outcome).equals(rows[names[0]].select(outcome)):
            raise RefusedError(
                f"{name!r} and {names[0]!r} were scored against different labels on the same bars.",
                hint="Make labels once, with one set of thresholds, and score every model on them.",
            )
    return rows, sum(f.height for f in checked.values()) - common.height * len(checked)


def _with_history(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    columns = ["symbol", "label_end_timestamp", "label"]
    older = labels.select(
        "symbol", pl.col("label_end_timestamp").cast(frames.TIME), pl.col("label").cast(pl.Int8)
    ).drop_nulls()
    return pl.concat([older, rows.select(columns)]).unique(
        subset=["symbol", "label_end_timestamp"], keep="last"
    )


def _costs_of(name: str, costs: CostsConfig) -> CostsConfig:
    """Buy-and-hold follows no confidence threshold and no size of a model."""
    if name != baselines.BUY_AND_HOLD:
        return costs
    return costs.model_copy(update={"min_confidence": 0.0, "sizing": "unit", "position_rule": "keep"})


def _break_even(name: str, frame: pl.DataFrame, costs: CostsConfig, horizon_bars: int) -> float:
    """NaN for buy-and-hold, which trades once."""
    if name == baselines.BUY_AND_HOLD:
        return math.nan
    return capacity.break_even_bps(frame, costs, horizon_bars=horizon_bars)


def _ml(frame: pl.DataFrame, config: EvaluationConfig) -> dict[str, float]:
    return metrics_ml.metrics(
        frame["label"].to_numpy(),
        frames.probabilities(frame),
        confidence=frame["confidence"].to_numpy(),
        forward_return=frame["forward_log_return"].to_numpy(),
        num_bands=config.confidence_levels,
    )


def _intervals(
    frame: pl.DataFrame,
    test: BacktestResult,
    costs: CostsConfig,
    config: EvaluationConfig,
    horizon_bars: int,
    bars_per_year: float,
    block_days: float,
) -> dict[str, tuple[float, float]]:
    times = frame["event_timestamp"].dt.epoch("us").to_numpy()
    labels, p = frame["label"].to_numpy(), frames.probabilities(frame)
    net = backtest.row_net_returns(frame, costs, horizon_bars=horizon_bars) * 1e4
    values = {
        "accuracy": (np.argmax(p, axis=1) == labels).astype(np.float64),
        "log_loss": metrics_ml.log_loss_rows(labels, p),
        "net_bps_per_row": net,
    }
    out = {
        name: bootstrap.interval(
            value, times, block_days=block_days, num_samples=config.bootstrap_samples, seed=config.seed
        )
        for name, value in values.items()
    }
    out["sharpe"] = bootstrap.sharpe_interval(
        test.net_returns,
        test.portfolio["event_timestamp"].dt.epoch("us").to_numpy(),
        bars_per_year=bars_per_year,
        block_days=block_days,
        num_samples=config.bootstrap_samples,
        seed=config.seed,
    )
    return out


def _tables(
    frame: pl.DataFrame,
    bars: pl.DataFrame,
    costs: CostsConfig,
    config: EvaluationConfig,
    horizon_bars: int,
    bars_per_year: float,
) -> dict[str, pl.DataFrame]:
    labels, p = frame["label"].to_numpy(), frames.probabilities(frame)
    correct = np.argmax(p, axis=1) == labels
    bands = metrics_ml.reliability_bands(
        frame["confidence"].to_numpy(), correct, num_bands=config.confidence_levels
    )
    return {
        "bands": confidence.bands(frame, costs, num_bands=config.confidence_levels),
        "thresholds": confidence.thresholds(
            frame, costs, horizon_bars=horizon_bars, num_levels=config.confidence_levels
        ),
        "side_thresholds": threshold_table(frame, cost_bps=2e4 * costs.one_way),
        "coverage": confidence.coverage(frame),
        "cost_curve": capacity.cost_curve(
            bars, frame, costs, config.cost_levels_bps, horizon_bars=horizon_bars, bars_per_year=bars_per_year
        ),
        "capacity": capacity.by_symbol(
            bars, frame, costs, horizon_bars=horizon_bars, multiples=config.horizon_multiples
        ),
        "by_period": metrics_learning.by_period(
            frame, costs, horizon_bars=horizon_bars, num_periods=config.learning_periods
        ),
        "by_regime": metrics_learning.by_regime(frame, costs, horizon_bars=horizon_bars),
        "by_symbol": by_symbol(frame, costs, config, horizon_bars=horizon_bars),
        "reliability": pl.DataFrame(bands),
    }


def by_symbol(
    frame: pl.DataFrame, costs: CostsConfig, config: EvaluationConfig, *, horizon_bars: int
) -> pl.DataFrame:
    """Per symbol: rows, accuracy, mcc, log_loss, skill, ece, hit_rate, rank_ic, acted_share,
    net_bps_per_row.
    """
    names = ("rows", "accuracy", "mcc", "log_loss", "skill", "ece", "hit_rate", "rank_ic", "acted_share")
    out = []
    for part in frame.partition_by("symbol", maintain_order=True):
        numbers = _ml(part, config)
        net = backtest.row_net_returns(part, costs, horizon_bars=horizon_bars)
        out.append(
            {"symbol": part["symbol"][0]}
            | {n: numbers[n] for n in names}
            | {"net_bps_per_row": float(net.mean()) * 1e4}
        )
    return pl.DataFrame(out)


def _notes(rows: pl.DataFrame, dropped: int, block_days: float) -> tuple[str, ...]:
    notes = []
    if dropped:
        notes.append(f"{dropped} rows were left out because not every model had scored them.")
    days = (
        frames.newest(rows["event_timestamp"]) - frames.oldest(rows["event_timestamp"])
    ).total_seconds() / 86400
    if days / block_days < 12:
        notes.append(
            f"The window holds only {max(1, round(days / block_days))} blocks of {block_days:.3g} days: "
            "its intervals are wide and its figures are anecdotes."
        )
    return tuple(notes)

"""The facts behind a verdict: common unseen rows, per-row values, paired tests, budget, Sharpe ratios, time
to decide.

Two `Scored` in, `Facts` out; `gate.decide` draws the conclusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError, RefusedError
from barcast.evaluation import backtest, bootstrap, frames, metrics_ml, sharpe
from barcast.evaluation.bootstrap import Paired
from barcast.evaluation.gate_types import History, Scored


@dataclass(frozen=True)
class Facts:
    """Per-row values of both models and the two paired tests."""

    times: np.ndarray
    net: np.ndarray
    loss: np.ndarray
    acted: np.ndarray
    rival_acted: np.ndarray
    net_gain: np.ndarray
    loss_gain: np.ndarray
    block_days: float
    blocks: int
    tests: dict[str, Paired]
    rival_net: np.ndarray

    @classmethod
    def of(
        cls,
        rows: pl.DataFrame,
        rival: pl.DataFrame | None,
        policy: GateConfig,
        costs: CostsConfig,
        horizon_bars: int,
    ) -> Facts:
        labels = rows["label"].to_numpy()
        times = rows["event_timestamp"].dt.epoch("us").to_numpy()
        days = bootstrap.block_length_days(rows, policy.block_days)
        net = backtest.row_net_returns(rows, costs, horizon_bars=horizon_bars)
        loss = metrics_ml.log_loss_rows(labels, frames.probabilities(rows))
        acted = (
            frames.signals(rows, exit_only=costs.side == "exit_only", min_confidence=costs.min_confidence)
            != 0
        )
        blocks = len(bootstrap.block_sums(net, times, days)[1])
        if rival is None:
            zero = np.zeros_like(net)
            return cls(times, net, loss, acted, acted, zero, zero, days, blocks, {}, zero)
        rival_net = backtest.row_net_returns(rival, costs, horizon_bars=horizon_bars)
        net_gain = net - rival_net
        loss_gain = metrics_ml.log_loss_rows(labels, frames.probabilities(rival)) - loss
        # a p-value of n resamples is never below 1 / (n + 1): enough of them to reach one attempt's share
        reach = int(4 * policy.attempts_per_year / policy.false_promotions_per_year)
        samples = max(policy.bootstrap_samples, reach)
        tests = {
            name: bootstrap.paired(gain, times, block_days=days, num_samples=samples, seed=policy.seed)
            for name, gain in (("net_return", net_gain), ("log_loss", loss_gain))
        }
        other = (
            frames.signals(rival, exit_only=costs.side == "exit_only", min_confidence=costs.min_confidence)
            != 0
        )
        return cls(times, net, loss, acted, other, net_gain, loss_gain, days, blocks, tests, rival_net)

    def numbers(self) -> dict[str, float]:
        out = {
            "rows": float(len(self.net)),
            "blocks": float(self.blocks),
            "block_days": self.block_days,
            "candidate_net_bps_per_row": float(np.mean(self.net)) * 1e4,
            "candidate_log_loss": float(np.mean(self.loss)),
            "candidate_acted_rows": float(self.acted.sum()),
            "incumbent_acted_rows": float(self.rival_acted.sum()),
        }
        for name, test in self.tests.items():
            scale = 1e4 if name == "net_return" else 1.0
            unit = "net_gain_bps" if name == "net_return" else "log_loss_gain"
            out |= {
                unit: test.mean * scale,
                f"{unit}_low": test.low * scale,
                f"{unit}_high": test.high * scale,
                f"p_{name}": test.p_better,
                f"p_{name}_worse": test.p_worse,
            }
        return out

    def per_block(self, values: np.ndarray) -> np.ndarray:
        sums, count = bootstrap.block_sums(values, self.times, self.block_days)
        return np.asarray(sums[:, 0] / count)


def same_window(
    ours: Scored, rows: pl.DataFrame, theirs: Scored | None, rival: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    keys = ["symbol", "event_timestamp"]
    if rival is not None:
        same = rows.select(*keys, "label", "forward_log_return").equals(
            rival.select(*keys, "label", "forward_log_return")
        )
        if not same:
            common = rows.select(keys).join(rival.select(keys), on=keys).height
            raise RefusedError(
                f"The two were not scored on the same rows: {rows.height} of {ours.name}, {rival.height} of "
                f"{theirs.name if theirs else ''}, {common} bars in common.",
                hint="Score both on the same bars and labels; a comparison across windows says nothing.",
            )
    seen = [s.seen_until for s in (ours, theirs) if s is not None and s.seen_until is not None]
    if not seen:
        return rows, rival
    unseen = pl.col("event_timestamp") > max(seen)
    if rows.filter(unseen).is_empty():
        raise RefusedError(
            f"Every row of the window had been seen: it ends {frames.newest(rows['event_timestamp'])}, and "
            f"labels up to {max(seen)} were used for training, calibration or selection.",
            hint="Wait for newer bars, or hold back a later window before training.",
        )
    return rows.filter(unseen), None if rival is None else rival.filter(unseen)


def share_of_budget(policy: GateConfig, history: History, when: datetime) -> float:
    """This attempt's part: an equal share of the year's attempts, more when fewer were made, nothing when all
    is spent.

    The sum over any 365 days never exceeds the budget, so by the union bound the chance of promoting at least
    one equal model in a year doesn't either.
    """
    left = max(0.0, policy.false_promotions_per_year - history.spent(when))
    return min(left, policy.false_promotions_per_year / policy.attempts_per_year)


def sharpe_numbers(facts: Facts, history: History) -> dict[str, float]:
    series = facts.per_block(facts.net)
    trials = max(1, history.num_trials) + len(history.attempts)
    known = [
        *history.trial_sharpes,
        *(a.sharpe_per_block for a in history.attempts if a.sharpe_per_block is not None),
    ]
    ratio = sharpe.sharpe(series)
    arguments = {"num_trials": trials, "trial_sharpes": np.asarray(known) if len(known) >= 5 else None}
    out = {
        "candidate_sharpe_per_block": ratio,
        "candidate_sharpe": ratio * math.sqrt(365.25 / facts.block_days),
        "probabilistic_sharpe": sharpe.probabilistic_sharpe(series),
        "deflated_sharpe": sharpe.deflated_sharpe(series, **arguments),  # type: ignore[arg-type]
        "trials_counted": float(trials),
    }
    if facts.tests:
        gain = facts.per_block(facts.net_gain)
        out["deflated_sharpe_of_gain"] = sharpe.deflated_sharpe(gain, **arguments)  # type: ignore[arg-type]
    return out


def seed_noise(
    frames_by_seed: Sequence[pl.DataFrame], costs: CostsConfig, *, horizon_bars: int
) -> dict[str, float]:
    """Standard deviation between equal models with other seeds, for `Scored.seed_noise`; needs two frames or
    more.

    Raises:
        DataError: fewer than two frames.
    """
    if len(frames_by_seed) < 2:
        raise DataError(
            "Seed noise needs at least two models.", hint="Train the same configuration with another seed."
        )
    checked = [frames.check(f) for f in frames_by_seed]
    nets = [float(np.mean(backtest.row_net_returns(f, costs, horizon_bars=horizon_bars))) for f in checked]
    losses = [
        float(np.mean(metrics_ml.log_loss_rows(f["label"].to_numpy(), frames.probabilities(f))))
        for f in checked
    ]
    return {"net_return": float(np.std(nets, ddof=1)), "log_loss": float(np.std(losses, ddof=1))}


def days_to_decide(facts: Facts, alpha: float) -> float | None:
    """More days until a difference of the measured size would pass with 80% power, on the quicker measure;
    None if neither leans to the candidate or it would take more than ten years.
    """
    from scipy import stats

    if alpha <= 0:
        return None
    needed = []
    for test in facts.tests.values():
        if test.mean > 0 and test.standard_error and test.standard_error > 0:
            factor = (
                (stats.norm.isf(alpha / 2) + stats.norm.isf(0.2)) * test.standard_error / test.mean
            ) ** 2
            needed.append(max(1.0, test.num_blocks * (factor - 1.0)) * facts.block_days)
    days = min(needed, default=math.inf)
    return float(days) if days < 3653 else None

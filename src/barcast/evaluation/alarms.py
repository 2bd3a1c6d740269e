"""What the gate looks at besides the comparison: leak alarms, calibration, harm to a slice.

Honest skill on price bars is small; numbers beyond the limits are a leak until a person has shown otherwise.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from barcast.config.evaluation import GateConfig
from barcast.evaluation import bootstrap, frames, metrics_ml, sharpe
from barcast.evaluation.gate_facts import Facts
from barcast.evaluation.gate_types import Check

_MIN_ROWS = 100
_MIN_BLOCKS = 5


def check(rows: pl.DataFrame, facts: Facts, policy: GateConfig) -> list[Check]:
    """Leak alarms and the calibration limit of the candidate alone.

    Each counts as over its limit only where chance is no explanation (one-sided 99%, from blocks for correlated rows).
    Balanced accuracy and rank correlation of fewer than five blocks, which say nothing of chance, count as they are.
    """
    p = frames.probabilities(rows)
    labels = rows["label"].to_numpy()
    forward = rows["forward_log_return"].to_numpy()
    action = np.argmax(p, axis=1)
    limit = policy.max_calibration_error
    # On a few hundred rows an honest confidence shows an error of some hundredths by luck alone.
    parts = metrics_ml.calibration_parts(rows["confidence"].to_numpy(), action == labels)
    ece = float(parts.mean())
    out = [
        Check(
            "calibration",
            not (ece > limit and _surely_above(parts - limit, facts.times, facts.block_days)),
            f"expected calibration error {ece:.3f}, limit {limit:.3f}",
            "keep",
        )
    ]
    acted = action != frames.HOLD
    hits = (np.sign(forward) == np.sign(action - 1.0))[acted].astype(np.float64)
    rate = float(hits.mean()) if len(hits) else math.nan
    sure = len(hits) >= _MIN_ROWS and _surely_above(hits - 0.5, facts.times[acted], facts.block_days)
    out.append(
        Check(
            "leak alarm, hit rate",
            not (sure and rate > policy.max_accuracy),
            f"{rate:.1%} of {len(hits)} acted rows had the right side, limit {policy.max_accuracy:.0%}",
        )
    )
    enough = len(labels) >= _MIN_ROWS
    _, number, rows_of = np.unique(labels, return_inverse=True, return_counts=True)
    weight = len(labels) / (len(rows_of) * rows_of[number])  # every class counts alike, however rare
    parts = weight * (action == labels)
    balanced = float(parts.mean())
    out.append(
        Check(
            "leak alarm, balanced accuracy",
            not (
                enough
                and len(rows_of) > 1
                and balanced > policy.max_accuracy
                and _no_chance(parts - 1 / len(rows_of), facts)
            ),
            f"mean recall of the classes {balanced:.1%}, limit {policy.max_accuracy:.0%}",
        )
    )
    score = p[:, 2] - p[:, 0]
    ic = metrics_ml.rank_ic(score, forward)
    out.append(
        Check(
            "leak alarm, rank correlation",
            not (
                enough
                and ic > policy.max_rank_ic
                and _no_chance(metrics_ml.rank_products(score, forward), facts)
            ),
            f"rank correlation of the score with the outcome {ic:.3f}, limit {policy.max_rank_ic:.2f}",
        )
    )
    series = facts.per_block(facts.net)
    yearly = sharpe.sharpe(series) * math.sqrt(365.25 / facts.block_days)
    real = len(series) >= _MIN_BLOCKS and sharpe.probabilistic_sharpe(series) > 0.99
    out.append(
        Check(
            "leak alarm, Sharpe",
            not (real and yearly > policy.max_sharpe),
            f"yearly net Sharpe {yearly:.2f} of {len(series)} blocks of decisions (not of the account), "
            f"limit {policy.max_sharpe:.1f}",
        )
    )
    return out


def _no_chance(values: np.ndarray, facts: Facts) -> bool:
    """Whether chance does not explain a mean above 0, or there are too few blocks to tell."""
    return facts.blocks < _MIN_BLOCKS or _surely_above(values, facts.times, facts.block_days)


def _surely_above(values: np.ndarray, times: np.ndarray, block_days: float) -> bool:
    """Whether the mean is above 0 beyond chance (one-sided 1%)."""
    return bootstrap.paired(values, times, block_days=block_days, num_samples=1000).p_better < 0.01


def slices(rows: pl.DataFrame, facts: Facts, policy: GateConfig) -> list[Check]:
    """No harm: in no slice (symbol, regime, volatility regime) with enough rows is the candidate surely worse
    than the incumbent. The level is shared by all slices and both measures (Bonferroni).
    """
    parts: list[tuple[str, np.ndarray]] = []
    for kind in ("symbol", "regime", "volatility_regime"):
        values = rows[kind].to_numpy()
        names = np.unique(values.astype(str))
        if len(names) > 1:
            parts += [(f"{kind}={n}", values == n) for n in names]
    parts = [(name, mask) for name, mask in parts if mask.sum() >= policy.min_slice_rows]
    if not parts:
        return [
            Check("no harm to a slice", True, f"no slice has {policy.min_slice_rows} rows: nothing to judge")
        ]
    level = policy.max_slice_harm_share / (2 * len(parts))
    samples = max(5000, int(4 / level))  # a p-value of n resamples is never below 1 / (n + 1)
    harmed = []
    for name, mask in parts:
        for measure, gain in (("net return", facts.net_gain), ("log loss", facts.loss_gain)):
            if gain[mask].sum() >= 0:
                continue  # not worse, let alone surely: the many resamples would only take time
            test = bootstrap.paired(
                gain[mask],
                facts.times[mask],
                block_days=facts.block_days,
                num_samples=samples,
                seed=policy.seed,
            )
            if test.num_blocks >= policy.min_blocks and test.p_worse < level:
                harmed.append(f"{name} is worse in {measure} (p {test.p_worse:.1g})")
    detail = "; ".join(harmed) if harmed else f"none of {len(parts)} slices is surely worse"
    return [Check("no harm to a slice", not harmed, detail)]

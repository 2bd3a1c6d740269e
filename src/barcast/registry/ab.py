"""Champion against challenger on what they really answered: the report of a shadow or A/B run.

Served answers (the prediction log) + outcomes of the same bars → the gate's own test. In a shadow run both
answered the same bars, so rows are paired, as at the gate. In an A/B run each bar was answered by one of the
two: there the means of both arms are compared over blocks of calendar time, which is weaker and says so.
Pure: frames in, report out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError
from barcast.evaluation import backtest, bootstrap, frames, gate, metrics_ml
from barcast.wording import count

CHALLENGER_ARMS = ("canary", "shadow")


@dataclass(frozen=True)
class Arm:
    """What one side did. `net_bps` and `log_loss` are means per answered bar with a known outcome."""

    version: int
    answers: int
    with_outcome: int
    acted: int
    accuracy: float
    net_bps: float
    log_loss: float


@dataclass(frozen=True)
class Report:
    """The comparison.

    Attributes:
        paired: whether both answered the same bars.
        rows: bars compared (paired), or bars of both arms together.
        net_gain_bps, log_loss_gain: challenger minus champion (log loss turned, so that more is better), each
            as (low, mean, high) of a 95% interval.
        outcome: `better`, `worse` or `undecided`, from the two intervals.
        sentences: the result in words; where paired, the gate's own, alarms included.
        verdict: what the gate would say, where paired.
    """

    model: str
    champion: Arm
    challenger: Arm
    paired: bool
    rows: int
    net_gain_bps: tuple[float, float, float]
    log_loss_gain: tuple[float, float, float]
    outcome: str
    sentences: tuple[str, ...]
    verdict: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def compare(
    answers: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    model: str,
    champion: int,
    challenger: int,
    policy: GateConfig,
    costs: CostsConfig,
    horizon_bars: int,
) -> Report:
    """Compare the served answers of two versions of `model`.

    Args:
        answers: the prediction log: `symbol, feature_timestamp, model, version, arm, p_sell, p_hold, p_buy,
            confidence, uncertainty, expected_return, expected_volatility`.
        outcomes: `symbol, event_timestamp, label_end_timestamp, label, forward_log_return` and, where known,
            `volatility, regime, volatility_regime`.

    Raises:
        DataError: one of the two has no answer whose outcome is known.
    """
    mine = answers.filter(pl.col("model") == model)
    ours_all = mine.filter((pl.col("version") == challenger) & pl.col("arm").is_in(CHALLENGER_ARMS))
    theirs_all = mine.filter((pl.col("version") == champion) & (pl.col("arm") == "champion"))
    ours, theirs = _rows(ours_all, outcomes, "challenger"), _rows(theirs_all, outcomes, "champion")
    keys = ["symbol", "event_timestamp"]
    both = ours.select(keys).join(theirs.select(keys), on=keys)
    arms = (
        _arm(champion, theirs_all.height, theirs, costs, horizon_bars),
        _arm(challenger, ours_all.height, ours, costs, horizon_bars),
    )
    # An A/B run shares no bar; a shadow run all but the few that one side refused.
    if both.height >= 0.5 * min(ours.height, theirs.height):
        ours, theirs = ours.join(both, on=keys), theirs.join(both, on=keys)
        return _paired(model, arms, ours, theirs, policy, costs, horizon_bars)
    return _unpaired(model, arms, ours, theirs, policy, costs, horizon_bars)


def _rows(answers: pl.DataFrame, outcomes: pl.DataFrame, name: str) -> pl.DataFrame:
    kept = (
        "symbol",
        "p_sell",
        "p_hold",
        "p_buy",
        "confidence",
        "uncertainty",
        "expected_return",
        "expected_volatility",
    )
    joined = (
        answers.select(*(c for c in kept if c in answers.columns), event_timestamp="feature_timestamp")
        .unique(["symbol", "event_timestamp"], keep="first", maintain_order=True)
        .join(outcomes, on=["symbol", "event_timestamp"])
        .with_columns(model=pl.lit(name))
    )
    if joined.is_empty():
        raise DataError(
            f"The {name} has {answers.height} served answers, and none with a known outcome.",
            hint="Wait until the horizon of the first answers has passed, then ingest the newest bars.",
        )
    return frames.check(joined, name=name)


def _arm(version: int, answers: int, rows: pl.DataFrame, costs: CostsConfig, horizon_bars: int) -> Arm:
    label = rows["label"].to_numpy()
    acted = (
        frames.signals(rows, exit_only=costs.side == "exit_only", min_confidence=costs.min_confidence) != 0
    )
    return Arm(
        version=version,
        answers=answers,
        with_outcome=rows.height,
        acted=int(acted.sum()),
        accuracy=float(np.mean(frames.actions(rows) == label)),
        net_bps=float(np.mean(backtest.row_net_returns(rows, costs, horizon_bars=horizon_bars))) * 1e4,
        log_loss=float(np.mean(metrics_ml.log_loss_rows(label, frames.probabilities(rows)))),
    )


def _paired(
    model: str,
    arms: tuple[Arm, Arm],
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    policy: GateConfig,
    costs: CostsConfig,
    horizon_bars: int,
) -> Report:
    loaded = gate.Check("infrastructure", True, "Both versions were answering.")
    verdict = gate.decide(
        gate.Scored(f"challenger v{arms[1].version}", ours),
        gate.Scored(f"champion v{arms[0].version}", theirs),
        policy,
        costs=costs,
        horizon_bars=horizon_bars,
        checks=[loaded],
    )
    n = verdict.numbers

    def interval(name: str) -> tuple[float, float, float]:
        low, mean, high = (n.get(f"{name}{end}", float("nan")) for end in ("_low", "", "_high"))
        return low, mean, high

    net, loss = interval("net_gain_bps"), interval("log_loss_gain")
    enough = n.get("blocks", 0.0) >= policy.min_blocks
    return Report(
        model=model,
        champion=arms[0],
        challenger=arms[1],
        paired=True,
        rows=ours.height,
        net_gain_bps=net,
        log_loss_gain=loss,
        outcome=_outcome(net, loss, enough),
        sentences=verdict.reasons,
        verdict=verdict.to_dict(),
    )


def _unpaired(
    model: str,
    arms: tuple[Arm, Arm],
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    policy: GateConfig,
    costs: CostsConfig,
    horizon_bars: int,
) -> Report:
    days = bootstrap.block_length_days(pl.concat([ours, theirs]), policy.block_days)
    measures = {}
    for name, scale in (("net", 1e4), ("loss", -1.0)):
        values = [
            backtest.row_net_returns(f, costs, horizon_bars=horizon_bars)
            if name == "net"
            else metrics_ml.log_loss_rows(f["label"].to_numpy(), frames.probabilities(f))
            for f in (ours, theirs)
        ]
        times = [f["event_timestamp"].dt.epoch("us").to_numpy() for f in (ours, theirs)]
        measures[name] = _difference(values, times, days, scale, policy)
    blocks = int(measures["net"][3])
    net, loss = measures["net"][:3], measures["loss"][:3]
    enough = blocks >= policy.min_blocks
    sentences = [
        f"The challenger's net return per answer is {net[1]:+.3g} bps against the champion's "
        f"(95% interval {net[0]:+.3g} to {net[2]:+.3g}).",
        f"Its log loss is {'lower' if loss[1] > 0 else 'higher'} by {abs(loss[1]):.3g} "
        f"(95% interval of the gain {loss[0]:+.3g} to {loss[2]:+.3g}).",
        "Each bar was answered by one of the two, so luck of the draw is in the difference; a shadow run "
        "compares the same bars and decides sooner.",
    ]
    if not enough:
        sentences.insert(
            0,
            f"{count(blocks, 'block')} of {days:.3g} days: too few to decide anything; {policy.min_blocks} are "
            f"needed.",
        )
    return Report(
        model=model,
        champion=arms[0],
        challenger=arms[1],
        paired=False,
        rows=ours.height + theirs.height,
        net_gain_bps=(net[0], net[1], net[2]),
        log_loss_gain=(loss[0], loss[1], loss[2]),
        outcome=_outcome(net, loss, enough),
        sentences=tuple(sentences),
        verdict={"blocks": blocks, "block_days": days},
    )


def _outcome(net: tuple[float, float, float], loss: tuple[float, float, float], enough: bool) -> str:
    """One measure surely better and none surely worse, or the reverse; else undecided."""
    up, down = net[0] > 0 or loss[0] > 0, net[2] < 0 or loss[2] < 0
    if not enough or up == down:
        return "undecided"
    return "better" if up else "worse"


def _difference(
    values: list[np.ndarray], times: list[np.ndarray], days: float, scale: float, policy: GateConfig
) -> tuple[float, float, float, float]:
    """(low, mean, high, blocks) of the difference of two means, whole blocks of time drawn with both arms in them."""
    start = min(int(t.min()) for t in times)
    number = [((t - start) // int(days * 86_400e6)).astype(np.int64) for t in times]
    size = 1 + max(int(n.max()) for n in number)
    sums = np.stack([np.bincount(n, v, size) for n, v in zip(number, values, strict=True)])
    counts = np.stack([np.bincount(n, minlength=size) for n in number]).astype(np.float64)
    held = counts.sum(axis=0) > 0
    sums, counts = sums[:, held], counts[:, held]
    blocks = sums.shape[1]
    mean = float(values[0].mean() - values[1].mean()) * scale
    draw = np.random.default_rng(policy.seed).integers(0, blocks, (policy.bootstrap_samples, blocks))
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = sums[:, draw].sum(axis=2) / counts[:, draw].sum(axis=2)
    spread = (drawn[0] - drawn[1]) * scale
    spread = spread[np.isfinite(spread)]
    if spread.size == 0:
        return float("-inf"), mean, float("inf"), float(blocks)
    low, high = np.quantile(spread, [0.025, 0.975])
    return float(low), mean, float(high), float(blocks)

"""The gate: does the candidate replace the incumbent? A pure function of two sets of per-row results.

Rows of both models on the same bars → paired block bootstrap on net return and log loss → alarms and limits →
a verdict in words and numbers. A promotion needs one measure to be better at half of this attempt's share of
the yearly false-promotion budget, and the other not to be worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError
from barcast.evaluation import alarms, frames
from barcast.evaluation.bootstrap import Paired
from barcast.evaluation.gate_facts import (
    Facts,
    days_to_decide,
    same_window,
    seed_noise,
    share_of_budget,
    sharpe_numbers,
)
from barcast.evaluation.gate_types import Attempt, Check, History, Outcome, Scored, Verdict
from barcast.wording import count

__all__ = ["Attempt", "Check", "History", "Scored", "Verdict", "decide", "incomparable", "seed_noise"]

_WORDS = {"net_return": "net return per decision", "log_loss": "log loss"}


def decide(
    candidate: Scored | pl.DataFrame,
    incumbent: Scored | pl.DataFrame | None,
    policy: GateConfig,
    history: History | None = None,
    *,
    costs: CostsConfig | None = None,
    horizon_bars: int = 1,
    as_of: datetime | None = None,
    checks: Sequence[Check] = (),
) -> Verdict:
    """Compare the candidate with the incumbent on the rows that neither has seen.

    Args:
        candidate, incumbent: their rows (a plain frame is taken as never seen); None for no incumbent.
        policy: limits and levels.
        history: earlier attempts and trials; the yearly budget and the deflated Sharpe ratio count them.
        costs: what trading costs.
        horizon_bars: the labels' horizon.
        as_of: the moment of this attempt (for the yearly budget); the end of the newest label where absent.
        checks: results of outside checks (TFX blessing, infrastructure), made by `Check`.

    Raises:
        RefusedError: the two were scored on different bars or with different labels, or no row is unseen by
            both.
        DataError: the incumbent's rows cannot be read (the candidate's lead to a verdict, "keep").
    """
    costs = costs or CostsConfig()
    history = history or History()
    ours = candidate if isinstance(candidate, Scored) else Scored("candidate", candidate)
    theirs = Scored("incumbent", incumbent) if isinstance(incumbent, pl.DataFrame) else incumbent
    try:
        rows = frames.check(ours.rows, name=ours.name)
    except DataError as error:
        return _verdict("keep", [f"{ours.name} cannot be judged: {error}"], ours, theirs, decided=True)
    rival = None if theirs is None else frames.check(theirs.rows, name=theirs.name)
    rows, rival = same_window(ours, rows, theirs, rival)
    when = as_of or frames.newest(rows["label_end_timestamp"])
    facts = Facts.of(rows, rival, policy, costs, horizon_bars)
    numbers = facts.numbers()
    numbers |= sharpe_numbers(facts, history)
    looked = [*alarms.check(rows, facts, policy), *_external(checks, policy)]
    if rival is None:
        return _without_incumbent(ours, looked, numbers)
    if facts.blocks < policy.min_blocks:
        missing = (policy.min_blocks - facts.blocks) * facts.block_days
        reason = (
            f"{count(facts.blocks, 'block')} of {facts.block_days:.3g} days: too few to decide anything; "
            f"{policy.min_blocks} are needed. {theirs.name} stays."  # type: ignore[union-attr]
        )
        return _verdict("keep", [reason], ours, theirs, numbers, looked, decided=False, days=missing)
    alpha = share_of_budget(policy, history, when)
    numbers["alpha"] = alpha
    return _compare(ours, theirs, rows, rival, facts, policy, looked, numbers, alpha)  # type: ignore[arg-type]


def incomparable(candidate: str, incumbent: str, why: str, checks: Sequence[Check] = ()) -> Verdict:
    """The verdict where what answers now cannot be scored on the candidate's rows: a person decides, nothing is spent.

    It happens when features change: the model that is live knows other ones.
    """
    reasons = (
        f"{incumbent} answers now and cannot be scored on the same rows: {why}",
        f"Nothing says whether {candidate} is better; a person must decide.",
    )
    return Verdict("hold", reasons, {}, tuple(checks), False, None, 0.0, candidate, incumbent)


def _external(checks: Sequence[Check], policy: GateConfig) -> list[Check]:
    """Outside checks as given; a required one that was not done is added as not done and holds."""
    done = list(checks)
    if policy.require_infrastructure and not any(c.name == "infrastructure" for c in done):
        done.append(Check("infrastructure", None, "The candidate was not loaded by a model server.", "hold"))
    if not policy.require_blessing:
        done = [replace(c, on_failure="promote") if c.name == "blessing" else c for c in done]
    return done


def _blocking(
    looked: Sequence[Check], policy_optional: Sequence[str] = ()
) -> tuple[Outcome | None, list[str]]:
    failed = [c for c in looked if c.passed is False and c.on_failure != "promote"]
    missing = [c for c in looked if c.passed is None and c.name == "infrastructure"]
    if not failed and not missing:
        return None, []
    worst: Outcome = "keep" if any(c.on_failure == "keep" for c in failed) else "hold"
    return worst, [f"{c.name}: {c.detail}" for c in [*failed, *missing]]


def _without_incumbent(ours: Scored, looked: list[Check], numbers: dict[str, float]) -> Verdict:
    outcome, why = _blocking(looked)
    if outcome is None:
        reasons = [f"Nothing answers yet, so {ours.name} is promoted: every check passed."]
        return _verdict("promote", reasons, ours, None, numbers, looked, decided=True)
    reasons = [f"Nothing answers yet, but {ours.name} is not promoted.", *why]
    return _verdict(outcome, reasons, ours, None, numbers, looked, decided=True)


def _compare(
    ours: Scored,
    theirs: Scored,
    rows: pl.DataFrame,
    rival: pl.DataFrame,
    facts: Facts,
    policy: GateConfig,
    looked: list[Check],
    numbers: dict[str, float],
    alpha: float,
) -> Verdict:
    net, loss = facts.tests["net_return"], facts.tests["log_loss"]
    if not np.any(facts.net_gain) and not np.any(facts.loss_gain):
        reason = f"{ours.name} answers exactly as {theirs.name} does: a tie, {theirs.name} stays."
        return _verdict("keep", [reason], ours, theirs, numbers, looked, decided=True)
    acted = int(facts.acted.sum())
    enough = acted >= policy.min_trades
    deflated = numbers["deflated_sharpe_of_gain"] >= policy.min_deflated_sharpe
    better = {
        "net_return": net.p_better < alpha / 2 and enough and deflated,
        "log_loss": loss.p_better < alpha / 2,
    }
    for name, test in facts.tests.items():
        noise = ours.seed_noise.get(name)
        if better[name] and noise is None:
            detail = "the spread between two trainings alike was not measured (training.noise_seeds)"
            looked.append(Check(f"seed noise, {name}", None, detail, "promote"))
        elif better[name] and noise is not None:
            # the difference of two models carries the noise of two seeds
            better[name] = test.mean > policy.seed_noise_multiple * math.sqrt(2) * noise
            detail = (
                f"gain in {_WORDS[name]} {test.mean:.3g}, spread between two seeds {math.sqrt(2) * noise:.3g}"
            )
            looked.append(Check(f"seed noise, {name}", better[name], detail, "keep"))
    worse = {name: test.p_worse < policy.non_inferiority_share for name, test in facts.tests.items()}
    evidence = [_sentence(name, test) for name, test in facts.tests.items()]
    if numbers["candidate_net_bps_per_row"] < 0:
        evidence.append(
            f"After costs {ours.name} itself loses {-numbers['candidate_net_bps_per_row']:.3g} bps a row."
        )
    if not enough:
        evidence.append(
            f"Only {acted} rows were acted on (at least {policy.min_trades} needed): returns say nothing yet."
        )
    wins = [n for n in better if better[n] and not worse["log_loss" if n == "net_return" else "net_return"]]
    if wins:
        # harm to a slice matters, and costs time, only where a promotion is at stake
        looked = [*looked, *alarms.slices(rows, facts, policy)]
    blocked, why = _blocking(looked)
    if wins:
        claim = (
            f"{ours.name} is better than {theirs.name} in {' and '.join(_WORDS[w] for w in wins)}, beyond "
            f"this attempt's share of the yearly budget of false promotions (p < {alpha / 2:.2g})."
        )
        if blocked is None:
            return _verdict(
                "promote", [claim, *evidence], ours, theirs, numbers, looked, decided=True, spent=alpha
            )
        reasons = [f"{claim} Yet it is not promoted:", *why, *evidence]
        return _verdict(blocked, reasons, ours, theirs, numbers, looked, decided=True, spent=alpha)
    conflict = [n for n in better if better[n]]
    if conflict:
        other = "log_loss" if conflict[0] == "net_return" else "net_return"
        words = f"better in {_WORDS[conflict[0]]} but worse in {_WORDS[other]}"
        reason = f"{ours.name} is {words}: a person must weigh it."
        return _verdict("hold", [reason, *evidence], ours, theirs, numbers, looked, decided=True, spent=alpha)
    alarm = [c for c in looked if c.passed is False and c.name.startswith("leak")]
    if alarm:
        reasons = [
            f"{ours.name} raised a leak alarm; a person must look before its numbers are used.",
            *why,
            *evidence,
        ]
        return _verdict("hold", reasons, ours, theirs, numbers, looked, decided=True, spent=alpha)
    losing = [n for n in facts.tests if facts.tests[n].p_worse < 0.025]
    if losing:
        words = " and ".join(_WORDS[n] for n in losing)
        reason = f"{ours.name} is worse than {theirs.name} in {words}: {theirs.name} stays."
        return _verdict(
            "keep", [reason, *evidence, *why], ours, theirs, numbers, looked, decided=True, spent=alpha
        )
    days = days_to_decide(facts, alpha)
    reason = f"Undecided: {ours.name} and {theirs.name} differ by no more than chance; {theirs.name} stays."
    if days is not None:
        reason += f" If the measured difference is the true one, about {days:.0f} more days would decide it."
    return _verdict(
        "keep",
        [reason, *evidence, *why],
        ours,
        theirs,
        numbers,
        looked,
        decided=False,
        days=days,
        spent=alpha,
    )


def _sentence(name: str, test: Paired) -> str:
    scale, unit = (1e4, " bps") if name == "net_return" else (1.0, " nats")
    word = "Gain in net return per decision" if name == "net_return" else "Fall of log loss"
    if math.isnan(test.low):
        return f"{word}: none at all."
    return (
        f"{word}: {test.mean * scale:+.3g}{unit} (95% interval {test.low * scale:+.3g} to "
        f"{test.high * scale:+.3g}, one-sided p {test.p_better:.2g}) over {test.num_blocks} blocks of time."
    )


def _verdict(
    outcome: Outcome,
    reasons: Sequence[str],
    ours: Scored,
    theirs: Scored | None,
    numbers: dict[str, float] | None = None,
    looked: Sequence[Check] = (),
    *,
    decided: bool,
    days: float | None = None,
    spent: float = 0.0,
) -> Verdict:
    return Verdict(
        outcome, tuple(reasons), numbers or {}, tuple(looked), decided, days, spent, ours.name,
        None if theirs is None else theirs.name,
    )  # fmt: skip

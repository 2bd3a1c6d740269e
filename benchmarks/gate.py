"""How often the gate is wrong, and what it can see: simulated symbols that move together, decided by
`gate.decide`.

- False promotions: pairs of equally good models, a year of weekly attempts each; the share of years with at least
  one promotion must stay within 5%.
- Power: chance of a promotion in one attempt, and within a year of attempts, against the true gain.
- Planted leaks: twenty candidates that know something they cannot; each must end with a person (hold), none
  promoted.

A simulated year takes about 6 s: long runs are split by `--first-year` and `--only`.
Usage: python benchmarks/gate.py [--years 100] [--first-year 0] [--power 40] [--only years,power,leaks]
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from _common import report, row

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.evaluation import gate

START = datetime(2024, 1, 1, tzinfo=UTC)
HORIZON, SYMBOLS, BARS_A_DAY, WINDOW_DAYS = 4, 5, 24, 120
COSTS = CostsConfig(fee_bps=8, spread_bps=0, slippage_bps=0)
POLICY = GateConfig(bootstrap_samples=10_000, max_calibration_error=0.2)
SERVED = (gate.Check("infrastructure", True, "simulated"),)


class World:
    """Bars of SYMBOLS with a common factor, fat tails and changing volatility; labels over HORIZON opens."""

    def __init__(self, days: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n = days * BARS_A_DAY + HORIZON + 2
        # volatility in spells of about five days
        spell = np.exp(0.4 * np.repeat(rng.normal(size=n // 120 + 1), 120)[:n])
        market = rng.standard_t(4, n) * 0.003
        own = rng.standard_t(4, (SYMBOLS, n)) * 0.003
        steps = (0.75 * market + own) * spell
        total = np.concatenate([np.zeros((SYMBOLS, 1)), np.cumsum(steps, axis=1)], axis=1)
        m = days * BARS_A_DAY
        forward = total[:, HORIZON : HORIZON + m] - total[:, :m]
        self.z = forward / forward.std()
        self.label = np.where(self.z > 0.4, 2, np.where(self.z < -0.4, 0, 1)).astype(np.int8)
        step = timedelta(days=1) / BARS_A_DAY
        times = [START + step * (i + 1) for i in range(m)]
        ends = [t + step * (HORIZON + 1) for t in times]
        # mistakes that every model trained on this market shares
        self.shared = self._noise(rng, m)
        self.base = pl.DataFrame(
            {
                "symbol": np.repeat([f"S{k}" for k in range(SYMBOLS)], m),
                "event_timestamp": times * SYMBOLS,
                "label_end_timestamp": ends * SYMBOLS,
                "label": self.label.ravel(),
                "forward_log_return": forward.ravel(),
            }
        ).with_columns(pl.col("event_timestamp", "label_end_timestamp").cast(pl.Datetime("us", "UTC")))

    @staticmethod
    def _noise(rng: np.random.Generator, bars: int) -> np.ndarray:
        """(S, T): mistakes last about a horizon, and half of them are common to all symbols; variance about
        1.
        """
        noise = 0.7 * rng.normal(size=(SYMBOLS, bars)) + 0.7 * rng.normal(size=bars)
        kernel = np.ones(HORIZON) / np.sqrt(HORIZON)
        return np.stack([np.convolve(x, kernel, mode="same") for x in noise])

    def model(
        self,
        skill: float | np.ndarray,
        seed: int,
        *,
        sharpness: float = 0.15,
        until_day: int | None = None,
    ) -> pl.DataFrame:
        """Predictions that lean to the outcome by `skill` (correlation, about); 60% of the mistakes are
        shared. With `until_day`, of the WINDOW_DAYS before that day only.
        """
        stop = self.z.shape[1] if until_day is None else until_day * BARS_A_DAY
        span = slice(0 if until_day is None else stop - WINDOW_DAYS * BARS_A_DAY, stop)
        own = self._noise(np.random.default_rng(seed), span.stop - span.start)
        noise = np.sqrt(0.6) * self.shared[:, span] + np.sqrt(0.4) * own
        lean = skill * np.clip(self.z[:, span], -3, 3) + np.sqrt(np.maximum(0, 1 - np.square(skill))) * noise
        logits = np.stack([-sharpness * lean, np.zeros_like(lean), sharpness * lean], axis=-1).reshape(-1, 3)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        bars = self.z.shape[1]
        rows = np.concatenate([np.arange(span.start, span.stop) + k * bars for k in range(SYMBOLS)])
        return self.base[rows].with_columns(
            pl.Series("p_sell", p[:, 0]), pl.Series("p_hold", p[:, 1]), pl.Series("p_buy", p[:, 2])
        )


def year_of_attempts(seed: int, candidate_skill: float, incumbent_skill: float) -> int | None:
    """52 weekly attempts with a candidate trained anew each week; the week of the first promotion, or
    None.
    """
    world = World(WINDOW_DAYS + 365, seed)
    incumbent = world.model(incumbent_skill, 10_000 + seed)
    days = (pl.col("event_timestamp") - START).dt.total_seconds() / 86_400  # closes: the day they end
    attempts: list[gate.Attempt] = []
    for week in range(52):
        last = WINDOW_DAYS + 7 * (week + 1)
        at = START + timedelta(days=last)
        verdict = gate.decide(
            world.model(candidate_skill, 1_000_000 + 100 * seed + week, until_day=last),
            incumbent.filter((days > last - WINDOW_DAYS) & (days <= last)),
            POLICY,
            gate.History(attempts, num_trials=20),
            costs=COSTS,
            horizon_bars=HORIZON,
            as_of=at,
            checks=SERVED,
        )
        attempts.append(verdict.attempt(at))
        if verdict.outcome == "promote":
            return week
    return None


def power(gain: float, repeats: int) -> tuple[float, float, float]:
    """Of single attempts with a candidate better by `gain` in skill: the share promoted, the share that raised a leak
    alarm, and the median days that the undecided ones would still need.
    """
    promoted, alarmed, days = 0, 0, []
    for seed in range(repeats):
        world = World(WINDOW_DAYS, 5000 + seed)
        verdict = gate.decide(
            world.model(0.02 + gain, 77 + seed),
            world.model(0.02, 7777 + seed),
            POLICY,
            gate.History(num_trials=20),
            costs=COSTS,
            horizon_bars=HORIZON,
            checks=SERVED,
        )
        promoted += verdict.outcome == "promote"
        alarmed += any(c.passed is False and c.name.startswith("leak") for c in verdict.checks)
        if verdict.days_to_decide is not None:
            days.append(verdict.days_to_decide)
    return promoted / repeats, alarmed / repeats, float(np.median(days)) if days else float("nan")


def leaks() -> list[tuple[str, str]]:
    """Twenty leaks of different kinds and strength; the verdict's outcome of each."""
    found = []
    world = World(WINDOW_DAYS, 4242)
    m = world.z.shape[1]
    half = np.arange(m) >= m // 2
    rng = np.random.default_rng(5)
    plans: list[tuple[str, np.ndarray | float]] = [
        (f"future return in a feature, strength {s:.2f}", s) for s in (0.25, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0)
    ]
    plans += [
        (f"outcome known on {share:.0%} of bars", np.where(rng.random(world.z.shape) < share, 1.0, 0.02))
        for share in (0.2, 0.3, 0.5)
    ]
    plans += [("leak that begins in the middle", np.where(half, 0.5, 0.02)[None, :] * np.ones_like(world.z))]
    plans += [
        (
            "leak in one symbol of five",
            np.where(np.arange(SYMBOLS)[:, None] == 0, 1.0, 0.02) * np.ones_like(world.z),
        )
    ]
    plans += [
        (
            "leak in two symbols of five",
            np.where(np.arange(SYMBOLS)[:, None] < 2, 0.9, 0.02) * np.ones_like(world.z),
        )
    ]
    candidates = [(name, world.model(skill, 99 + k)) for k, (name, skill) in enumerate(plans)]
    for steps in (1, 2, 3):
        # features that are late by `steps` bars hold that part of the label's own span
        skill = float(np.sqrt(steps / HORIZON))
        candidates.append((f"features {steps} bars late", world.model(skill, 300 + steps)))
    volatile = np.abs(world.z) > 1
    candidates.append(("large moves known", world.model(np.where(volatile, 0.8, 0.0), 401)))
    candidates.append(("trained on the test rows", world.model(0.6, 402, sharpness=1.2)))
    candidates.append(("centred smoothing", world.model(0.35, 403)))
    candidates.append(("neighbour's label as feature", world.model(0.45, 404)))
    rival = world.model(0.02, 1)
    for name, frame in candidates:
        verdict = gate.decide(frame, rival, POLICY, costs=COSTS, horizon_bars=HORIZON, checks=SERVED)
        caught = verdict.outcome != "promote" and any(
            c.passed is False and c.name.startswith("leak") for c in verdict.checks
        )
        found.append((name, "caught" if caught else verdict.outcome))
    return found


def false_promotions(first: int, years: int) -> list[dict[str, Any]]:
    """Years of attempts between equal models, seeds `first` to `first + years - 1`."""
    promoted = [
        seed for seed in range(first, first + years) if year_of_attempts(seed, 0.02, 0.02) is not None
    ]
    return [
        row("years of equal models with a promotion", len(promoted), None, f"of {years}, at most 5% asked")
    ]


def gains(repeats: int) -> list[dict[str, Any]]:
    """Promotions against the true gain in skill: in one attempt, and in a year of them."""
    results = []
    for gain in (0.0, 0.02, 0.04, 0.06, 0.08):
        share, alarmed, days = power(gain, repeats)
        results.append(row(f"promoted in one attempt, skill +{gain:.2f}", share, None, f"share of {repeats}"))
        results.append(row(f"leak alarm on an honest model, skill +{gain:.2f}", alarmed, None, "share"))
        results.append(row(f"median days to decide, skill +{gain:.2f}", days, None, "days"))
    for gain in (0.04, 0.08):
        won = [year_of_attempts(900 + seed, 0.02 + gain, 0.02) for seed in range(repeats // 3)]
        share = float(np.mean([w is not None for w in won]))
        results.append(
            row(f"promoted within a year of attempts, skill +{gain:.2f}", share, None, f"share of {len(won)}")
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=100, help="simulated years of weekly attempts")
    parser.add_argument("--first-year", type=int, default=0, help="seed of the first one")
    parser.add_argument("--power", type=int, default=40, help="repeats per effect size")
    parser.add_argument("--only", default="years,power,leaks", help="the parts to run")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    began = time.perf_counter()
    results = []
    if "years" in parts:
        results += false_promotions(arguments.first_year, arguments.years)
    if "power" in parts:
        results += gains(arguments.power)
    if "leaks" in parts:
        caught = leaks()
        for name, outcome in caught:
            print(f"  leak: {name:48} {outcome}")
        number = sum(o == "caught" for _, o in caught)
        results.append(row("planted leaks caught", number, None, f"of {len(caught)}"))
    results.append(row("seconds", time.perf_counter() - began, None, "s"))
    report("gate", results)


if __name__ == "__main__":
    main()

"""Time to detection and false alarms of monitoring's detectors, beside what a user would take instead.

    python benchmarks/monitoring.py [--lives 200] [--bars 4000]

Outcomes: many lives of a model on simulated bars (24 closes a day, labels of three classes over 4 bars, so that
outcomes overlap). The model is honest until the fault at half of its life: its probabilities are worth 53% of the
sign on the bars where it acts. False alarms are lives in which a detector alarmed before the fault. Peers: accuracy of
the newest 200 answers 5 points below the evaluated one; ADWIN and Page-Hinkley of river with their defaults on the
errors one by one.

Features: 60 features of simulated bars whose regime changes (calm, sideways, stormy), windows of 250 bars against
2,500 bars of training. The fault adds two standard deviations to a third of the features. Peer: evidently's default
rule above 1,000 reference rows, a normed Wasserstein distance of 0.1 or more in half of the columns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from _common import report, row
from river import drift
from scipy import stats

from barcast.bars import Calendar, adjusted
from barcast.bars.sources.simulator import simulate
from barcast.config.features import FeaturesConfig
from barcast.config.monitoring import MonitoringConfig
from barcast.operations.monitoring import outcomes
from barcast.operations.monitoring.drift import feature_drift

HORIZON = 4
LOOK_BLOCKS = 5  # monitoring looks after so many blocks; the peers look at every answer
SETTINGS = MonitoringConfig()
Values = np.ndarray


def life(seed: int, bars: int, fault: str) -> tuple[Values, Values]:
    """(bars, 3) probabilities and (bars,) classes; from half of the life on the fault holds."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(0, 1, bars + HORIZON + 1))
    forward = path[HORIZON + 1 :] - path[1:-HORIZON]
    label = np.digitize(forward[:bars], np.array([-0.43, 0.43]) * np.sqrt(HORIZON))
    knows, prior = 0.06, np.full(3, 1 / 3)
    half = bars // 2
    known = rng.random(bars) < knows
    if fault == "decay":
        known[half:] = False  # it goes on saying the same and knows nothing
    tip = np.where(known, label, rng.choice(3, bars, p=prior))
    p = knows * np.eye(3)[tip] + (1 - knows) * prior
    late = np.arange(bars)[:, None] >= half
    if fault == "poison":  # BUY and SELL change places, and it is sure of itself
        p = np.where(late, _normal(p[:, ::-1] ** 10), p)
    elif fault == "too sure":
        p = np.where(late, _normal(p**8), p)
    return p, label


def _normal(p: Values) -> Values:
    return p / p.sum(axis=1, keepdims=True)


def ours(p: Values, label: Values) -> dict[str, list[int]]:
    """The bars at which each of monitoring's alerts stands open, at the looks."""
    size = HORIZON + 1
    count = len(label) // size
    parts, truth = (np.split(a[: count * size], count) for a in (p, label))
    blocks = outcomes.Blocks.of(parts, truth, np.full(3, 1 / 3))
    found: dict[str, list[int]] = {"ours, harm": [], "ours, calibration": [], "ours, concept": []}
    for seen in range(LOOK_BLOCKS, count + 1, LOOK_BLOCKS):
        judged = outcomes.judge(blocks.first(seen), SETTINGS)
        for name, raised in zip(found, (judged.harmful, judged.tilted, judged.rise > 0), strict=True):
            if raised:
                found[name].append(seen * size + HORIZON + 1)
    return found


def fixed_window(p: Values, label: Values) -> list[int]:
    """Accuracy of the newest 200 answers, 5 points below the evaluated one."""
    correct = (p.argmax(axis=1) == label).astype(float)
    evaluated = 1 / 3 + 0.06 * 2 / 3
    sums = np.convolve(correct, np.ones(200), "valid") / 200
    return (np.flatnonzero(sums < evaluated - 0.05) + 200 + HORIZON).tolist()


def river(make: Callable[[], Any]) -> Callable[[Values, Values], list[int]]:
    """A detector of river on the errors one by one."""

    def alarms(p: Values, label: Values) -> list[int]:
        detector, found = make(), []
        for i, error in enumerate((p.argmax(axis=1) != label).astype(float)):
            detector.update(error)
            if detector.drift_detected:
                found.append(i + HORIZON + 1)
        return found

    return alarms


PEERS: dict[str, Callable[[Values, Values], list[int]]] = {
    "fixed window": fixed_window,
    "river ADWIN": river(drift.ADWIN),
    "river Page-Hinkley": river(drift.PageHinkley),
}


def measure(fault: str, lives: int, bars: int) -> dict[str, dict[str, float | None]]:
    """By detector: share of lives with an alarm before the fault, that found the fault, median bars until then."""
    half = bars // 2
    alarms: dict[str, list[list[int]]] = {}
    for seed in range(lives):
        p, label = life(seed, bars, fault)
        for name, found in {**ours(p, label), **{n: peer(p, label) for n, peer in PEERS.items()}}.items():
            alarms.setdefault(name, []).append(found)
    table: dict[str, dict[str, float | None]] = {}
    for name, every in alarms.items():
        delays = [later[0] - half for a in every if (later := [x for x in a if x >= half + HORIZON])]
        table[name] = {
            "false": sum(any(a < half for a in found) for found in every) / lives,
            "found": len(delays) / lives,
            "delay": float(np.median(delays)) if delays else None,
        }
    return table


def evidently(reference: pl.DataFrame, window: pl.DataFrame, names: list[str]) -> bool:
    """Its default rule above 1,000 reference rows: half of the columns with a normed Wasserstein distance of 0.1."""
    drifted = [
        stats.wasserstein_distance(reference[n], window[n]) >= 0.1 * float(reference[n].std() or 1e-3)  # type: ignore[arg-type]
        for n in names
    ]
    return bool(np.mean(drifted) >= 0.5)


def features(seeds: int) -> list[dict[str, Any]]:
    """False alarms and detections of feature drift on windows after the training."""
    from barcast import features as room

    config = FeaturesConfig(categories=("price_action", "technical"))
    counts = {name: [0, 0] for name in ("ours", "peer")}
    windows = 0
    for seed in range(seeds):
        bars = simulate(1, 6000, "1h", seed, calendar="24/7", start=datetime(2024, 1, 1, tzinfo=UTC))
        frame = room.compute(adjusted(bars), interval="1h", calendar=Calendar.of("24/7"), config=config)
        names = [n for n in frame.columns if n not in ("symbol", "event_timestamp", "created_timestamp")]
        names = names[:: max(1, len(names) // 60)][:60]
        frame = frame.select("symbol", "event_timestamp", "created_timestamp", *names).drop_nulls()
        reference = frame.head(2500)
        for first in range(2500, frame.height - 250, 250):
            window = frame.slice(first, 250)
            spoiled = window.with_columns(
                pl.col(n) + 2 * float(reference[n].std() or 0.0)
                for n in names[::3]  # type: ignore[arg-type]
            )
            windows += 1
            for place, rows in enumerate((window, spoiled)):
                found = feature_drift(reference, rows, SETTINGS.window_bars, 0.5)
                assert found is not None
                counts["ours"][place] += found.share > min(1.0, found.typical + SETTINGS.drift_margin)
                counts["peer"][place] += evidently(reference, rows, names)
    share = {who: [n / windows for n in both] for who, both in counts.items()}
    false = f"feature drift, false alarms in {windows} windows"
    return [
        row(false, share["ours"][0], share["peer"][0], "share", higher_is_better=False),
        row("feature drift, shifted windows found", share["ours"][1], share["peer"][1], "share"),
    ]


def main() -> None:
    """All tables, then one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lives", type=int, default=200)
    parser.add_argument("--bars", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    results = []
    for fault in ("poison", "too sure", "decay"):
        found = measure(fault, options.lives, options.bars)
        if fault == "poison":  # the first halves are the same lives for every fault
            for name, got in found.items():
                results.append(row(f"lives with a false alarm, {name}", got["false"], None, "share"))
        for name, got in found.items():
            results.append(row(f"{fault}, {name}: found", got["found"], None, "share of lives"))
            results.append(row(f"{fault}, {name}: time to detection", got["delay"], None, "bars, median"))
    report("monitoring", results + features(options.seeds))


if __name__ == "__main__":
    main()

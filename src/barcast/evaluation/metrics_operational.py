"""Operational metrics (D1): how long, how large, how fast a model learns and answers.

Loss curves, a call to time and a folder come in; plain numbers for the registry and the report's facts go
out.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def convergence(validation_loss: Sequence[float], *, seconds: float | None = None) -> dict[str, float]:
    """How quickly a training came to its best.

    Returns:
        epochs; best_epoch (from 1); epochs_to_99 (first epoch that has 99% of the whole fall of the loss; 1
        when it never fell); best_loss; and with `seconds` (of the whole training) training_seconds and
        seconds_per_epoch. NaN for an empty curve; epochs with NaN loss count, but are never the best.
    """
    curve = np.asarray(validation_loss, dtype=np.float64)
    if len(curve) == 0 or np.isnan(curve).all():
        out = {
            "epochs": float(len(curve)),
            "best_epoch": math.nan,
            "epochs_to_99": math.nan,
            "best_loss": math.nan,
        }
    else:
        best = int(np.nanargmin(curve))
        start = float(curve[~np.isnan(curve)][0])
        goal = start - 0.99 * (start - float(curve[best]))
        reached = int(np.flatnonzero(curve <= goal + 1e-15)[0])
        out = {
            "epochs": float(len(curve)),
            "best_epoch": best + 1.0,
            "epochs_to_99": reached + 1.0,
            "best_loss": float(curve[best]),
        }
    if seconds is not None:
        out |= {
            "training_seconds": seconds,
            "seconds_per_epoch": seconds / len(curve) if len(curve) else math.nan,
        }
    return out


def latency_ms(call: Callable[[], object], *, repeats: int = 50, warm_up: int = 3) -> dict[str, float]:
    """Milliseconds of one call, after warming up: p50, p95, p99, mean."""
    for _ in range(warm_up):
        call()
    taken = np.empty(repeats)
    for i in range(repeats):
        began = time.perf_counter()
        call()
        taken[i] = time.perf_counter() - began
    p50, p95, p99 = np.quantile(taken * 1e3, [0.5, 0.95, 0.99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "mean": float(taken.mean() * 1e3)}


def folder_bytes(path: Path) -> int:
    """Size on disk of a model directory, all files together."""
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

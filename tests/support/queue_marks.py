"""Job functions for real worker processes: each leaves a mark when it starts and when it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

FOLDER = "QUEUE_MARKS"


def mark(word: str, symbol: str) -> None:
    """One line, appended at once: `word symbol process time`."""
    line = f"{word} {symbol} {os.getpid()} {time.monotonic()}\n".encode()
    with open(Path(os.environ[FOLDER]) / "marks", "ab", buffering=0) as file:
        file.write(line)


def marks(folder: Path) -> list[tuple[str, str, int, float]]:
    path = folder / "marks"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(w, s, int(p), float(t)) for w, s, p, t in (line.split() for line in lines)]


def quick(config: Any, job: Any) -> dict[str, Any]:
    mark("start", job.symbol)
    time.sleep(0.02)
    mark("end", job.symbol)
    return {"attempt": job.attempt}


def hangs_at_first(config: Any, job: Any) -> dict[str, Any]:
    """The first start hangs until it is killed, the second is quick."""
    mark("start", job.symbol)
    if job.attempt == 1:
        time.sleep(60)
    mark("end", job.symbol)
    return {"attempt": job.attempt}


def fails(config: Any, job: Any) -> dict[str, Any]:
    raise RuntimeError(f"no luck with {job.symbol}")


def slow(config: Any, job: Any) -> dict[str, Any]:
    """Two seconds: longer than many signs of life."""
    mark("start", job.symbol)
    time.sleep(2)
    mark("end", job.symbol)
    return {"attempt": job.attempt}

"""What every benchmark shares: the machine's description, the data folder, the table and the last JSON line."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any


def machine() -> str:
    """The machine in words: processor, cores, memory, Python."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def shared_data() -> Path | None:
    """The folder with real intraday bars (BARCAST_SHARED_DATA, else ../shared/data), or None where absent."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("BARCAST_SHARED_DATA", default))
    return folder if folder.is_dir() else None


def row(
    name: str, ours: float | None, peer: float | None, unit: str, *, higher_is_better: bool = True
) -> dict[str, Any]:
    """One result. `ratio` is how many times better ours is than the peer (None without a peer)."""
    ratio = None
    if ours is not None and peer is not None and ours and peer:
        ratio = ours / peer if higher_is_better else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit}


def report(name: str, results: list[dict[str, Any]]) -> None:
    """Print the table and, last, the one JSON line."""
    width = max(len(r["name"]) for r in results)
    print(f"\n{'':{width}}  {'ours':>12} {'peer':>12} {'ratio':>8}  unit")
    for r in results:
        cells = [
            f"{r[k]:>{w}.4g}" if r[k] is not None else f"{'-':>{w}}"
            for k, w in (("ours", 12), ("peer", 12), ("ratio", 8))
        ]
        print(f"{r['name']:{width}}  {' '.join(cells)}  {r['unit']}")
    print(json.dumps({"benchmark": name, "results": results, "machine": machine()}))

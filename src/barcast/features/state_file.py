"""The stream's state on disk: one file of plain arrays with a checksum; nothing in it is ever executed.

Layout: 8 bytes magic, 32 bytes SHA-256 of the rest, then a NumPy archive (arrays, and one JSON text with what
they mean).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from barcast.errors import DataError
from barcast.features.compiling import source_stamp
from barcast.features.memory import Memory
from barcast.features.plan import Plan

_MAGIC = b"BARCAST1"


def fingerprint(p: Plan) -> str:
    """Identifies the features and the code that the state belongs to."""
    digest = hashlib.sha256()
    digest.update(repr((p.interval, p.names, p.state_at.tolist(), p.config.model_dump_json())).encode())
    for feature in p.user:  # another formula may stand under the same name
        digest.update(feature.digest.encode())
    digest.update(source_stamp(Path(__file__).with_name("plan.py"))[0].encode())
    return digest.hexdigest()


def write(path: Path, memory: Memory, last_us: int, prompt_known: int) -> None:
    """Write the memory to `path`: to a temporary name first, then by rename."""
    meta = {
        "fingerprint": fingerprint(memory.plan),
        "interval": memory.plan.interval,
        "features": len(memory.plan.specs),
        "symbols": memory.symbols,
        "calendars": [clock.name for clock in memory.clocks],
        "last_us": last_us,
        "prompt_known": prompt_known,
    }
    arrays: dict[str, Any] = {f"m_{k}": v for k, v in memory.arrays.items()}
    arrays |= {f"c_{k}": v for k, v in memory.cross.arrays.items()}
    body = io.BytesIO()
    np.savez(body, meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8), **arrays)
    data = body.getvalue()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(_MAGIC + hashlib.sha256(data).digest() + data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path, p: Plan, calendar: Any) -> tuple[Memory, int, int]:
    """The memory in `path`, with the newest close time and when its prompt bars were known.

    Raises:
        DataError: missing, damaged, or of another interval, calendar or set of features.
    """
    again = "Delete it and warm the stream up from the bar store."
    if not path.exists():
        raise DataError(
            f"There is no stream state at {path}.", hint="Warm the stream up from the bar store first."
        )
    raw = path.read_bytes()
    if raw[:8] != _MAGIC or hashlib.sha256(raw[40:]).digest() != raw[8:40]:
        raise DataError(f"The stream state {path} is damaged: its checksum does not match.", hint=again)
    with np.load(io.BytesIO(raw[40:]), allow_pickle=False) as archive:
        meta = json.loads(archive["meta"].tobytes())
        arrays = {name: archive[name] for name in archive.files if name != "meta"}
    was = dict(zip(meta["symbols"], meta["calendars"], strict=True))
    expected = {symbol: calendar(symbol).name for symbol in was}
    if meta["interval"] != p.interval:
        raise DataError(
            f"The stream state {path} is of {meta['interval']} bars; {p.interval} bars were expected.",
            hint=again,
        )
    moved = [symbol for symbol in was if was[symbol] != expected[symbol]]
    if moved:
        raise DataError(
            f"The stream state {path} has {moved[0]} on {was[moved[0]]}; {expected[moved[0]]} was expected "
            f"({len(moved)} symbol(s)).",
            hint=again,
        )
    if meta["fingerprint"] != fingerprint(p):
        raise DataError(
            f"The stream state {path} belongs to another set of features or version ({meta['features']} features; now "
            f"{len(p.specs)}).",
            hint=again,
        )
    memory = Memory(p, calendar)
    memory.add(meta["symbols"])
    for owner, prefix in ((memory.arrays, "m_"), (memory.cross.arrays, "c_")):
        for name, array in owner.items():
            found = arrays[prefix + name]
            if found.shape != array.shape or found.dtype != array.dtype:
                raise DataError(f"The stream state {path} does not fit: {name} is {found.shape}.", hint=again)
            owner[name] = found
    return memory, int(meta["last_us"]), int(meta["prompt_known"])

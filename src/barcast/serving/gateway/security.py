"""Who may come in and how often: API keys kept as salted hashes, a token bucket per key, size limits on bodies.

A key is shown once, when it is made; the file holds only its scrypt hash. Nothing here writes a key, a header or a body
into a log.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from barcast.durable import write_atomic
from barcast.errors import ConfigError, RefusedError, ServingError

Role = Literal["read", "write"]
_PREFIX = "bk"
_N, _R, _P = 2**12, 8, 1  # keys are 256 random bits: the hash need not be slow, only one-way
_CACHE = 1000


@dataclass(frozen=True)
class Caller:
    """Who is asking."""

    name: str
    role: Role


class KeyFile:
    """API keys of a workspace, one JSON file; read again when it changes, so that a revoked key stops at once.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, dict[str, str]] = {}
        self._checked: OrderedDict[str, Caller] = OrderedDict()

    def make(self, name: str, role: Role) -> str:
        """A new key, shown only now.

        Raises:
            ConfigError: the name is empty or too long.
            RefusedError: it is taken.
        """
        if not name.strip() or len(name) > 64 or not name.isprintable():
            raise ConfigError(f"{name!r} cannot name a key.", hint="Use at most 64 printable characters.")
        with self._lock:
            keys = self._read()
            if any(entry["name"] == name for entry in keys.values()):
                raise RefusedError(
                    f"There is a key named {name!r}.", hint="Revoke it first, or choose another name."
                )
            number, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_hex(16)
            keys[number] = {"name": name, "role": role, "salt": salt, "hash": _hash(secret, salt)}
            self._write(keys)
        return f"{_PREFIX}.{number}.{secret}"

    def revoke(self, name: str) -> None:
        """Take a key back.

        Raises:
            ConfigError: there is none of this name.
        """
        with self._lock:
            keys = self._read()
            kept = {k: v for k, v in keys.items() if v["name"] != name}
            if len(kept) == len(keys):
                raise ConfigError(f"There is no key named {name!r}.")
            self._write(kept)

    def names(self) -> list[tuple[str, str]]:
        """Name and role of each key."""
        with self._lock:
            return sorted((v["name"], v["role"]) for v in self._read().values())

    def met(self, key: str) -> Caller | None:
        """Who this key belongs to, if `caller` has said so before: costs no hash."""
        with self._lock:
            self._read()
            return self._checked.get(_digest(key))

    def caller(self, key: str) -> Caller | None:
        """Who this key belongs to; None when to nobody. Costs a hash (tens of milliseconds)."""
        parts = key.split(".")
        if len(parts) != 3 or parts[0] != _PREFIX or len(key) > 256:
            return None
        with self._lock:
            entry = self._read().get(parts[1])
        # An unknown number costs as much as a known one, so that time tells nothing.
        salt = entry["salt"] if entry is not None else "00" * 16
        right = hmac.compare_digest(_hash(parts[2], salt), entry["hash"] if entry is not None else "")
        if not right or entry is None:
            return None
        caller = Caller(entry["name"], "write" if entry["role"] == "write" else "read")
        with self._lock:
            if self._read().get(parts[1]) != entry:  # revoked while it was hashed
                return None
            self._checked[_digest(key)] = caller
            while len(self._checked) > _CACHE:
                self._checked.popitem(last=False)
        return caller

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, {}
            self._checked.clear()
            return {}
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            try:
                loaded = json.loads(self._path.read_text(encoding="utf-8"))
                self._keys = {
                    k: {n: str(v[n]) for n in ("name", "role", "salt", "hash")} for k, v in loaded.items()
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ServingError(
                    f"The key file {self._path} is damaged.", hint="Make the keys again."
                ) from error
            self._stamp = stamp
            self._checked.clear()
        return dict(self._keys)

    def _write(self, keys: dict[str, dict[str, str]]) -> None:
        write_atomic(self._path, json.dumps(keys, indent=1))
        self._path.chmod(0o600)
        self._stamp = None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _hash(secret: str, salt: str) -> str:
    return hashlib.scrypt(secret.encode(), salt=bytes.fromhex(salt), n=_N, r=_R, p=_P).hex()


class RateLimit:
    """A token bucket per caller: `burst` at once, refilled evenly by `per_minute`.

    Args:
        timer: monotonic seconds (tests give their own).
    """

    def __init__(self, per_minute: int, burst: int, timer: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._timer = per_minute / 60.0, float(burst), timer
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, caller: str) -> float:
        """0 when the request may pass, else the seconds to wait."""
        now = self._timer()
        with self._lock:
            tokens, then = self._buckets.pop(caller, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._rate)
            wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
            self._buckets[caller] = (tokens - 1.0 if wait == 0.0 else tokens, now)
            while len(self._buckets) > 10_000:
                self._buckets.popitem(last=False)
            return wait

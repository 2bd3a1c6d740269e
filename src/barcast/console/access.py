"""Who may enter the console: tokens of persons, sessions, the form token against forged requests, a brake on guessing.

A person's token is kept as a hash. Without persons one token is made at start and shown to whoever started
it. Sessions live in memory: a restart asks everybody again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from barcast.durable import write_atomic
from barcast.errors import ConfigError

COOKIE = "barcast_console"
PERSONS_FILE = "console_persons.json"  # in the workspace's state: hashes of persons' tokens
MAX_FAILURES, FAILURE_WINDOW_SECONDS = 8, 60.0


@dataclass
class Session:
    """One person's visit."""

    person: str
    csrf: str
    seen: float
    messages: list[tuple[str, str]] = field(default_factory=list)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Access:
    """The door of one console.

    Args:
        persons_file: JSON of name → SHA-256 of the person's token; may be absent.
        session_minutes: a visit ends after so long without a request.
    """

    def __init__(self, persons_file: Path, session_minutes: int) -> None:
        self.persons_file = persons_file
        self.session_seconds = session_minutes * 60.0
        self.start_token = "" if self.persons() else secrets.token_urlsafe(24)
        self._sessions: dict[str, Session] = {}
        self._failures: deque[float] = deque()
        self._lock = threading.Lock()

    def persons(self) -> dict[str, str]:
        """Name → hash of the token.

        Raises:
            ConfigError: the file is damaged.
        """
        if not self.persons_file.exists():
            return {}
        try:
            raw = json.loads(self.persons_file.read_text())
            return {str(name): str(value) for name, value in raw.items()}
        except (ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.persons_file} cannot be read ({error}).", hint="Delete it and add the persons again."
            ) from error

    def add_person(self, name: str) -> str:
        """Make (or replace) a person's token and return it; only its hash is kept.

        Raises:
            ConfigError: the name is empty or too long.
        """
        name = name.strip()
        if not 0 < len(name) <= 64 or not name.isprintable():
            raise ConfigError(f"{name!r} is no name.", hint="Give 1 to 64 printable characters.")
        token = secrets.token_urlsafe(24)
        persons = {**self.persons(), name: _hash(token)}
        write_atomic(self.persons_file, json.dumps(persons, indent=1, sort_keys=True))
        self.persons_file.chmod(0o600)
        return token

    @property
    def asks_name(self) -> bool:
        """Whether the login form must ask who it is (one token for all)."""
        return bool(self.start_token)

    def braked(self) -> bool:
        """Whether too many wrong tokens came in the last minute."""
        with self._lock:
            while self._failures and self._failures[0] < time.monotonic() - FAILURE_WINDOW_SECONDS:
                self._failures.popleft()
            return len(self._failures) >= MAX_FAILURES

    def enter(self, token: str, name: str) -> str | None:
        """A new session's id for a good token, else None. `name` counts only where one token serves all."""
        person = self._person(token, name.strip())
        with self._lock:
            if person is None:
                self._failures.append(time.monotonic())
                return None
            identity = secrets.token_urlsafe(32)
            for old in [key for key, kept in self._sessions.items() if self._over(kept)]:
                del self._sessions[old]  # of visitors who never came back to find it over
            self._sessions[identity] = Session(person, secrets.token_urlsafe(32), time.monotonic())
            return identity

    def _person(self, token: str, name: str) -> str | None:
        if self.start_token:
            good = hmac.compare_digest(token.encode(), self.start_token.encode())
            return name if good and 0 < len(name) <= 64 and name.isprintable() else None
        found = None
        for person, kept in self.persons().items():  # all are compared, so that time tells nothing
            if hmac.compare_digest(_hash(token), kept):
                found = person
        return found

    def session(self, identity: str | None) -> Session | None:
        """The session of a cookie, if it is alive; its time starts anew."""
        with self._lock:
            found = self._sessions.get(identity or "")
            if found is None:
                return None
            if self._over(found):
                del self._sessions[identity or ""]
                return None
            found.seen = time.monotonic()
            return found

    def _over(self, session: Session) -> bool:
        return time.monotonic() - session.seen > self.session_seconds

    def leave(self, identity: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(identity or "", None)

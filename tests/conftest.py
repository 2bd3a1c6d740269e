"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real intraday bars; a checkout without them skips the tests that need them."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("BARCAST_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("needs the real intraday bars (set BARCAST_SHARED_DATA)")
    return folder

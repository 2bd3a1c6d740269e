"""The suite's small models, for the tests of the embedded server alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from conformance_models import save_affine, save_rich


@pytest.fixture(scope="session")
def affine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version: y = 2 x + 1 on (B, 3)."""
    path = tmp_path_factory.mktemp("affine") / "1"
    save_affine(path, factor=2.0)
    return path


@pytest.fixture(scope="session")
def rich_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version with every kind of signature, factor 2."""
    path = tmp_path_factory.mktemp("rich") / "1"
    save_rich(path, factor=2.0)
    return path

"""An applied store on the embedded stores."""

from __future__ import annotations

from pathlib import Path

import pytest
from feast_world import CROSS, NAMES, make_config

from barcast.adapters.feast import FeatureStore
from barcast.workspace import Workspace


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    made = FeatureStore(Workspace("small", tmp_path), make_config(), NAMES, cross_symbol=CROSS)
    made.apply()
    return made

"""The step that brings bars in: what it tells the steps after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from barcast import steps
from barcast.config import load


def test_the_key_of_cached_steps_changes_with_the_users_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(run))
    own = tmp_path / "own.py"
    plain = load(None, root=tmp_path)
    config = plain.model_copy(
        update={"features": plain.features.model_copy(update={"user_features": str(own)})}
    )
    found = []
    for content in ("FEATURES = []", "FEATURES = []  # another formula"):
        own.write_text(content)
        found.append(steps.ingest(config.model_dump_json(), "r1", str(tmp_path / "bars.parquet")))
    without = steps.ingest(plain.model_dump_json(), "r1", str(tmp_path / "bars.parquet"))
    assert found[0]["data_hash"] == found[1]["data_hash"] == without["data_hash"]
    assert len({found[0]["cache_key"], found[1]["cache_key"], without["data_hash"]}) == 3
    assert without["cache_key"] == without["data_hash"]

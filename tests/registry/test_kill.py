"""A process killed (SIGKILL) at any point of a promotion, rollback or traffic change leaves what was live,
live.

Each case: a copy of a prepared registry, a forked process that changes it and is killed at one chosen call
that touches disk or MLflow, then a look at what a model server would load, then the same change again.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from barcast.adapters.mlflow import Tracking
from barcast.config.registry import RegistryConfig
from barcast.errors import RegistryError
from barcast.registry import Recorded, Registry
from barcast.registry.ledger import Ledger
from barcast.workspace import Workspace

MODEL = "daily.AAPL"
FORK = multiprocessing.get_context("fork")
Change = Callable[[Registry], object]


def answer(recorded: Callable[[float], Recorded], version: int) -> Mapping[str, np.ndarray]:
    return recorded(version).outputs


def changes(
    recorded: Callable[[float], Recorded],
) -> dict[str, tuple[Change, dict[str, int], dict[str, int]]]:
    """What is done, the labels before it, and those after it."""

    def ask(_: str, version: int, __: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return answer(recorded, version)

    before = {"stable": 2, "previous": 1}
    return {
        "promote": (lambda r: r.promote("AAPL", 3, ask=ask), before, {"stable": 3, "previous": 2}),
        "rollback": (lambda r: _rollback(r, ask), before, {"stable": 1}),
        "traffic": (
            lambda r: r.set_traffic("AAPL", 3, mode="ab", share=0.2, by="ana", reason="try", ask=ask),
            before,
            {**before, "canary": 3},
        ),
    }


def _rollback(registry: Registry, ask: Any) -> None:
    try:
        registry.rollback("AAPL", 1, by="bo", reason="losing", ask=ask)
    except RegistryError as error:  # it took effect before the kill; the recovery has closed it
        if "is live already" not in str(error):
            raise


def opened(base: Path) -> Registry:
    return Registry(Workspace("daily", base), RegistryConfig(retry_attempts=2, retry_wait_seconds=0.01))


def in_child(work: Callable[[], None]) -> int:
    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode if process.exitcode is not None else -999


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path, pieces: SimpleNamespace) -> Path:
    """Version 1 served, version 2 serves, version 3 is approved; made in a child, so that no database is open
    here."""
    base = tmp_path_factory.mktemp("prepared") / "state"
    base.mkdir()
    shutil.copyfile(empty_mlflow, base / "mlflow.db")

    def work() -> None:
        registry = opened(base)
        for salt in (1, 2, 3):
            folder = pieces.model_folder(base.parent / f"export-{salt}", salt)
            version = registry.register(folder, "AAPL", pieces.metadata(), recorded=pieces.recorded(salt))
            registry.judge("AAPL", version, pieces.PROMOTE)
            registry.set_challenger("AAPL", version)
            registry.approve("AAPL", by="ana", reason="better")
            if salt < 3:
                registry.promote("AAPL")

    assert in_child(work) == 0
    return base


def instrument(stop_at: int | None, log: Path | None) -> None:
    """Count every call that touches disk or MLflow, before and after it; kill this process at the chosen
    one."""
    count = iter(range(1_000_000))

    def point(name: str) -> None:
        number = next(count)
        if log is not None:
            with log.open("a") as handle:
                handle.write(name + "\n")
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            point(f"before {name}")
            result = real(*arguments, **options)
            point(f"after {name}")
            return result

        setattr(owner, name, wrapped)

    for name in ("replace", "rename", "fsync"):
        wrap(os, name)
    for name in ("set_alias", "fetch", "tag_model"):
        wrap(Tracking, name)
    wrap(Ledger, "append")
    wrap(shutil, "rmtree")


def points(prepared: Path, tmp_path: Path, change: Change) -> list[str]:
    """The names of all points of an undisturbed change."""
    base, log = tmp_path / "dry", tmp_path / "points"
    shutil.copytree(prepared, base)

    def work() -> None:
        instrument(None, log)
        change(opened(base))

    assert in_child(work) == 0
    return log.read_text().splitlines()


def check_kill(
    prepared: Path,
    base: Path,
    change: Change,
    stop_at: int,
    before: dict[str, int],
    after: dict[str, int],
) -> bool:
    """Kill at one point, look, and complete. Returns whether the change had taken effect."""
    shutil.copytree(prepared, base)

    def work() -> None:
        instrument(stop_at, None)
        change(opened(base))

    assert in_child(work) == -signal.SIGKILL

    def look() -> None:
        registry = opened(base)
        live = {k: v for k, v in registry.live.read()[MODEL].items() if k != "staged"}
        assert live in (before, after), live
        versions = registry.state().models[MODEL].versions
        for number in registry.live.read()[MODEL].values():  # whatever a server would load is whole
            registry.live.verify(MODEL, number, versions[number].digest)
        (base / "effect").write_text("after" if live == after else "before")
        change(registry)
        assert registry.live.read()[MODEL] == after
        assert registry.state().pending is None
        assert registry.verify() == []
        assert registry.tracking.aliases(MODEL)["champion"] == after["stable"]

    assert in_child(look) == 0
    took_effect = (base / "effect").read_text() == "after"
    shutil.rmtree(base)
    return took_effect


@pytest.mark.parametrize("name", ["promote", "rollback", "traffic"])
def test_kill_at_some_points_leaves_a_whole_champion(
    name: str, prepared: Path, pieces: SimpleNamespace, tmp_path: Path
) -> None:
    change, before, after = changes(pieces.recorded)[name]
    names = points(prepared, tmp_path, change)
    renames = [i for i, point in enumerate(names) if point.endswith("replace")]
    spread = range(0, len(names), max(1, len(names) // 4))
    for number in sorted({*spread, renames[0], renames[-4], renames[-3]}):
        check_kill(prepared, tmp_path / "state", change, number, before, after)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["promote", "rollback", "traffic"])
def test_kill_at_every_point_leaves_a_whole_champion(
    name: str, prepared: Path, pieces: SimpleNamespace, tmp_path: Path
) -> None:
    change, before, after = changes(pieces.recorded)[name]
    names = points(prepared, tmp_path, change)
    effects = [
        check_kill(prepared, tmp_path / "state", change, number, before, after)
        for number in range(len(names))
    ]
    # One moment divides them: the old is live at every point before it, the new at every point after it.
    assert effects == sorted(effects)
    assert names[effects.index(True)] == "after replace"

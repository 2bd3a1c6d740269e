"""The life cycle alone, with loads that fail: many versions at once, and what a failure keeps in memory."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from barcast.serving.model_server.lifecycle import Loader, Manager
from barcast.serving.model_server.model_config import ModelConfig, VersionPolicy
from barcast.serving.model_server.status import invalid
from barcast.serving.model_server.version import State


@contextmanager
def managed(load: Loader, base: Path) -> Iterator[Manager]:
    manager = Manager(load, max_retries=0, poll_seconds=0.1)
    manager.start()
    try:
        manager.configure({"m": ModelConfig("m", base, policy=VersionPolicy("all"))})
        manager.wait_until_decided({"m"})
        yield manager
    finally:
        manager.stop()


def test_any_number_of_versions_is_begun_at_once(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / str(number)).mkdir()
    tried: list[int] = []

    def load(_name: str, number: int, _path: Path) -> None:
        tried.append(number)
        raise invalid("no such model")

    with managed(load, tmp_path) as manager:  # type: ignore[arg-type]
        assert tried == sorted(range(1200), reverse=True)
        assert {version.state for version in manager.versions("m")} == {State.END}


def test_a_failed_load_keeps_its_text_and_not_its_graph(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    graphs: list[weakref.ref[Manager]] = []

    def load(name: str, _number: int, _path: Path) -> None:
        graph = Manager(load)  # type: ignore[arg-type]  # stands for what a load holds while it fails
        graphs.append(weakref.ref(graph))
        raise invalid(f"the warm-up of {name} failed")

    with managed(load, tmp_path) as manager:  # type: ignore[arg-type]
        (version,) = manager.versions("m")
        assert version.describes_failure == (
            "{{name: m version: 1} due to error: INVALID_ARGUMENT: the warm-up of m failed}"
        )
        gc.collect()
        assert graphs[0]() is None


def test_a_path_that_cannot_be_is_missing_and_stops_no_other_model(tmp_path: Path) -> None:
    manager = Manager(lambda _name, number, _path: Loaded(number), max_retries=0, poll_seconds=0.05)  # type: ignore[arg-type, return-value]
    manager.start()
    try:
        manager.configure({"m": ModelConfig("m", tmp_path), "odd": ModelConfig("odd", tmp_path / "a\0b")})
        assert [model.name for model in manager.missing()] == ["m", "odd"]
        (tmp_path / "1").mkdir()
        assert manager.wait_until_decided({"m"}, until=time.monotonic() + 10) == {}
    finally:
        manager.stop()


class Loaded:
    """What a load gives, as far as the life cycle looks at it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Nothing is held."""

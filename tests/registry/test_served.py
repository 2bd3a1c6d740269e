"""Promotion, rollback and traffic against a real model server, seen through gRPC."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from barcast.config.registry import RegistryConfig
from barcast.errors import RegistryError, ServingError
from barcast.registry import Recorded, Registry
from barcast.registry.asking import server
from barcast.serving.client import ModelClient
from barcast.serving.model_server import start
from barcast.workspace import Workspace

NAME = "daily.AAPL"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Recorded]]:
    folder = tmp_path_factory.mktemp("exports")
    script = Path(__file__).with_name("saved_models.py")
    subprocess.run([sys.executable, str(script), str(folder), "1", "2", "3", "4"], check=True, timeout=120)

    def get(weight: str) -> tuple[Path, Recorded]:
        arrays = dict(np.load(folder / f"{weight}.npz"))
        inputs = {name: arrays.pop(name) for name in ("window", "symbol_id")}
        return folder / weight, Recorded(inputs, arrays)

    return get


@pytest.fixture
def serving(
    registry: Registry, exports: Callable[[str], tuple[Path, Recorded]], kit: SimpleNamespace
) -> Iterator[SimpleNamespace]:
    """Version 1 is live and served; `.challenge(weight)` registers and approves another."""

    def challenge(weight: str, recorded: Recorded | None = None) -> int:
        folder, answer = exports(weight)
        version = registry.register(folder, "AAPL", kit.metadata(), recorded=recorded or answer)
        registry.judge("AAPL", version, kit.PROMOTE)
        registry.set_challenger("AAPL", version)
        return registry.approve("AAPL", by="ana", reason="better")

    challenge("1")
    registry.promote("AAPL")
    quick = {"file_system_poll_wait_seconds": 0.2, "model_config_file_poll_wait_seconds": 0.2}
    with (
        start(
            model_config_file=registry.live.path,
            xla_cpu_compilation_enabled=False,
            allow_version_labels_for_unavailable_models=True,
            **quick,
        ) as running,
        server(running.endpoint) as ask,
        ModelClient(running.endpoint) as client,
    ):
        assert ask is not None

        def answers(label: str, weight: str, patience_seconds: float = 5.0) -> float:
            """Seconds until `label` gives the answer of the model with `weight`."""
            recorded = exports(weight)[1]
            begun = time.monotonic()
            while True:
                try:
                    outputs = client.predict(NAME, recorded.inputs, label=label).outputs
                except ServingError:  # the server has not read the new file yet
                    outputs = {}
                if max(recorded.differences(outputs).values()) < 1e-5:
                    return time.monotonic() - begun
                assert time.monotonic() - begun < patience_seconds, f"{label} does not answer as {weight}"
                time.sleep(0.02)

        yield SimpleNamespace(registry=registry, ask=ask, challenge=challenge, answers=answers, client=client)


def test_promote_and_roll_back_are_seen_through_grpc(serving: SimpleNamespace) -> None:
    registry = serving.registry
    serving.answers("stable", "1")
    serving.challenge("2")
    registry.promote("AAPL", ask=serving.ask)
    serving.answers("stable", "2")
    assert registry.history("AAPL")[-1]["details"]["confirmed"]["probabilities"] < 1e-5

    begun = time.monotonic()
    registry.rollback("AAPL", by="bo", reason="losing", ask=serving.ask)
    serving.answers("stable", "1")
    assert time.monotonic() - begun < 5.0
    assert registry.live.read()[NAME] == {"stable": 1}

    serving.challenge("3")  # version 2 is not loaded any more: going back to it loads it again
    registry.promote("AAPL", ask=serving.ask)
    serving.answers("stable", "3")
    begun = time.monotonic()
    registry.rollback("AAPL", 2, by="bo", reason="back to the second", ask=serving.ask)
    serving.answers("stable", "2")
    assert time.monotonic() - begun < 5.0
    assert registry.verify() == []


def test_version_that_answers_wrongly_never_takes_over(
    serving: SimpleNamespace, exports: Callable[[str], tuple[Path, Recorded]]
) -> None:
    registry = serving.registry
    serving.challenge("2", recorded=exports("3")[1])  # what is served is not what was recorded
    with pytest.raises(RegistryError, match="answers differently from what was evaluated"):
        registry.promote("AAPL", ask=serving.ask)
    serving.answers("stable", "1", 1.0)
    assert registry.live.read() == {NAME: {"stable": 1}}
    assert registry.tracking.aliases(NAME) == {"champion": 1, "challenger": 2}
    assert registry.history("AAPL")[-1]["action"] == "abandoned"
    assert registry.verify() == []


@pytest.mark.slow
def test_canary_is_loaded_beside_the_champion_and_unloaded(serving: SimpleNamespace) -> None:
    registry = serving.registry
    version = serving.challenge("2")
    registry.set_traffic("AAPL", version, mode="shadow", by="ana", reason="look", ask=serving.ask)
    serving.answers("canary", "2")
    serving.answers("stable", "1")
    assert registry.traffic() == {NAME: {"mode": "shadow", "share": 1.0, "version": 2}}
    registry.clear_traffic("AAPL", by="ana", reason="seen enough")
    deadline = time.monotonic() + 5
    while serving.client.versions(NAME).get(2) == "AVAILABLE":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert registry.traffic() == {}
    registry.promote("AAPL", ask=serving.ask)
    serving.answers("stable", "2")


def test_server_that_does_not_load_the_version_leaves_the_champion(
    registry: Registry, promoted: Callable[..., int], register: Callable[..., int], kit: SimpleNamespace
) -> None:
    promoted("AAPL")
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    registry.approve("AAPL", by="ana", reason="better")
    impatient = Registry(
        registry.workspace, registry.config.model_copy(update={"fingerprint_timeout_seconds": 0.3})
    )

    def deaf(*_: object) -> dict[str, np.ndarray]:
        raise ServingError("not available")

    with pytest.raises(RegistryError, match=r"gave no answer within 0\.3 s"):
        impatient.promote("AAPL", ask=deaf)
    assert registry.live.read() == {NAME: {"stable": 1}}
    assert registry.verify() == []


def _register(base: Path, folder: Path, metadata: dict[str, object]) -> None:
    Registry(Workspace("daily", base), RegistryConfig()).register(folder, "IBM", metadata)


@pytest.mark.slow
def test_register_without_recorded_answer_asks_the_model_itself(
    registry: Registry,
    exports: Callable[[str], tuple[Path, Recorded]],
    kit: SimpleNamespace,
) -> None:
    folder, _ = exports("4")
    worker = multiprocessing.get_context("spawn").Process(
        target=_register, args=(registry.workspace.base, folder, kit.metadata())
    )
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    text = registry.fingerprint_path("daily.IBM", 1).read_text()
    recorded = Recorded.from_json(text)
    assert recorded.inputs["window"].shape == (2, 4, 2)
    assert recorded.outputs["probabilities"].shape == (2, 3)
    assert recorded.differences(recorded.outputs) == dict.fromkeys(recorded.outputs, 0.0)
    broken = {**recorded.outputs, "confidence": np.array([np.nan, 0.5], np.float32)}
    assert recorded.differences(broken)["confidence"] == float("inf")

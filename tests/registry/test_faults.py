"""Tampering, damage and outages: a clear error, nothing half-done, and the way back."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from barcast.config.registry import RegistryConfig
from barcast.errors import RefusedError, RegistryError
from barcast.registry import Registry
from barcast.workspace import Workspace

Make = Callable[..., int]
NAME = "daily.AAPL"


@pytest.fixture
def approved(registry: Registry, promoted: Make, register: Make, kit: SimpleNamespace) -> Registry:
    """Version 1 serves; version 2 is approved and not promoted yet."""
    promoted("AAPL")
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    registry.approve("AAPL", by="ana", reason="better")
    return registry


def served(registry: Registry) -> int:
    return registry.live.read()[NAME]["stable"]


def test_alias_moved_in_mlflow_without_ledger_is_refused_and_alarmed(approved: Registry) -> None:
    approved.tracking.set_alias(NAME, "champion", 2)
    for _ in range(2):
        with pytest.raises(RegistryError, match="alias 'champion' points at 2, the ledger says 1"):
            approved.promote("AAPL")
    assert served(approved) == 1
    assert [e["action"] for e in approved.history("AAPL")].count("alarm") == 1  # once, not at every try
    assert any("alias 'champion' points at 2" in f.problem for f in approved.verify())

    assert approved.repair("AAPL", by="ana", reason="somebody clicked") == ["alias champion"]
    assert approved.promote("AAPL") == 2
    assert approved.verify() == []


def test_a_promotion_during_a_verification_is_no_inconsistency(
    approved: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, looked = approved.tracking.aliases, []

    def aliases(name: str) -> dict[str, int]:
        if not looked:  # between the ledger's reading and MLflow's, somebody promotes
            looked.append(name)
            other = Registry(approved.workspace, approved.config)
            assert other.promote("AAPL") == 2
        return asked(name)

    monkeypatch.setattr(approved.tracking, "aliases", aliases)
    assert approved.verify() == []
    assert looked


def test_models_config_edited_by_hand_is_refused_and_restored(approved: Registry) -> None:
    approved.live.write({NAME: {"stable": 1, "canary": 2}})
    with pytest.raises(RegistryError, match=r"models\.config says .*, the ledger"):
        approved.promote("AAPL")
    assert approved.repair("AAPL", by="ana", reason="edited by hand") == ["models.config"]
    assert approved.promote("AAPL") == 2


@pytest.mark.parametrize(
    "content", ["garbage {", "model_config_list { config { name: 'x' base_path: '/x' } }", "\xff"]
)
def test_unreadable_models_config_is_a_clear_error(approved: Registry, content: str) -> None:
    approved.live.path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RegistryError, match=r"models\.config"):
        approved.promote("AAPL")
    assert approved.repair("AAPL", by="ana", reason="damaged") == ["models.config"]


def test_ledger_tampered_with_stops_every_change(approved: Registry) -> None:
    text = approved.ledger.path.read_text()
    approved.ledger.path.write_text(text.replace('"ana"', '"eve"', 1))
    with pytest.raises(RegistryError, match="tampered with or damaged"):
        approved.promote("AAPL")
    assert served(approved) == 1
    assert approved.verify()


def test_ledger_cut_together_with_its_head_is_noticed_by_mlflow(approved: Registry) -> None:
    approved.promote("AAPL")
    lines = approved.ledger.path.read_bytes().splitlines(keepends=True)
    keep = next(i for i, line in enumerate(lines) if b'"version": 2' in line)  # all about version 2 is gone
    approved.ledger.path.write_bytes(b"".join(lines[:keep]))
    last = approved.ledger.inspect()[0][-1]
    approved.ledger.head_path.write_text(f'{{"number": {last.number}, "digest": "{last.digest}"}}')
    approved.ledger.read()  # the file alone looks well
    assert any("its end was cut off" in f.problem for f in approved.verify())


def test_artifact_changed_after_evaluation_is_not_promoted(approved: Registry) -> None:
    source = Path(approved.tracking.version(NAME, 2).source)
    (source / "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(RegistryError, match="not what was evaluated"):
        approved.promote("AAPL")
    assert served(approved) == 1
    assert not approved.live.directory(NAME, 2).exists()
    assert approved.tracking.aliases(NAME)["champion"] == 1


@pytest.mark.parametrize("damage", ["changed", "missing", "unknown", "manifest", "no manifest"])
def test_damaged_version_is_restored_before_a_rollback(
    registry: Registry, promoted: Make, damage: str
) -> None:
    promoted("AAPL")
    promoted("AAPL")
    directory = registry.live.directory(NAME, 1)
    if damage == "changed":
        (directory / "saved_model.pb").write_bytes(b"x")
    elif damage == "missing":
        (directory / "saved_model.pb").unlink()
    elif damage == "unknown":
        (directory / "extra.so").write_bytes(b"x")
    elif damage == "manifest":
        (directory / "manifest.json").write_text("{}")
    else:
        (directory / "manifest.json").unlink()
    assert [f.where for f in registry.verify()] == ["daily.AAPL version 1"]
    assert registry.rollback("AAPL", by="bo", reason="losing") == 1
    assert registry.verify() == []


def test_disk_full_while_placing_leaves_the_champion(
    approved: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == "models.config":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(RegistryError, match=r"could not be written.*the former champion is live"):
            approved.promote("AAPL")
    assert served(approved) == 1
    assert approved.tracking.aliases(NAME) == {"champion": 1, "challenger": 2}
    assert approved.promote("AAPL") == 2
    assert approved.verify() == []


def test_a_models_folder_that_cannot_be_written_leaves_the_champion_and_says_who_may(
    approved: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Any, target: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refused)
        with pytest.raises(
            RegistryError, match=r"Read-only file system; what was live is live still"
        ) as raised:
            approved.promote("AAPL")
    assert "promotion pipeline" in raised.value.hint
    assert served(approved) == 1
    assert approved.promote("AAPL") == 2
    assert approved.verify() == []


def test_version_made_in_mlflow_by_hand_is_not_registered(
    registry: Registry, promoted: Make, tmp_path: Path
) -> None:
    promoted("AAPL")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "saved_model.pb").write_bytes(b"x")
    registry.tracking.create_version(NAME, tmp_path / "x", parameters={}, metrics={}, tags={})
    assert [f.problem for f in registry.verify()] == ["is known to MLflow, not in the ledger."]
    with pytest.raises(RegistryError, match="no version 2 in the ledger"):
        registry.promote("AAPL", 2)


def test_version_directory_that_nobody_registered_is_reported(registry: Registry, promoted: Make) -> None:
    promoted("AAPL")
    (registry.live.directory(NAME, 99)).mkdir()
    assert "never registered" in registry.verify()[0].problem


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_registry_down_stops_after_retries_with_nothing_half_done(
    approved: Registry, kit: SimpleNamespace, tmp_path: Path, scheme: str
) -> None:
    uri = f"{scheme}://user:secret@127.0.0.1:{dead_port()}/mlflow".replace("http://user:secret@", "http://")
    uri = uri.replace("postgresql://", "postgresql+psycopg://")
    down = Registry(
        approved.workspace, RegistryConfig(tracking_uri=uri, retry_attempts=3, retry_wait_seconds=0.01)
    )
    lines = len(approved.ledger.read())
    with pytest.raises(RegistryError, match="after 3 tries") as caught:
        down.promote("AAPL")
    assert "secret" not in str(caught.value)
    with pytest.raises(RegistryError, match="after 3 tries"):
        down.register(kit.model_folder(tmp_path / "e", 9), "AAPL", kit.metadata(), recorded=kit.recorded())
    with pytest.raises(RegistryError, match="after 3 tries"):
        down.reject("AAPL", by="ana", reason="x")
    assert len(approved.ledger.read()) == lines
    assert served(approved) == 1
    assert approved.promote("AAPL") == 2


def test_mlflow_that_dies_in_the_middle_of_a_promotion_is_undone_later(
    approved: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise RegistryError("MLflow could not answer after 3 tries")

    with monkeypatch.context() as patch:
        patch.setattr(approved.tracking, "set_alias", away)
        patch.setattr(approved.tracking, "fetch", approved.tracking.fetch)
        with pytest.raises(RegistryError, match="could not answer"):
            approved.promote("AAPL")
    assert served(approved) == 1
    assert approved.promote("AAPL") == 2
    assert approved.verify() == []


def test_rollback_while_mlflow_is_down_works_and_the_alias_follows(
    registry: Registry, promoted: Make
) -> None:
    promoted("AAPL")
    promoted("AAPL")
    uri = f"http://127.0.0.1:{dead_port()}"
    down = Registry(
        registry.workspace, RegistryConfig(tracking_uri=uri, retry_attempts=2, retry_wait_seconds=0.01)
    )
    assert down.rollback("AAPL", by="bo", reason="losing") == 1
    assert served(registry) == 1
    assert registry.tracking.aliases(NAME)["champion"] == 2
    assert registry.verify() == []  # the ledger says that the alias follows
    promoted("AAPL")
    assert registry.tracking.aliases(NAME)["champion"] == 3


def test_automatic_rollback_goes_to_the_last_good_version_and_stops_at_its_limit(
    registry: Registry, promoted: Make
) -> None:
    for _ in range(3):
        promoted("AAPL")
    assert registry.rollback_automatically("AAPL", reason="accuracy 0.31", evidence={"accuracy": 0.31}) == 2
    assert registry.live.read()[NAME] == {"stable": 2, "previous": 1}
    assert registry.rollback_automatically("AAPL", reason="accuracy 0.33") == 1
    assert registry.history("AAPL")[-1]["by"] == "policy:degradation"
    with pytest.raises(RefusedError, match="rolled back by policy 2 times"):
        registry.rollback_automatically("AAPL", reason="accuracy 0.30")
    assert served(registry) == 1


def test_two_monitors_that_find_the_same_version_harmful_roll_it_back_once(
    registry: Registry, promoted: Make
) -> None:
    for _ in range(3):
        promoted("AAPL")

    def degraded(_: int) -> int | None:
        again = Registry(registry.workspace, registry.config)
        return again.rollback_automatically("AAPL", reason="accuracy 0.31", version=3)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(degraded, range(2))) == [2, 2]
    assert degraded(0) == 2  # nor does evidence that comes late touch what answers now
    assert served(registry) == 2
    assert [e["action"] for e in registry.history("AAPL")].count("rolled_back") == 1


def test_automatic_rollback_without_an_earlier_version_retires_the_model(
    registry: Registry, promoted: Make
) -> None:
    promoted(None)
    promoted("AAPL")
    assert registry.rollback_automatically("AAPL", reason="accuracy 0.31") is None
    assert registry.incumbent("AAPL") == ("daily.universal", 1, "network")
    assert registry.live.read() == {"daily.universal": {"stable": 1}}
    assert registry.tracking.aliases(NAME) == {}
    with pytest.raises(RefusedError, match="nothing stands behind the universal model"):
        registry.rollback_automatically(None, reason="accuracy 0.31")


def test_rollback_goes_only_to_versions_that_served(
    registry: Registry, promoted: Make, register: Make, kit: SimpleNamespace
) -> None:
    promoted("AAPL")
    register("AAPL", kit.PROMOTE)
    with pytest.raises(RegistryError, match="no earlier good version"):
        registry.rollback("AAPL", by="bo", reason="x")
    with pytest.raises(RegistryError, match="version 2 never served"):
        registry.rollback("AAPL", 2, by="bo", reason="x")
    with pytest.raises(RegistryError, match="is live already"):
        registry.rollback("AAPL", 1, by="bo", reason="x")


def test_rollback_without_a_target_names_the_reason(
    registry: Registry, promoted: Make, register: Make, kit: SimpleNamespace
) -> None:
    promoted("_linear", kind="linear")
    register("AAPL", kit.KEEP)
    with pytest.raises(RegistryError, match="no earlier good version") as baseline:
        registry.rollback("_linear", by="bo", reason="x")
    assert "Nothing stands behind the baseline" in str(baseline.value.hint)
    with pytest.raises(RegistryError, match=r"daily.AAPL is not live"):
        registry.rollback("AAPL", by="bo", reason="x")


def test_rollback_to_any_earlier_version_and_forward_again(registry: Registry, promoted: Make) -> None:
    for _ in range(3):
        promoted("AAPL")
    assert registry.rollback("AAPL", 1, by="bo", reason="2 and 3 lose") == 1
    assert registry.live.read()[NAME] == {"stable": 1, "previous": 2}
    assert registry.rollback("AAPL", 3, by="bo", reason="it was the data") == 3
    assert registry.verify() == []


def _promote(base: Path, symbol: str, gate: Any, results: Any) -> None:
    registry = Registry(Workspace("daily", base), RegistryConfig())
    gate.wait()
    try:
        results.put((symbol, registry.promote(symbol, 1)))
    except RegistryError as error:
        results.put((symbol, str(error)))


def test_concurrent_promotions_take_turns(registry: Registry, register: Make, kit: SimpleNamespace) -> None:
    symbols = ["AAPL", "IBM"]
    for symbol in symbols:
        registry.set_challenger(symbol, register(symbol, kit.PROMOTE))
        registry.approve(symbol, by="ana", reason="x")
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(len(symbols) + 1), context.Queue()
    arguments = [(registry.workspace.base, s, gate, results) for s in (*symbols, "AAPL")]  # AAPL twice
    workers = [context.Process(target=_promote, args=a) for a in arguments]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(answers) == sorted((s, 1) for s in (*symbols, "AAPL"))
    assert registry.live.read() == {f"daily.{s}": {"stable": 1} for s in symbols}
    assert registry.verify() == []
    actions = [e.action for e in registry.ledger.read() if e.action in ("begun", "promoted")]
    assert actions == ["begun", "promoted"] * 2  # no change began before the one before it was closed


def test_lock_held_too_long_is_a_clear_error(approved: Registry) -> None:
    impatient = Registry(approved.workspace, RegistryConfig(lock_timeout_seconds=0.1))
    with (
        approved.change(),
        pytest.raises(RegistryError, match=rf"process {os.getpid()}\) holds registry.lock"),
    ):
        impatient.promote("AAPL")


def test_a_hiccup_after_the_version_was_made_makes_no_second_one(
    registry: Registry, promoted: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    ended, failures = MlflowClient.set_terminated, [ConnectionError("the network was away")]

    def once_away(self: MlflowClient, *given: Any, **named: Any) -> None:
        if failures:
            raise failures.pop()
        ended(self, *given, **named)

    monkeypatch.setattr(MlflowClient, "set_terminated", once_away)
    assert promoted("AAPL") == 1
    assert not failures
    assert registry.verify() == []
    info = registry.tracking.version(NAME, 1)
    run = MlflowClient(registry.tracking.uri).get_run(info.run_id)
    assert (run.info.status, run.data.tags["barcast.version"]) == ("FINISHED", "1")


def test_a_refusal_by_the_tracking_server_shows_no_password(registry: Registry) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        uri = f"http://user:s3cret@127.0.0.1:{refusing.server_port}"
        settings = RegistryConfig(tracking_uri=uri, retry_attempts=1, retry_wait_seconds=0.01)
        with pytest.raises(RegistryError, match="401") as caught:
            Registry(registry.workspace, settings).tracking.ping()
        refusing.shutdown()
    assert "s3cret" not in str(caught.value)
    assert "user:***@127.0.0.1" in str(caught.value)

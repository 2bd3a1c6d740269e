"""`barcast models` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from barcast import clock
from barcast.cli.models import app
from barcast.cli.train import _live as live_folder
from barcast.config import Config
from barcast.errors import BarcastError, ModelError, RegistryError
from barcast.registry import Registry
from barcast.workspace import Workspace

Run = Callable[..., str]


@pytest.fixture
def run(registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("BARCAST_ROOT", str(registry.workspace.base))
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str) -> str:
        capsys.readouterr()
        try:
            app(list(words), standalone_mode=False)
        finally:
            call.printed = capsys.readouterr().out  # type: ignore[attr-defined]
        return call.printed  # type: ignore[attr-defined,no-any-return]

    return call


def test_list_with_json_has_one_object_a_model(run: Run, promoted: Callable[..., int]) -> None:
    assert "Nothing is registered yet" in run("list")
    promoted("AAPL")
    promoted("_linear", kind="linear")
    rows = json.loads(run("list", "--json"))
    assert [(r["symbol"], r["champion"], r["kind"]) for r in rows] == [
        ("AAPL", 1, "network"),
        ("_linear", 1, "linear"),
    ]
    assert "AAPL" in run("list")


def test_rollback_then_history(
    run: Run,
    registry: Registry,
    promoted: Callable[..., int],
    register: Callable[..., int],
    kit: SimpleNamespace,
) -> None:
    with clock.fixed(datetime(2024, 5, 6, 10, tzinfo=UTC)):
        promoted("AAPL")
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    nowhere = ("--endpoint", "127.0.0.1:1")
    with clock.fixed(datetime(2024, 5, 7, 9, tzinfo=UTC)):
        registry.approve("AAPL", by="ana", reason="clear gain")
        registry.promote("AAPL")
    with clock.fixed(datetime(2024, 5, 7, 15, tzinfo=UTC)):
        assert "version 1 is live again" in run(
            "rollback", "AAPL", "--by", "bo", "--reason", "losing", *nowhere
        )

    day = json.loads(run("history", "AAPL", "--day", "2024-05-07", "--json"))
    assert [(d["version"], d["by"], d["served_from"][11:16], d["served_until"][11:16]) for d in day] == [
        (1, "ana", "00:00", "09:00"),
        (2, "ana", "09:00", "15:00"),
        (1, "bo", "15:00", "00:00"),
    ]
    assert "rollback of 2024-05-07" in run("history", "AAPL", "--day", "2024-05-07")
    assert "Nothing answered for AAPL on 2024-05-05" in run("history", "AAPL", "--day", "2024-05-05")
    assert "losing" in run("history", "AAPL")


def test_reject_show_verify(
    run: Run, registry: Registry, register: Callable[..., int], kit: SimpleNamespace
) -> None:
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    assert "version 1 is rejected by ana" in run("reject", "AAPL", "--by", "ana", "--reason", "no")
    assert "rejected by ana: no" in run("show", "AAPL")
    assert "# Model card" in run("show", "AAPL", "--card")
    assert json.loads(run("show", "AAPL", "--json"))["metrics"]["sharpe"] == 0.7
    assert "Everything is what the ledger says" in run("verify")


def test_verify_says_what_it_looked_at(
    run: Run, registry: Registry, promoted: Callable[..., int], workspace: Workspace
) -> None:
    assert f"Nothing is registered in workspace 'daily' at {workspace.root}" in run("verify")
    assert not workspace.root.exists()
    promoted("AAPL")
    promoted("AAPL")
    promoted(None)
    lines = len(registry.ledger.read())
    assert f"at {workspace.root}: {lines} ledger lines, 2 models, 3 versions." in run("verify")


def test_verify_misses_the_stored_files_of_each_version(
    run: Run, promoted: Callable[..., int], workspace: Workspace
) -> None:
    promoted("AAPL")
    promoted("AAPL")
    shutil.rmtree(workspace.mlflow_artifacts)
    with pytest.raises(RegistryError, match="2 fault"):
        run("verify")
    for number in (1, 2):
        assert f"daily.AAPL version {number}: its stored files are gone" in run.printed  # type: ignore[attr-defined]


def test_verify_with_a_fault_leaves_with_an_error(
    run: Run, registry: Registry, promoted: Callable[..., int]
) -> None:
    promoted("AAPL")
    (registry.live.directory("daily.AAPL", 1) / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(RegistryError, match="1 fault"):
        run("verify")
    assert "changed: saved_model.pb" in run.printed  # type: ignore[attr-defined]
    assert "version directory 1" in run("repair", "AAPL", "--by", "ana", "--reason", "disk fault")
    run("verify")


def test_unknown_symbol_and_day_are_clear_errors(run: Run, promoted: Callable[..., int]) -> None:
    promoted("AAPL")
    with pytest.raises(BarcastError, match="Did you mean 'AAPL'"):
        run("history", "APL")
    with pytest.raises(BarcastError, match="is no date"):
        run("history", "AAPL", "--day", "yesterday")


def test_approve_with_a_cluster_submits_the_promotion_and_promotes_nothing_here(
    run: Run, registry: Registry, register: Callable[..., int], kit: SimpleNamespace
) -> None:
    import kfp_double

    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    with kfp_double.serve() as server:
        said = run("approve", "AAPL", "--by", "ana", "--reason", "clear gain", "--host", server.url)
        (submitted,) = server.runs.values()
    assert submitted.run_id in said
    assert submitted.display_name.startswith("promotion-")
    assert submitted.service_account == "promotion"
    (row,) = registry.list()
    assert row["champion"] is None
    assert (row["challenger"], row["challenger_status"]) == (1, "approved")


def test_rollback_with_a_cluster_submits_the_promotion_and_moves_nothing_here(
    run: Run, registry: Registry, promoted: Callable[..., int]
) -> None:
    import kfp_double

    promoted("AAPL")
    promoted("AAPL")
    with kfp_double.serve() as server:
        said = run("rollback", "AAPL", "--by", "bo", "--reason", "losing", "--host", server.url)
        (submitted,) = server.runs.values()
    asked = submitted.runtime_config["parameters"]
    assert (asked["rollback"], asked["to"], asked["by"], asked["reason"]) == ("AAPL", 0, "bo", "losing")
    assert submitted.run_id in said
    assert submitted.service_account == "promotion"
    assert registry.list()[0]["champion"] == 2


def test_train_from_a_model_that_is_registered_and_not_live_says_why(
    run: Run, register: Callable[..., int], kit: SimpleNamespace, workspace: Workspace
) -> None:
    register(None, kit.KEEP)
    with pytest.raises(ModelError, match=r"no live universal model.*neither gate nor person") as refused:
        live_folder(Config(workspace="daily"), workspace, None)
    assert "`barcast models show universal`" in str(refused.value.hint)
    assert "Loses." in run("show", "universal")

"""From registration to promotion: who may decide what, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from barcast.errors import RefusedError, RegistryError
from barcast.registry import Registry, manifest
from barcast.workspace import Workspace

Make = Callable[..., int]


def test_register_with_everything_puts_it_all_on_the_version(
    registry: Registry, kit: SimpleNamespace, tmp_path: Path
) -> None:
    folder = kit.model_folder(tmp_path / "export", 1)
    (tmp_path / "report.html").write_text("<h1>report</h1>")
    version = registry.register(
        folder,
        "BTC/USDT",
        kit.metadata(metrics={"sharpe": 0.7, "auc": float("nan")}),
        {"report.html": tmp_path / "report.html"},
        kit.recorded(),
    )

    shown = registry.show("BTC/USDT", version)
    assert (version, shown["model"]) == (1, "daily.BTC_2fUSDT")
    assert shown["metrics"] == {"sharpe": 0.7, "reliability": 0.6}  # MLflow holds finite numbers only
    assert shown["data_hash"] == "d" * 64
    assert shown["config_hash"] == "c" * 64
    assert shown["code_version"].startswith("0.1.0+")
    assert shown["digest"] == manifest.digest(manifest.hash_files(folder))
    assert "# Model card: BTC/USDT" in shown["model_card"]
    evidence = registry.evidence("BTC/USDT", version, tmp_path / "evidence")
    assert (evidence / "report.html").read_text() == "<h1>report</h1>"
    assert json.loads((evidence / "features.json").read_text()) == ["log_return_1", "rsi_14"]
    assert "mlflow" in json.loads((evidence / "environment.json").read_text())["packages"]
    info = registry.tracking.version("daily.BTC_2fUSDT", 1)
    assert info.tags["barcast.data_hash"] == "d" * 64
    assert info.parameters["model.units"] == "32"
    assert registry.verify() == []


def test_card_longer_than_mlflow_takes_is_kept_whole(registry: Registry, register: Make) -> None:
    names = [f"feature_number_{i}" for i in range(400)]
    version = register("AAPL", features=names)
    assert len(registry.show("AAPL", version)["model_card"]) == 5000
    card = registry.card("AAPL", version)
    assert f"`{names[-1]}`" in card
    assert card.index("## Limits") < card.index("## Features")  # what is cut in MLflow is the list of names


def test_report_with_the_verdicts_stands_beside_that_of_the_registration(
    registry: Registry, kit: SimpleNamespace, tmp_path: Path
) -> None:
    folder = kit.model_folder(tmp_path / "export", 1)
    version = registry.register(folder, "AAPL", kit.metadata(), {"report.html": "measured"}, kit.recorded())
    assert registry.report("AAPL", version, tmp_path / "first").read_text() == "measured"
    (tmp_path / "artifact").write_text("measured, and judged")  # an artifact's file has no ending
    registry.judge("AAPL", version, kit.PROMOTE)
    registry.keep_report("AAPL", version, tmp_path / "artifact")
    assert registry.report("AAPL", version, tmp_path / "second").read_text() == "measured, and judged"
    evidence = registry.evidence("AAPL", version, tmp_path / "evidence")
    assert (evidence / "report.html").read_text() == "measured"
    assert registry.verify() == []
    stored = next(registry.workspace.mlflow_artifacts.rglob("judged/report.html"))
    stored.write_text("much better")
    with pytest.raises(RegistryError, match="not the one that was kept"):
        registry.report("AAPL", version, tmp_path / "third")


def test_version_without_a_report_says_so(registry: Registry, register: Make, tmp_path: Path) -> None:
    version = register("AAPL")
    with pytest.raises(RegistryError, match="carries no report"):
        registry.report("AAPL", version, tmp_path / "evidence")


def test_promote_after_approval_serves_exactly_what_was_registered(
    registry: Registry, register: Make, kit: SimpleNamespace
) -> None:
    version = register("AAPL", kit.PROMOTE)
    registry.set_challenger("AAPL", version)
    assert registry.tracking.aliases("daily.AAPL") == {"challenger": 1}
    assert registry.live.read() == {}

    assert registry.approve("AAPL", by="ana", reason="better in both halves") == 1
    assert registry.live.read() == {}  # an approval alone serves nothing
    assert registry.promote("AAPL") == 1

    assert registry.live.read() == {"daily.AAPL": {"stable": 1}}
    assert registry.tracking.aliases("daily.AAPL") == {"champion": 1}
    served = registry.live.directory("daily.AAPL", 1)
    assert (served / "saved_model.pb").read_bytes() == b"graph 1"
    assert (served / "assets.extra" / "serving.json").exists()
    manifest.verify(served, registry.state().models["daily.AAPL"].versions[1].digest)
    promotion = registry.history("AAPL")[-1]
    assert (promotion["action"], promotion["by"], promotion["reason"]) == (
        "promoted",
        "ana",
        "better in both halves",
    )
    assert registry.verify() == []


def test_promote_without_approval_is_refused(
    registry: Registry, register: Make, kit: SimpleNamespace
) -> None:
    version = register("AAPL", kit.PROMOTE)
    registry.set_challenger("AAPL", version)
    with pytest.raises(RegistryError, match="waits for approval"):
        registry.promote("AAPL")
    assert registry.live.read() == {}


def test_promote_twice_changes_nothing_the_second_time(registry: Registry, promoted: Make) -> None:
    promoted("AAPL")
    lines = len(registry.ledger.read())
    assert registry.promote("AAPL", 1) == 1
    assert len(registry.ledger.read()) == lines


def test_second_promotion_keeps_the_former_champion_loaded(registry: Registry, promoted: Make) -> None:
    promoted("AAPL")
    promoted("AAPL")
    assert registry.live.read() == {"daily.AAPL": {"stable": 2, "previous": 1}}
    assert registry.state().models["daily.AAPL"].versions[1].status == "retired"


def test_a_retired_model_is_served_again_by_a_rollback_that_names_it(
    registry: Registry, promoted: Make
) -> None:
    promoted("AAPL")
    registry.retire("AAPL", by="ana", reason="no own model")
    with pytest.raises(RegistryError, match="nothing to take back") as refused:
        registry.rollback("AAPL", by="ana", reason="back")
    assert "barcast models rollback AAPL --to 1" in str(refused.value.hint)
    assert registry.rollback("AAPL", 1, by="ana", reason="back") == 1
    assert registry.live.read() == {"daily.AAPL": {"stable": 1}}


def test_challenger_with_verdict_keep_is_refused(
    registry: Registry, register: Make, kit: SimpleNamespace
) -> None:
    version = register("AAPL", kit.KEEP)
    with pytest.raises(RefusedError, match="keeps the incumbent"):
        registry.set_challenger("AAPL", version)
    with pytest.raises(RegistryError, match="The gate said 'keep'") as refused:
        registry.approve("AAPL", version=version, by="ana", reason="I like it")
    assert "models show AAPL --version 1" in str(refused.value.hint)
    unjudged = register("AAPL")
    with pytest.raises(RefusedError, match="has not judged"):
        registry.set_challenger("AAPL", unjudged)


def test_approval_of_a_superseded_challenger_is_refused(
    registry: Registry, register: Make, kit: SimpleNamespace
) -> None:
    for _ in range(2):
        registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    with pytest.raises(RegistryError, match="version 1 was superseded by version 2"):
        registry.approve("AAPL", by="ana", reason="x", version=1)
    assert registry.approve("AAPL", by="ana", reason="x") == 2


def test_approval_against_a_champion_that_changed_is_refused(
    registry: Registry, promoted: Make, register: Make, kit: SimpleNamespace
) -> None:
    promoted("AAPL")
    promoted("AAPL")
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    registry.rollback("AAPL", by="bo", reason="losing")
    with pytest.raises(RegistryError, match="evaluated against champion 2, but version 1 is live"):
        registry.approve("AAPL", by="ana", reason="x")


def test_approved_before_a_change_of_champion_is_not_promoted(
    registry: Registry, promoted: Make, register: Make, kit: SimpleNamespace
) -> None:
    promoted("AAPL")
    promoted("AAPL")
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    registry.approve("AAPL", by="ana", reason="x")
    registry.rollback("AAPL", by="bo", reason="losing")
    with pytest.raises(RegistryError, match="superseded"):
        registry.promote("AAPL")
    assert registry.live.read()["daily.AAPL"]["stable"] == 1


def test_rejected_challenger_is_never_promoted(
    registry: Registry, register: Make, kit: SimpleNamespace
) -> None:
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    assert registry.reject("AAPL", by="ana", reason="regime break") == 1
    assert registry.tracking.aliases("daily.AAPL") == {}
    for action in (
        lambda: registry.approve("AAPL", by="ana", reason="x", version=1),
        lambda: registry.promote("AAPL", 1),
        lambda: registry.reject("AAPL", by="ana", reason="again", version=1),
    ):
        with pytest.raises(RegistryError, match="is rejected"):
            action()
    with pytest.raises(RegistryError, match="no challenger"):
        registry.promote("AAPL")


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("ana", " ")])
def test_decision_without_person_or_reason_is_refused(registry: Registry, by: str, reason: str) -> None:
    with pytest.raises(RegistryError, match="who made it and why"):
        registry.approve("AAPL", by=by, reason=reason)


def test_automatic_approval_needs_policy_and_verdict(
    registry: Registry, register: Make, kit: SimpleNamespace
) -> None:
    registry.set_challenger("AAPL", register("AAPL", kit.PROMOTE))
    with pytest.raises(RefusedError, match="waits for a person"):
        registry.approve_automatically("AAPL")
    automatic = Registry(registry.workspace, registry.config, approval="automatic")
    assert automatic.approve_automatically("AAPL") == 1
    assert automatic.history("AAPL")[-1]["by"] == "policy:automatic"

    automatic.set_challenger("MSFT", register("MSFT", kit.HOLD))
    with pytest.raises(RefusedError, match="verdict: hold"):
        automatic.approve_automatically("MSFT")


def test_universal_and_linear_models_have_their_own_names(registry: Registry, promoted: Make) -> None:
    promoted("_linear", kind="linear")
    assert registry.incumbent("AAPL") == ("daily._linear", 1, "linear")
    promoted(None)
    assert registry.incumbent("AAPL") == ("daily.universal", 1, "network")
    promoted("_ensemble", kind="ensemble")
    assert registry.incumbent("AAPL") == ("daily._ensemble", 1, "ensemble")
    promoted("AAPL")
    assert registry.incumbent("AAPL") == ("daily.AAPL", 1, "network")
    assert [row["symbol"] for row in registry.list()] == ["AAPL", "_ensemble", "_linear", "universal"]
    assert registry.incumbent("universal") == ("daily.universal", 1, "network")


def test_unknown_symbol_and_version_say_what_is_known(registry: Registry, promoted: Make) -> None:
    promoted("AAPL")
    with pytest.raises(RegistryError, match=r"knows no model for 'AAPLE'.*Did you mean 'AAPL'"):
        registry.show("AAPLE")
    with pytest.raises(RegistryError, match=r"no version 9 in the ledger.*It has 1"):
        registry.judge("AAPL", 9, {"outcome": "promote"})


def test_metadata_with_missing_or_unknown_key_registers_nothing(
    registry: Registry, kit: SimpleNamespace, tmp_path: Path
) -> None:
    folder = kit.model_folder(tmp_path / "export", 1)
    incomplete = {k: v for k, v in kit.metadata().items() if k != "data_hash"}
    with pytest.raises(RegistryError, match="'data_hash' cannot be used: Field required"):
        registry.register(folder, "AAPL", incomplete, recorded=kit.recorded())
    with pytest.raises(RegistryError, match="Did you mean 'metrics'"):
        registry.register(folder, "AAPL", {**kit.metadata(), "metric": {}}, recorded=kit.recorded())
    assert registry.ledger.read() == []


def test_half_written_export_is_refused(registry: Registry, kit: SimpleNamespace, tmp_path: Path) -> None:
    folder = kit.model_folder(tmp_path / "export", 1)
    (folder / "saved_model.pb").unlink()
    with pytest.raises(RegistryError, match=r"saved_model\.pb is missing"):
        registry.register(folder, "AAPL", kit.metadata(), recorded=kit.recorded())
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegistryError, match="holds no files"):
        registry.register(tmp_path / "empty", "AAPL", kit.metadata(), recorded=kit.recorded())
    with pytest.raises(RegistryError, match="is not a folder"):
        registry.register(tmp_path / "absent", "AAPL", kit.metadata(), recorded=kit.recorded())


def test_export_with_a_link_is_refused(registry: Registry, kit: SimpleNamespace, tmp_path: Path) -> None:
    folder = kit.model_folder(tmp_path / "export", 1)
    (folder / "assets.extra" / "link").symlink_to("/etc/hostname")
    with pytest.raises(RegistryError, match="not a plain file"):
        registry.register(folder, "AAPL", kit.metadata(), recorded=kit.recorded())


def test_evidence_name_that_leaves_its_folder_is_refused(
    registry: Registry, kit: SimpleNamespace, tmp_path: Path
) -> None:
    folder = kit.model_folder(tmp_path / "export", 1)
    with pytest.raises(RegistryError, match="leaves its folder"):
        registry.register(folder, "AAPL", kit.metadata(), {"../x": "y"}, kit.recorded())


def test_a_rollback_by_the_promotion_step_is_done_once_however_often_it_is_tried(
    registry: Registry, promoted: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from barcast import steps
    from barcast.config import Config

    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    for _ in range(3):
        promoted("AAPL")
    base = registry.workspace.base
    config = Config(storage={"root": str(base)}, serving={"endpoint": "127.0.0.1:1"}).model_dump_json()
    asked = (config, "promotion-1", "AAPL", 0, "bo", "losing")
    for _ in range(2):  # Kubernetes starts a lost pod again
        assert json.loads(steps.promote(*asked)) == [{"word": "AAPL", "version": 2}]
    assert registry.live.read()["daily.AAPL"]["stable"] == 2
    last = registry.history("AAPL")[-1]
    assert (last["action"], last["by"], last["reason"]) == ("rolled_back", "bo", "losing (run promotion-1)")
    assert json.loads(steps.promote(config, "promotion-2", "AAPL", 3, "bo", "it was the data")) == [
        {"word": "AAPL", "version": 3}
    ]
    with pytest.raises(RegistryError, match="who made it and why"):
        steps.promote(config, "promotion-3", "AAPL", 0, "bo", " ")


def test_what_a_lost_try_of_the_promotion_step_made_live_is_in_the_canarys_plan(
    registry: Registry,
    register: Make,
    kit: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from barcast import steps
    from barcast.config import Config

    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    base = registry.workspace.base
    config = Config(storage={"root": str(base)}, serving={"endpoint": "127.0.0.1:1"}).model_dump_json()

    def approved(symbol: str) -> None:
        registry.set_challenger(symbol, register(symbol, kit.PROMOTE))
        registry.approve(symbol, by="ana", reason="better")

    approved("AAPL")
    assert json.loads(steps.promote(config, "promotion-1")) == [{"word": "AAPL", "version": 1}]
    approved("GOOG")  # what the first try would have come to, had its pod not been lost
    both = [{"word": "AAPL", "version": 1}, {"word": "GOOG", "version": 1}]
    for _ in range(2):
        assert json.loads(steps.promote(config, "promotion-1")) == both
    assert json.loads(steps.promote(config, "promotion-2")) == []  # another run's


def test_an_approval_that_a_rollback_made_void_holds_up_no_other_model(
    registry: Registry,
    promoted: Make,
    register: Make,
    kit: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from barcast import steps
    from barcast.cli.status import _models
    from barcast.config import Config

    def approved(symbol: str) -> int:
        version = register(symbol, kit.PROMOTE)
        registry.set_challenger(symbol, version)
        return registry.approve(symbol, by="ana", reason="better")

    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    base = registry.workspace.base
    config = Config(storage={"root": str(base)}, serving={"endpoint": "127.0.0.1:1"}).model_dump_json()
    for _ in range(2):
        promoted("AAPL")
    approved("AAPL")
    registry.rollback("AAPL", by="bo", reason="losing")
    assert {r["symbol"]: r["challenger_status"] for r in registry.list()} == {"AAPL": "superseded"}
    ((_, line),) = _models(registry.list())
    assert line.endswith("v3 is superseded")
    approved("GOOG")
    assert json.loads(steps.promote(config, "promotion-1")) == [{"word": "GOOG", "version": 1}]
    # nor does one whose files were changed after the evaluation
    approved("GOOG")
    approved("IBM")
    (Path(registry.tracking.version("daily.GOOG", 2).source) / "saved_model.pb").write_bytes(b"other")
    assert json.loads(steps.promote(config, "promotion-2")) == [{"word": "IBM", "version": 1}]
    with pytest.raises(RegistryError, match="not what was evaluated"):
        steps.promote(config, "promotion-3")


def test_a_verdict_is_written_once_however_often_its_step_is_tried(
    workspace: Workspace, register: Make, kit: SimpleNamespace
) -> None:
    from barcast.evaluation.gate import Verdict
    from barcast.steps.govern import record_verdict

    registry = Registry(workspace, approval="automatic")
    register("AAPL", kit.KEEP)
    version = register("AAPL")
    verdict = Verdict("promote", ("Better.",), {}, (), True, None, 0.01, "new", None)
    for _ in range(2):  # Kubernetes starts a lost pod again
        assert record_verdict(registry, "AAPL", version, verdict)
        assert len(registry.life("AAPL", but=version).attempts) == 1
    actions = [e["action"] for e in registry.history("AAPL") if e["version"] == version]
    assert actions == ["registered", "judged", "challenger", "approved"]


def test_a_canary_that_fails_goes_back_once_however_often_it_is_tried(
    registry: Registry, promoted: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from barcast import steps
    from barcast.config import Config

    monkeypatch.setenv("BARCAST_RUN_FOLDER", str(tmp_path))
    for _ in range(3):
        promoted("AAPL")
    config = Config(
        storage={"root": str(registry.workspace.base)},
        serving={"endpoint": "127.0.0.1:1"},
        registry={"fingerprint_timeout_seconds": 0.1},
    ).model_dump_json()
    plan = json.dumps([{"word": "AAPL", "version": 3}])
    for _ in range(3):  # Kubernetes tries the step again; no model server can load these files
        with pytest.raises(RegistryError, match="AAPL version 3 went live but did not answer"):
            steps.canary(config, "promotion-1", plan, str(tmp_path / "answers.json"))
    assert registry.live.read()["daily.AAPL"]["stable"] == 2

"""The whole way on a small span of the sample: bars → pipeline → registry → model server → prediction."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from barcast.config import Config, load
from barcast.operations.queue import TrainingQueue
from barcast.registry import Registry

pytestmark = pytest.mark.timeout(600)
CONFIG = {
    "workspace": "e2e",
    "source": {"kind": "sample", "symbols": ["AAPL", "MSFT", "FB"], "start": "2009-06-01"},
    "training": {"max_epochs": 2, "transfer_epochs": 1, "min_symbol_rows": 500},
    "evaluation": {"bootstrap_samples": 200, "lightgbm_rounds": 10, "tfma": False},
    "gate": {"bootstrap_samples": 2000, "max_calibration_error": 0.5},
    "serving": {"endpoint": "127.0.0.1:1"},  # nothing listens there: the run starts a server of its own
}


@dataclass(frozen=True)
class Ran:
    root: Path
    config: Config
    output: str
    run: Path

    def barcast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from barcast.cli import main; main()", *arguments],
            env={**os.environ, "BARCAST_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            timeout=500,
        )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("e2e")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    half = Ran(folder / "state", load(path, root=folder / "state"), "", folder)
    done = half.barcast("run", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    run = next((half.config.open_workspace().runs).glob("training-*"))
    return Ran(half.root, half.config, done.stdout, run)


def test_run_prints_predictions_the_report_and_what_to_type_next(ran: Ran) -> None:
    assert "Predictions" in ran.output
    for symbol in ("AAPL", "MSFT", "FB"):
        assert symbol in ran.output
    assert str(ran.run / "report.html") in ran.output
    assert "barcast predict --all" in ran.output


def test_the_report_and_the_outcome_are_kept(ran: Ran) -> None:
    report = (ran.run / "report.html").read_text()
    assert "<svg" in report
    assert "http://" not in report.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    outcome = json.loads((ran.run / "outcome.json").read_text())
    assert outcome["state"] == "SUCCEEDED"
    assert outcome["config_hash"] == ran.config.hash


def test_every_candidate_is_registered_with_what_made_it(ran: Ran) -> None:
    registry = Registry(ran.config.open_workspace(), ran.config)
    words = {row["symbol"] for row in registry.list()}
    assert {"_linear", "universal", "_ensemble", "AAPL", "MSFT"} <= words
    assert "FB" not in words  # too little history for a model of its own
    shown = registry.show("universal")
    assert shown["config_hash"] == ran.config.hash
    assert len(shown["data_hash"]) == 64
    assert shown["metrics"]["ml_accuracy"] > 0


def test_ladder_tells_for_each_symbol_what_could_answer(ran: Ran) -> None:
    import polars as pl

    ladder = pl.read_csv(ran.run / "ladder.csv")
    assert {"AAPL", "MSFT", "FB"} <= set(ladder["symbol"])
    own = dict(ladder.select("symbol", "own_log_loss").iter_rows())
    assert own["FB"] is None
    assert own["AAPL"] > 0
    assert ladder["ensemble_log_loss"].null_count() == 0
    assert set(ladder["best"]) <= {"linear", "universal", "ensemble", "own", "champion"}
    members = pl.read_csv(ran.run / "members.csv")
    assert {"network", "linear", "trend", "volume"} <= set(members["member"])
    assert "Log loss of what could answer" in (ran.run / "report.html").read_text()


def test_cold_start_symbol_is_answered_by_a_model_of_all_symbols(ran: Ran) -> None:
    answers = {a["symbol"]: a for a in json.loads((ran.run / "answers.json").read_text())}
    assert answers["FB"]["status"] == "success"
    assert answers["FB"]["model_kind"] in ("universal", "linear")


def test_ledger_and_served_files_agree(ran: Ran) -> None:
    registry = Registry(ran.config.open_workspace(), ran.config)
    assert registry.verify() == []
    assert ran.barcast("doctor", "-c", str(ran.root.parent / "small.yaml")).returncode == 0


@pytest.fixture(scope="module")
def endpoint(ran: Ran) -> Iterator[str]:
    from barcast.serving.model_server import start

    workspace = ran.config.open_workspace()
    flags = ran.config.model_server.flags(workspace.models / "models.config", ran.config.serving.batch_sizes)
    with start(**{**flags, "port": 0, "rest_api_port": 0}) as server:
        yield server.endpoint


def test_predict_prints_one_object_per_symbol(ran: Ran, endpoint: str) -> None:
    done = ran.barcast("predict", "--all", "--json", "--endpoint", endpoint)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [a["symbol"] for a in answers] == ["AAPL", "FB", "MSFT"]
    for answer in answers:
        assert set(answer["probabilities"]) == {"SELL", "HOLD", "BUY"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert answer["action"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert 0 <= answer["confidence"] <= 1
        assert answer["model_version"] >= 1
        assert answer["fallback"] is None or answer["model_kind"] == "linear"
        assert answer["feature_timestamp"].startswith("2013-03-01")
    assert answers[0]["price"] == pytest.approx(430.47)  # AAPL as traded that day, before later splits


def test_served_answer_equals_the_model_in_process(ran: Ran, endpoint: str) -> None:
    from barcast.adapters.feast import FeatureStore
    from barcast.serving import ModelClient
    from barcast.training import TrainedModel

    registry = Registry(ran.config.open_workspace(), ran.config)
    model, version, _ = registry.incumbent("AAPL") or pytest.fail("nothing is live")
    store = FeatureStore(ran.config.open_workspace(), ran.config)
    window = store.online(["AAPL"], strict=False)["AAPL"].window[None]
    with ModelClient(endpoint) as client:
        served = client.predict(
            model, {"window": window, "symbol_id": np.array([1], np.int32)}, version=version
        ).outputs
    import tensorflow as tf

    folder = ran.config.open_workspace().models / model / str(version)
    assert TrainedModel.load(folder).info.feature_names == store.names
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    here = signature(window=tf.constant(window), symbol_id=tf.constant([1], tf.int32))
    for name in ("probabilities", "confidence", "expected_return", "position_size"):
        np.testing.assert_allclose(served[name], here[name].numpy(), atol=1e-5)


def test_ingesting_again_adds_nothing(ran: Ran) -> None:
    done = ran.barcast("ingest", "-c", str(ran.root.parent / "small.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == 0


def test_an_unknown_symbol_is_refused_with_the_nearest_known(ran: Ran) -> None:
    done = ran.barcast("predict", "APPL", "--endpoint", "127.0.0.1:1")
    assert done.returncode == 7
    assert "no bars" in done.stderr
    assert "Did you mean 'AAPL'" in done.stderr


def test_approving_runs_the_promotion_pipeline(ran: Ran) -> None:
    registry = Registry(ran.config.open_workspace(), ran.config)
    word, version = next(
        (row["symbol"], row["num_versions"]) for row in registry.list() if row["champion"] is None
    )
    registry.judge(word, version, {"outcome": "hold", "reasons": ["a person should look"]})
    registry.set_challenger(word, version)
    done = ran.barcast("models", "approve", word, "--by", "ana", "--reason", "looked at it")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{word}: version {version} is live, approved by ana" in done.stdout
    promotion = next(ran.config.open_workspace().runs.glob("promotion-*"))
    steps = [json.loads(line) for line in (promotion / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["event"] == "done"] == ["promote", "canary"]
    assert json.loads((promotion / "outcome.json").read_text())["state"] == "SUCCEEDED"
    assert registry.verify() == []
    assert next(row["champion"] for row in registry.list() if row["symbol"] == word) == version


@pytest.mark.slow
def test_a_queued_training_takes_a_model_the_whole_way_to_the_gate(ran: Ran) -> None:
    queue = TrainingQueue(ran.config.open_workspace(), ran.config.operations.queue)
    queue.request_training("_linear", 80, reason="monitoring: ConceptDrift")
    worked = ran.barcast("queue", "work", "--once")
    assert worked.returncode == 0, worked.stderr
    (job,) = queue.status("_linear")
    assert (job["state"], job["attempts"], job["error"]) == ("done", 1, "")
    assert job["result"]["outcome"]["state"] == "SUCCEEDED"
    lines = Registry(ran.config.open_workspace(), ran.config).history("_linear")
    assert [(line["version"], line["action"]) for line in lines if line["version"] == 2][:2] == [
        (2, "registered"),
        (2, "judged"),
    ]

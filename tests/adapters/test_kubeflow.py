"""Submitting to Kubeflow Pipelines, against a double of its API."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import failing_pipeline
import kfp_double
import pytest
import typer
from kfp import compiler
from typer.testing import CliRunner

from barcast.adapters import kubeflow, kubeflow_cluster
from barcast.cli.submit import submit
from barcast.config import Config
from barcast.errors import ClusterError, ConfigError

app = typer.Typer()
app.command()(submit)
ARGUMENTS = {"config": "{}", "run_id": "training-1"}


def test_submit_uploads_a_version_and_starts_a_run_with_the_arguments() -> None:
    with kfp_double.serve() as server:
        run_id = kubeflow_cluster.submit("training", ARGUMENTS, host=server.url)
        run = server.runs[run_id]
        assert run.runtime_config["parameters"] == ARGUMENTS
        version = server.versions[run.pipeline_version_reference["pipeline_version_id"]]
        assert server.specs[version.pipeline_version_id]["pipelineInfo"]["name"] == "barcast-training"
        assert [p.display_name for p in server.pipelines.values()] == ["barcast-training"]
        assert server.experiments[run.experiment_id].display_name == "barcast"


def test_submit_twice_keeps_one_pipeline_with_two_versions() -> None:
    with kfp_double.serve() as server:
        kubeflow_cluster.submit("training", ARGUMENTS, host=server.url)
        kubeflow_cluster.submit("training", {**ARGUMENTS, "run_id": "training-2"}, host=server.url)
        assert len(server.pipelines) == 1
        assert sorted(v.display_name for v in server.versions.values()) == ["training-1", "training-2"]
        assert len(server.runs) == 2


def test_submit_sends_the_token_and_fails_clearly_without_it() -> None:
    with kfp_double.serve(token="secret") as server:
        assert kubeflow_cluster.submit("training", ARGUMENTS, host=server.url, token="secret")
        with pytest.raises(ClusterError, match="did not accept"):
            kubeflow_cluster.submit("training", ARGUMENTS, host=server.url, token="wrong")


def test_a_pod_gets_the_same_configuration_with_the_clusters_places() -> None:
    config = Config(workspace="w", approval="manual", storage={"root": "/home/someone"})
    inside = Config.model_validate_json(kubeflow_cluster.for_cluster(config))
    assert inside.hash == config.hash
    assert str(inside.open_workspace().bars) == "/var/lib/barcast/w/bars"
    assert str(inside.open_workspace().models) == "/models/w"


def test_only_runs_that_may_put_models_live_act_as_the_promotion_account() -> None:
    by_hand, alone = Config(approval="manual"), Config(approval="automatic")
    assert kubeflow_cluster.account_of("promotion", by_hand) == "promotion"
    assert kubeflow_cluster.account_of("training", by_hand) is None
    assert kubeflow_cluster.account_of("training", alone) == "promotion"
    assert kubeflow_cluster.account_of("backfill", alone) is None
    assert kubeflow_cluster.account_of("monitoring", by_hand) == "promotion"  # it rolls back


def test_submit_with_nothing_listening_names_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=url):
        kubeflow_cluster.submit("training", ARGUMENTS, host=url)


def test_compiled_with_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'training'"):
        kubeflow.compiled("trainning")


def test_runs_are_listed_watched_cancelled_and_started_again() -> None:
    with kfp_double.serve() as server:
        run_id = kubeflow_cluster.submit("training", ARGUMENTS, host=server.url)
        (row,) = kubeflow_cluster.list_runs(host=server.url)
        assert (row["run_id"], row["name"], row["state"]) == (run_id, "training-1", "PENDING")
        server.runs[run_id].state = "RUNNING"
        assert kubeflow_cluster.run_state(run_id, host=server.url) == "RUNNING"
        kubeflow_cluster.cancel_run(run_id, host=server.url)
        assert kubeflow_cluster.run_state(run_id, host=server.url) == "CANCELED"
        kubeflow_cluster.retry_run(run_id, host=server.url)
        assert kubeflow_cluster.run_state(run_id, host=server.url) == "PENDING"


def test_submit_as_a_user_types_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    with kfp_double.serve() as server:
        words = [
            "retraining",
            "--host",
            server.url,
            "--set",
            "models=AAPL,MSFT",
            "--set",
            "mode=anew",
            "--json",
        ]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        run = server.runs[json.loads(result.stdout)["run_id"]]
    parameters = run.runtime_config["parameters"]
    assert (parameters["models"], parameters["mode"]) == ("AAPL,MSFT", "anew")
    assert json.loads(parameters["config"])["storage"]["root"] == "/var/lib/barcast"
    assert run.display_name.startswith("retraining-")
    assert run.service_account == "promotion"


def test_an_error_without_a_text_is_told_by_its_name() -> None:
    message = r"at http://cluster did not accept the request: TimeoutError"
    with pytest.raises(ClusterError, match=message), kubeflow_cluster._asking("http://cluster"):
        raise TimeoutError


def test_unknown_run_is_a_clear_error() -> None:
    with kfp_double.serve() as server, pytest.raises(ClusterError, match="did not accept"):
        kubeflow_cluster.cancel_run("nothing", host=server.url)


def test_failing_step_on_this_machine_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's retries wait minutes; here the same bad input would only fail again."""

    compiled = tmp_path / "failing.yaml"
    compiler.Compiler().compile(failing_pipeline.failing, str(compiled))
    assert "maxRetryCount: 2" in compiled.read_text()
    monkeypatch.setattr(kubeflow, "compiled", lambda name: compiled)
    with pytest.raises(RuntimeError):
        kubeflow.run_local("failing", {"marks": str(tmp_path / "marks")}, tmp_path / "root")
    assert (tmp_path / "marks").read_text() == "x"


def _server(answers: dict[str, tuple[int, str, str]]) -> ThreadingHTTPServer:
    """A server with these answers by path: status, content type, body; 404 for the rest."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            status, kind, body = answers.get(self.path, (404, "text/plain", "not found"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"/apis/v1beta1/healthz": (200, "application/json", "{}")}, "speaks the API v1beta1 only"),
        ({"/apis/v2beta1/healthz": (200, "text/html", "<html>log in</html>")}, "answers with a page"),
        ({"/apis/v2beta1/healthz": (302, "text/html", "")}, "answers with a page"),
        ({}, "did not accept the request"),
        ({"/apis/v2beta1/healthz": (503, "text/plain", "starting")}, "did not accept the request"),
    ],
)
def test_a_server_of_another_kind_or_version_is_named(
    answers: dict[str, tuple[int, str, str]], message: str
) -> None:
    server = _server(answers)
    try:
        with pytest.raises(ClusterError, match=message) as caught:
            kubeflow_cluster.list_runs(host=f"http://127.0.0.1:{server.server_port}")
        assert caught.value.hint
    finally:
        server.shutdown()
        server.server_close()

"""A small HTTP double of the Kubeflow Pipelines API: keeps what it is told, answers with kfp_server_api's models.

It checks what a real server would refuse: a bad token, a pipeline that is no valid spec, unknown ids.
"""

from __future__ import annotations

import email
import email.policy
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import kfp_server_api as api
import yaml

_SERIALISE = api.ApiClient().sanitize_for_serialization


@dataclass
class Double:
    """What the server holds."""

    url: str = ""
    token: str | None = None
    experiments: dict[str, api.V2beta1Experiment] = field(default_factory=dict)
    pipelines: dict[str, api.V2beta1Pipeline] = field(default_factory=dict)
    versions: dict[str, api.V2beta1PipelineVersion] = field(default_factory=dict)
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, api.V2beta1Run] = field(default_factory=dict)
    recurring: dict[str, api.V2beta1RecurringRun] = field(default_factory=dict)


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _filtered(objects: list[Any], query: dict[str, list[str]]) -> list[Any]:
    """Honour the one predicate that kfp.Client sends: display_name or name EQUALS."""
    if "filter" not in query:
        return objects
    for predicate in json.loads(query["filter"][0])["predicates"]:
        key, value = (
            predicate["key"],
            predicate["stringValue"] if "stringValue" in predicate else predicate["string_value"],
        )
        objects = [o for o in objects if value in (getattr(o, key, None), getattr(o, "display_name", None))]
    return objects


def _handler(state: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _serve(self, verb: str) -> None:
            parsed = urlparse(self.path)
            try:
                if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                    raise _RefusedError(401, "Unauthorized")
                answer = self._route(verb, parsed.path.removeprefix("/apis/v2beta1"), parse_qs(parsed.query))
                status, body = 200, _SERIALISE(answer)
            except _RefusedError as refused:
                status, body = refused.status, {"error": str(refused), "code": 3, "message": str(refused)}
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def _upload(self) -> dict[str, Any]:
            message = email.message_from_bytes(
                f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + self._body(),
                policy=email.policy.default,
            )
            text = next(message.iter_parts()).get_content()
            # The second document of a compiled pipeline holds what only Kubernetes reads.
            spec = next(yaml.safe_load_all(text if isinstance(text, str) else text.decode()))
            if not isinstance(spec, dict) or "root" not in spec:
                raise _RefusedError(400, "not a pipeline spec")
            return spec

        def _route(self, verb: str, path: str, query: dict[str, list[str]]) -> Any:
            now = datetime.now(UTC)
            if path == "/healthz":
                return {"multi_user": False}
            if path == "/experiments" and verb == "GET":
                found = _filtered(list(state.experiments.values()), query)
                return api.V2beta1ListExperimentsResponse(experiments=found, total_size=len(found))
            if path == "/experiments":
                made = api.V2beta1Experiment(experiment_id=str(uuid.uuid4()), **json.loads(self._body()))
                state.experiments[made.experiment_id] = made
                return made
            if path == "/pipelines" and verb == "GET":
                found = _filtered(list(state.pipelines.values()), query)
                return api.V2beta1ListPipelinesResponse(pipelines=found, total_size=len(found))
            if path in ("/pipelines/upload", "/pipelines/upload_version"):
                spec, key = self._upload(), str(uuid.uuid4())
                if path.endswith("version"):
                    pipeline_id = query["pipelineid"][0]
                    if pipeline_id not in state.pipelines:
                        raise _RefusedError(404, f"pipeline {pipeline_id} not found")
                    state.specs[key] = spec
                    state.versions[key] = api.V2beta1PipelineVersion(
                        pipeline_id=pipeline_id, pipeline_version_id=key, display_name=query["name"][0]
                    )
                    return state.versions[key]
                name = query["name"][0]
                state.pipelines[key] = api.V2beta1Pipeline(pipeline_id=key, name=name, display_name=name)
                return state.pipelines[key]
            if path == "/runs" and verb == "GET":
                found = _filtered(list(state.runs.values()), query)
                return api.V2beta1ListRunsResponse(runs=found, total_size=len(found))
            if path == "/runs":
                body = json.loads(self._body())
                reference = body["pipeline_version_reference"]
                if reference["pipeline_version_id"] not in state.versions:
                    raise _RefusedError(404, "pipeline version not found")
                inputs = state.specs[reference["pipeline_version_id"]]["root"]["inputDefinitions"][
                    "parameters"
                ]
                missing = [
                    n
                    for n, d in inputs.items()
                    if n not in body["runtime_config"]["parameters"] and not d.get("isOptional")
                ]
                if missing:
                    raise _RefusedError(400, f"missing parameters {missing}")
                made = api.V2beta1Run(
                    run_id=str(uuid.uuid4()),
                    display_name=body["display_name"],
                    state="PENDING",
                    created_at=now,
                    experiment_id=body.get("experiment_id"),
                    runtime_config=body["runtime_config"],
                    pipeline_version_reference=reference,
                    service_account=body.get("service_account"),
                )
                state.runs[made.run_id] = made
                return made
            if path == "/recurringruns" and verb == "GET":
                found = _filtered(list(state.recurring.values()), query)
                return api.V2beta1ListRecurringRunsResponse(recurring_runs=found, total_size=len(found))
            if path == "/recurringruns":
                body = json.loads(self._body())
                made = api.V2beta1RecurringRun(
                    recurring_run_id=str(uuid.uuid4()),
                    status="ENABLED",
                    **{k: v for k, v in body.items() if k in api.V2beta1RecurringRun.openapi_types},
                )
                state.recurring[made.recurring_run_id] = made
                return made
            match = re.fullmatch(r"/(runs|recurringruns)/([^/:]+)(?::(\w+))?", path)
            if match is None:
                raise _RefusedError(404, f"no such path {path}")
            kind, key, action = match.groups()
            held: dict[str, Any] = state.runs if kind == "runs" else state.recurring
            if key not in held:
                raise _RefusedError(404, f"{kind} {key} not found")
            if verb == "DELETE":
                del held[key]
                return {}
            if action == "terminate":
                held[key].state = "CANCELED"
            elif action == "retry":
                held[key].state = "PENDING"
            elif action in ("enable", "disable"):
                held[key].status = action.upper() + "D"
            return held[key] if action is None else {}

    return Handler


@contextmanager
def serve(token: str | None = None) -> Iterator[Double]:
    """The double on a free loopback port, until the context ends."""
    state = Double(token=token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

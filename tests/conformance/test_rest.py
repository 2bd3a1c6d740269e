"""The REST API: forms, errors, status, metadata."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import httpx
import numpy as np
import pytest
import tensorflow as tf

ROWS = [[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]


def post(rest: str, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{rest}/v1/models/{path}", content=content, timeout=60)


def refused(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    answer = response.json()
    assert set(answer) == {"error"}
    return str(answer["error"])


def test_row_form(rest: str) -> None:
    response = post(rest, "affine:predict", {"instances": ROWS})
    assert response.status_code == 200
    assert response.json() == {"predictions": [[3.0, 5.0, 7.0], [2.0, 1.0, -1.0]]}
    assert response.headers["content-type"].startswith("application/json")


def test_column_form(rest: str) -> None:
    assert post(rest, "affine:predict", {"inputs": ROWS}).json() == {
        "outputs": [[3.0, 5.0, 7.0], [2.0, 1.0, -1.0]]
    }
    assert post(rest, "affine:predict", {"inputs": {"x": ROWS}}).json()["outputs"][0] == [3.0, 5.0, 7.0]


def test_row_objects_with_the_inputs_name(rest: str) -> None:
    body = {"instances": [{"x": row} for row in ROWS]}
    assert post(rest, "affine:predict", body).json()["predictions"][1] == [2.0, 1.0, -1.0]


def test_several_inputs_and_outputs_in_both_forms(rest: str) -> None:
    row = {"signature_name": "two", "instances": [{"a": [1, 2], "b": 10}, {"a": [3, 4], "b": 20}]}
    assert post(rest, "rich/versions/1:predict", row).json() == {
        "predictions": [{"double_b": 20, "sum": 16.0}, {"double_b": 40, "sum": 34.0}]
    }
    column = {"signature_name": "two", "inputs": {"a": [[1, 2], [3, 4]], "b": [10, 20]}}
    assert post(rest, "rich/versions/1:predict", column).json() == {
        "outputs": {"double_b": [20, 40], "sum": [16.0, 34.0]}
    }


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        ("rich", 3),
        ("rich/versions/1", 2),
        ("rich/versions/2", 3),
        ("rich/labels/old", 2),
        ("rich/labels/new", 3),
    ],
)
def test_version_and_label_in_the_path(rest: str, path: str, factor: int) -> None:
    assert post(rest, f"{path}:predict", {"instances": [[1.0, 0.0, 0.0]]}).json() == {
        "predictions": [[factor + 1.0, 1.0, 1.0]]
    }


def test_numbers_are_written_as_short_as_they_read_back(rest: str) -> None:
    text = (
        post(rest, "affine:predict", {"instances": [[0.05, 1e10, 2]]}).text.replace(" ", "").replace("\n", "")
    )
    found = json.loads(text)["predictions"][0]
    assert found == [1.1, 2e10, 5.0]
    assert "1.1," in text
    assert "5.0" in text


def test_nan_and_infinity_pass_both_ways(rest: str) -> None:
    found = post(rest, "affine:predict", b'{"instances": [[NaN, Infinity, -Infinity]]}').json()[
        "predictions"
    ][0]
    assert np.isnan(found[0])
    assert found[1:] == [np.inf, -np.inf]


def test_text_and_binary(rest: str) -> None:
    raw = base64.b64encode(b"\xff\x00ab").decode()
    body = {"signature_name": "text", "instances": ["ab", {"b64": base64.b64encode(b"cd").decode()}]}
    assert post(rest, "rich:predict", body).json()["predictions"] == [
        {"raw_bytes": {"b64": base64.b64encode(b"ab").decode()}, "upper": "AB"},
        {"raw_bytes": {"b64": base64.b64encode(b"cd").decode()}, "upper": "CD"},
    ]
    column = {"signature_name": "text", "inputs": {"text": [{"b64": raw}]}}
    assert post(rest, "rich:predict", column).json()["outputs"]["raw_bytes"] == [{"b64": raw}]


def test_scalar_output_only_in_the_column_form(rest: str) -> None:
    body = {"signature_name": "total", "instances": ROWS}
    assert "Tensor name: total has no shape information" in refused(post(rest, "rich:predict", body), 400)
    column = {"signature_name": "total", "inputs": ROWS}
    assert post(rest, "rich:predict", column).json() == {"outputs": 5.5}


def test_classify_and_regress(rest: str) -> None:
    body = {"signature_name": "classify", "examples": [{"x": 1.5}, {"x": [2.5]}]}
    assert post(rest, "rich/versions/1:classify", body).json() == {
        "results": [[["times", 3.0], ["plus", 2.5]], [["times", 5.0], ["plus", 3.5]]]
    }
    body = {"signature_name": "regress", "context": {"x": 9.5}, "examples": [{"x": 1.5}, {}]}
    assert post(rest, "rich/versions/1:regress", body).json() == {"results": [3.0, 19.0]}


def test_status(rest: str) -> None:
    answer = httpx.get(f"{rest}/v1/models/rich", timeout=60).json()
    ok = {"error_code": "OK", "error_message": ""}
    assert answer["model_version_status"] == [
        {"version": "2", "state": "AVAILABLE", "status": ok},
        {"version": "1", "state": "AVAILABLE", "status": ok},
    ]
    one = httpx.get(f"{rest}/v1/models/rich/versions/1", timeout=60).json()
    assert [entry["version"] for entry in one["model_version_status"]] == ["1"]


def test_status_of_absent_model_and_version(rest: str) -> None:
    text = refused(httpx.get(f"{rest}/v1/models/absent", timeout=60), 404)
    assert text == "Could not find any versions of model absent"
    text = refused(httpx.get(f"{rest}/v1/models/rich/versions/9", timeout=60), 404)
    assert text == "Could not find version 9 of model rich"


@pytest.mark.parametrize("path", ["affine", "affine/versions/7"])
def test_metadata(rest: str, path: str) -> None:
    answer = httpx.get(f"{rest}/v1/models/{path}/metadata", timeout=60).json()
    assert answer["model_spec"] == {"name": "affine", "signature_name": "", "version": "7"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    x = signature["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in x["tensor_shape"]["dim"]] == ["-1", "3"]
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_metadata_by_label(rest: str) -> None:
    answer = httpx.get(f"{rest}/v1/models/rich/labels/old/metadata", timeout=60).json()
    assert answer["model_spec"]["version"] == "1"


def test_gzip_body(rest: str) -> None:
    response = httpx.post(
        f"{rest}/v1/models/affine:predict",
        content=gzip.compress(json.dumps({"instances": ROWS}).encode()),
        headers={"content-encoding": "gzip"},
        timeout=60,
    )
    assert response.json()["predictions"][0] == [3.0, 5.0, 7.0]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("absent:predict", 404, "Servable not found for request: Latest(absent)"),
        ("affine/versions/9:predict", 404, "Servable not found for request: Specific(affine, 9)"),
        ("affine/labels/nope:predict", 400, "Unrecognized servable version label"),
        (
            "affine/versions/99999999999999999999:predict",
            400,
            "Failed to convert version: 99999999999999999999",
        ),
        ("affine:explode", 400, "Malformed request: POST /v1/models/affine:explode"),
        ("affine/nonsense:predict", 400, "Malformed request: POST"),
    ],
)
def test_addresses_refused(rest: str, path: str, status: int, text: str) -> None:
    assert text in refused(post(rest, path, {"instances": ROWS}), status)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"nonsense", "JSON Parse error: Invalid value. at offset: 0"),
        (b"[1]", "Is not object"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        ({"instances": ROWS, "inputs": ROWS}, "expecting only one of"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": 3}, "Expecting 'instances' to be an list/array"),
        ({"instances": [["a", 1, 2]]}, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"instances": [[1.0], [1.0, 2.0]]}, "Expecting tensor size: 1 but got: 2"),
        ({"inputs": [[1.0], [1.0, 2.0]]}, "Encountered list at unexpected size: 2"),
        ({"signature_name": 5, "instances": ROWS}, "'signature_name' key must be a string value."),
        (
            {"signature_name": "no", "instances": ROWS},
            'Serving signature name: "no" not found in signature def',
        ),
        ({"instances": [{"z": [1, 2, 3]}]}, "keys must be equal to: x"),
        ({"inputs": {"z": ROWS}}, "Missing named input: x in 'inputs' object."),
    ],
)
def test_bodies_refused(rest: str, body: Any, text: str) -> None:
    assert text in refused(post(rest, "affine:predict", body), 400)


def test_unknown_verbs_and_paths(rest: str) -> None:
    assert "Missing model name in request." in refused(httpx.get(f"{rest}/v1/models", timeout=60), 400)
    assert "Malformed request: GET" in refused(httpx.get(f"{rest}/v1/nonsense", timeout=60), 400)
    assert "Malformed request: DELETE" in refused(httpx.delete(f"{rest}/v1/models/affine", timeout=60), 400)
    assert httpx.get(f"{rest}/nothing", timeout=60).status_code == 404


def test_precedence_json_before_model_before_signature_before_values(rest: str) -> None:
    assert "JSON Parse error" in refused(post(rest, "absent:predict", b"x"), 400)
    assert "Servable not found" in refused(
        post(rest, "absent:predict", {"signature_name": "no", "instances": []}), 404
    )
    assert "Serving signature name" in refused(
        post(rest, "affine:predict", {"signature_name": "no", "instances": []}), 400
    )


def test_rest_and_grpc_agree(rest: str, client: Any) -> None:
    from conformance_client import predict_request

    x = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
    over_grpc = tf.make_ndarray(client.predict(predict_request("affine", {"x": x})).outputs["y"])
    over_rest = post(rest, "affine:predict", {"instances": x.tolist()}).json()["predictions"]
    np.testing.assert_allclose(np.array(over_rest, np.float32), over_grpc, rtol=1e-6)


def test_prometheus_page_counts_requests(rest: str) -> None:
    def count() -> float:
        text = httpx.get(f"{rest}/monitoring/prometheus/metrics", timeout=60).text
        lines = [x for x in text.splitlines() if x.startswith(":tensorflow:serving:request_count{")]
        return sum(
            float(x.rpartition(" ")[2]) for x in lines if 'model_name="affine"' in x and 'status="OK"' in x
        )

    before = count()
    for _ in range(3):
        post(rest, "affine:predict", {"instances": ROWS})
    page = httpx.get(f"{rest}/monitoring/prometheus/metrics", timeout=60)
    assert page.headers["content-type"].startswith("text/plain")
    assert count() >= before + 3
    assert "# TYPE :tensorflow:serving:request_latency histogram" in page.text
    bucket = ':tensorflow:serving:request_latency_bucket{model_name="affine",API="predict",entrypoint="REST",le="+Inf"}'
    assert bucket in page.text

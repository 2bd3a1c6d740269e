"""GetModelMetadata, GetModelStatus and HandleReloadConfigRequest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conformance_client import Client, failure, floats, metadata_request, predict_request
from conformance_models import config_text, save_affine
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END


def test_metadata_has_every_signature(client: Client) -> None:
    answer = client.metadata(metadata_request("rich", "signature_def", version=1))
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("rich", 1)
    assert answer.model_spec.signature_name == ""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "two", "classify", "regress"} <= set(signatures.signature_def)
    assert set(signatures.signature_def["two"].inputs) == {"a", "b"}


def test_metadata_without_a_field_is_refused_before_the_model_is_looked_up(client: Client) -> None:
    assert failure(lambda: client.metadata(metadata_request("absent"))) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )


def test_metadata_of_another_field_is_refused(client: Client) -> None:
    code, text = failure(lambda: client.metadata(metadata_request("rich", "other")))
    assert (code, text) == ("INVALID_ARGUMENT", "Metadata field other is not supported")


def test_metadata_of_an_absent_model(client: Client) -> None:
    code, text = failure(lambda: client.metadata(metadata_request("absent", "signature_def")))
    assert (code, text) == ("NOT_FOUND", "Servable not found for request: Latest(absent)")


def test_status_lists_versions_highest_first(client: Client) -> None:
    found = [(s.version, s.state) for s in client.status("rich").model_version_status]
    assert found == [(2, AVAILABLE), (1, AVAILABLE)]


def test_status_of_one_version(client: Client) -> None:
    assert [s.version for s in client.status("rich", version=1).model_version_status] == [1]


def test_status_of_absent_models_and_versions(client: Client) -> None:
    assert failure(lambda: client.status("absent")) == (
        "NOT_FOUND",
        "Could not find any versions of model absent",
    )
    assert failure(lambda: client.status("rich", version=9)) == (
        "NOT_FOUND",
        "Could not find version 9 of model rich",
    )


def reload_request(folder: Path, *extra: str) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(config_text(folder, *extra), request.config)
    return request


def entry(name: str, path: Path, more: str = "") -> str:
    return f'  config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'


def eventually(check: Any, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def folder(target: Any, client: Client, tmp_path: Path) -> Iterator[Path]:
    """The models' folder; the configuration is put back afterwards."""
    if target.folder is None:
        pytest.skip("needs MODELS=<folder of the server's models>")
    yield target.folder
    client.reload(reload_request(target.folder))


def affine(client: Client, name: str, version: int | None = None, label: str = "") -> tuple[int, float]:
    """The answering version, and its answer to x = 1."""
    request = predict_request(name, {"x": floats([1, 1, 1])}, version=version, label=label)
    answer = client.predict(request)
    return answer.model_spec.version.value, float(tf.make_ndarray(answer.outputs["y"])[0, 0])


def test_reload_adds_and_removes_models(client: Client, folder: Path, tmp_path: Path) -> None:
    save_affine(tmp_path / "1", factor=4.0)
    assert client.reload(reload_request(folder, entry("fresh", tmp_path))).status.error_code == 0
    assert affine(client, "fresh") == (1, 5.0)  # available when the call returns
    client.reload(reload_request(folder))
    eventually(lambda: client.status("fresh").model_version_status[0].state == END)
    assert failure(lambda: affine(client, "fresh"))[0] == "NOT_FOUND"
    assert affine(client, "affine") == (7, 3.0)


def test_new_version_is_available_before_the_old_one_goes(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    save_affine(tmp_path / "1", factor=1.0)
    client.reload(reload_request(folder, entry("moving", tmp_path)))
    save_affine(tmp_path / "tmp-2", factor=2.0)
    (tmp_path / "tmp-2").rename(tmp_path / "2")
    seen = []
    until = time.monotonic() + 30
    while (not seen or seen[-1] != (2, 3.0)) and time.monotonic() < until:
        seen.append(affine(client, "moving"))  # never refused
    assert set(seen) == {(1, 2.0), (2, 3.0)}
    eventually(lambda: [s.state for s in client.status("moving").model_version_status] == [AVAILABLE, END])
    shutil.rmtree(tmp_path / "2")  # the newest folder is gone: back to the one before
    eventually(lambda: affine(client, "moving") == (1, 2.0))


def test_a_broken_version_never_displaces_the_old_one(client: Client, folder: Path, tmp_path: Path) -> None:
    save_affine(tmp_path / "1", factor=1.0)
    client.reload(reload_request(folder, entry("broken", tmp_path)))
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "saved_model.pb").write_bytes(b"\xff not a model")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert affine(client, "broken") == (1, 2.0)
        time.sleep(0.1)


def test_policies(client: Client, folder: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_affine(tmp_path / f"{number:03}", factor=float(number))
    latest_two = entry("many", tmp_path, "model_version_policy { latest { num_versions: 2 } }")
    client.reload(reload_request(folder, latest_two))
    eventually(lambda: available(client, "many") == [3, 2])
    specific = entry("many", tmp_path, "model_version_policy { specific { versions: 1 versions: 9 } }")
    client.reload(reload_request(folder, specific))
    eventually(lambda: available(client, "many") == [1])
    client.reload(reload_request(folder, entry("many", tmp_path, "model_version_policy { all {} }")))
    eventually(lambda: available(client, "many") == [3, 2, 1])


def available(client: Client, name: str) -> list[int]:
    return [s.version for s in client.status(name).model_version_status if s.state == AVAILABLE]


def test_labels_move_only_to_available_versions(client: Client, folder: Path, tmp_path: Path) -> None:
    save_affine(tmp_path / "1", factor=1.0)
    save_affine(tmp_path / "2", factor=2.0)
    both = "model_version_policy { specific { versions: 1 versions: 2 } } "
    client.reload(reload_request(folder, entry("labelled", tmp_path, both)))
    eventually(lambda: available(client, "labelled") == [2, 1])
    label = 'version_labels { key: "stable" value: %d }'
    client.reload(reload_request(folder, entry("labelled", tmp_path, both + label % 1)))
    assert affine(client, "labelled", label="stable") == (1, 2.0)
    client.reload(reload_request(folder, entry("labelled", tmp_path, both + label % 2)))
    assert affine(client, "labelled", label="stable") == (2, 3.0)
    refused = reload_request(folder, entry("labelled", tmp_path, both + label % 9))
    code, text = failure(lambda: client.reload(refused))
    assert code == "FAILED_PRECONDITION"
    assert text == (
        "Request to assign label to version 9 of model labelled, which is not currently available for inference"
    )
    assert affine(client, "labelled", label="stable") == (2, 3.0)  # the old label stays


def test_reload_of_a_model_that_cannot_load_says_why(client: Client, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    try:
        code, text = failure(
            lambda: client.reload(reload_request(folder, entry("empty", tmp_path)), timeout=400)
        )
    except grpc.RpcError as error:  # pragma: no cover
        raise AssertionError(str(error)) from error
    assert code == "UNKNOWN"
    assert text.startswith("1 model(s) did not become available: {{{name: empty version: 1} due to error: ")
    assert "saved_model.pb" in text
    assert affine(client, "affine") == (7, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'config { name: "a" base_path: "/x" model_platform: "tensorflow" } ' * 2,
            "Illegal to list model a multiple",
        ),
        (
            'config { name: "a" base_path: "x" model_platform: "tensorflow" }',
            "Expected model a to have an absolute path or URI; got base_path()=x",
        ),
    ],
)
def test_bad_configurations_are_refused(client: Client, folder: Path, text: str, message: str) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(f"model_config_list {{ {text} }}", request.config)
    code, found = failure(lambda: client.reload(request))
    assert code == "INVALID_ARGUMENT"
    assert message in found
    assert affine(client, "affine") == (7, 3.0)


def test_reload_without_a_list_is_refused(client: Client) -> None:
    code, text = failure(lambda: client.reload(model_management_pb2.ReloadConfigRequest()))
    assert code == "INVALID_ARGUMENT"
    assert "Only ModelConfigList is currently supported" in text


def test_a_models_platform_cannot_change(client: Client, folder: Path) -> None:
    text = config_text(folder).replace('"tensorflow"', '"other"')
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text, request.config)
    code, found = failure(lambda: client.reload(request))
    assert code == "INVALID_ARGUMENT"
    assert "Illegal to change a model's platform. For model" in found


def test_reload_reports_the_metrics_asked_for(client: Client, folder: Path) -> None:
    request = reload_request(folder)
    request.metric_names.append("/no/such/metric")
    answer = client.reload(request)
    assert [(m.name, m.int64_value_increase) for m in answer.metric] == [("/no/such/metric", 0)]


def test_requests_during_reloads_are_never_lost(client: Client, folder: Path, tmp_path: Path) -> None:
    save_affine(tmp_path / "1", factor=1.0)
    for _ in range(3):
        client.reload(reload_request(folder, entry("flicker", tmp_path)))
        for _ in range(20):
            assert affine(client, "affine") == (7, 3.0)
        client.reload(reload_request(folder))
    np.testing.assert_equal(affine(client, "affine"), (7, 3.0))

"""What each REST address answers: predict, classify, regress, status, metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from barcast.serving.model_server import protocol_examples, protocol_models, rest_examples, rest_json
from barcast.serving.model_server.core import Core
from barcast.serving.model_server.request_forms import DEFAULT_SIGNATURE, select_outputs
from barcast.serving.model_server.status import invalid
from barcast.serving.model_server.tensors import decode

_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_CHOICE}:(?P<verb>classify|regress|predict)", re.IGNORECASE
)
_GET = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{_CHOICE}(?:/(?P<what>metadata))?", re.IGNORECASE)
_LARGEST_VERSION = 2**63 - 1


@dataclass(frozen=True)
class Route:
    """One call, read from its method and path.

    Attributes:
        verb: predict, classify, regress, metadata or status.
        spec: which model, version or label.
    """

    verb: str
    spec: Any

    @property
    def api(self) -> str:
        """The name TensorFlow Serving's metrics give it: the verb of a POST, nothing for a GET."""
        return "" if self.verb in ("metadata", "status") else self.verb


def route(method: str, path: str) -> Route:
    """Read the address.

    Args:
        method: GET, POST, ...
        path: as sent, percent-encoded.

    Raises:
        StatusError: INVALID_ARGUMENT for an address that is none of the API's.
    """
    found = (_POST if method == "POST" else _GET).fullmatch(path) if method in ("GET", "POST") else None
    if found is None:
        raise invalid(f"Malformed request: {method} {path}")
    parts = found.groupdict()
    if not parts["model"]:
        raise invalid("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=unquote(parts["model"]))
    if parts["version"]:
        digits = parts["version"].lstrip("0") or "0"
        if len(digits) > len(str(_LARGEST_VERSION)) or int(digits) > _LARGEST_VERSION:
            raise invalid(f"Failed to convert version: {parts['version']} to numeric.")
        spec.version.value = int(digits)
    elif parts["label"]:
        spec.version_label = unquote(parts["label"])
    verb = parts["verb"].lower() if method == "POST" else ("metadata" if parts["what"] else "status")
    return Route(verb, spec)


async def answer(core: Core, called: Route, body: bytes, until: float) -> bytes:
    """The JSON answer of a call.

    Raises:
        StatusError: what the handler or the model said.
    """
    if called.verb == "predict":
        return await _predict(core, called.spec, body, until)
    return rest_json.encode(await _other(core, called, body, until))


async def _other(core: Core, called: Route, body: bytes, until: float) -> dict[str, Any]:
    if called.verb == "classify":
        request = classification_pb2.ClassificationRequest(**_examples(called.spec, body))
        found = await protocol_examples.classify(core, request, until)
        return rest_examples.classify_results(found.result)
    if called.verb == "regress":
        request = regression_pb2.RegressionRequest(**_examples(called.spec, body))
        found = await protocol_examples.regress(core, request, until)
        return rest_examples.regress_results(found.result)
    if called.verb == "metadata":
        return await _metadata(core, called.spec, until)
    status = await protocol_models.model_status(
        core, get_model_status_pb2.GetModelStatusRequest(model_spec=called.spec), until
    )
    return _dict(status)


def _examples(spec: Any, body: bytes) -> dict[str, Any]:
    document = rest_json.parse(body)
    spec.signature_name = rest_json.signature_name(document)
    return {"model_spec": spec, "input": rest_examples.read_input(document)}


async def _predict(core: Core, spec: Any, body: bytes, until: float) -> bytes:
    document = await core.beside(len(body), rest_json.parse, body)
    key = rest_json.signature_name(document) or DEFAULT_SIGNATURE
    with core.servable_of(spec) as servable:
        signature = servable.signatures.get(key)
        if signature is None:
            raise invalid(f'Serving signature name: "{key}" not found in signature def')
        inputs, row = await core.beside(len(body), rest_json.read_inputs, document, signature)
        for alias, default in signature.defaults.items():
            inputs.setdefault(alias, decode(default, alias))
        outputs = select_outputs(signature, ())
        found = await core.run(servable, key, inputs, outputs, api="Predict", until=until)
        arrays = {alias: found[alias] for alias in outputs}
        size = sum(array.nbytes for array in arrays.values())
        return await core.beside(size, lambda: rest_json.encode(rest_json.write_outputs(arrays, row=row)))


async def _metadata(core: Core, spec: Any, until: float) -> dict[str, Any]:
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )
    response = await protocol_models.metadata(core, request, until)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return {
        "model_spec": {
            "name": response.model_spec.name,
            "signature_name": "",
            "version": str(response.model_spec.version.value),
        },
        "metadata": {"signature_def": _dict(signatures)},
    }


def _dict(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found

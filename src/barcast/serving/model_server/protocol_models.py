"""GetModelMetadata, GetModelStatus and HandleReloadConfigRequest."""

from __future__ import annotations

import asyncio
from typing import Any

from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
)

from barcast.serving.model_server.core import Core
from barcast.serving.model_server.request_forms import fill_spec
from barcast.serving.model_server.status import invalid, not_found

_SIGNATURES = "signature_def"


async def metadata(core: Core, request: Any, until: float | None) -> Any:
    """Every signature of a version.

    Raises:
        StatusError: no or another field than `signature_def` (judged first), or no such version.
    """
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != _SIGNATURES:
            raise invalid(f"Metadata field {field} is not supported")
    with core.servable(request) as servable:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        fill_spec(response.model_spec, servable)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in servable.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
        response.metadata[_SIGNATURES].Pack(signatures)
        return response


async def model_status(core: Core, request: Any, until: float | None) -> Any:
    """The states of all versions ever seen (highest first), or of one.

    Raises:
        StatusError: INVALID_ARGUMENT without a spec, NOT_FOUND for an unknown model or version.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    versions = core.manager.versions(spec.name)
    if spec.HasField("version"):
        number = spec.version.value
        versions = [version for version in versions if version.number == number]
        if not versions:
            raise not_found(f"Could not find version {number} of model {spec.name}")
    if not versions:
        raise not_found(f"Could not find any versions of model {spec.name}")
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        error = version.error
        entry.status.error_code = int(error.code) if error else 0
        entry.status.error_message = error.message if error else ""
    return response


async def reload_config(core: Core, request: Any, until: float | None) -> Any:
    """Replace the list of models; returns when every new one has a version available.

    Raises:
        StatusError: the configuration is refused, or a new model did not become available.
    """
    names = list(request.metric_names)
    before = {name: core.metrics.total(name) for name in names}
    await asyncio.get_running_loop().run_in_executor(None, core.reload, request.config, until)
    response = model_management_pb2.ReloadConfigResponse()
    response.status.error_code = 0
    for name in names:
        response.metric.add(name=name, int64_value_increase=core.metrics.total(name) - before[name])
    return response

"""The gRPC door: PredictionService and ModelService of TensorFlow Serving, and optionally grpc.health.v1."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from barcast import logs
from barcast.errors import ConfigError, ServingError
from barcast.serving.model_server import messages, protocol_examples, protocol_models, protocol_predict
from barcast.serving.model_server.core import Core
from barcast.serving.model_server.status import StatusError, from_exception, grpc_text

_LOG = logs.get("model_server")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SERVING_STATUS = 1
_Handler = Callable[[Core, Any, float | None], Awaitable[Any]]
# Method → (handler, request, whether TensorFlow Serving counts it)
_PREDICTION: dict[str, tuple[_Handler, Any, bool]] = {
    "Predict": (protocol_predict.predict, predict_pb2.PredictRequest, True),
    "Classify": (
        protocol_examples.classify,
        classification_pb2.ClassificationRequest,
        True,
    ),
    "Regress": (
        protocol_examples.regress,
        regression_pb2.RegressionRequest,
        True,
    ),
    "MultiInference": (
        protocol_examples.multi_inference,
        inference_pb2.MultiInferenceRequest,
        False,
    ),
    "GetModelMetadata": (
        protocol_models.metadata,
        get_model_metadata_pb2.GetModelMetadataRequest,
        False,
    ),
}
_MODEL: dict[str, tuple[_Handler, Any, bool]] = {
    "GetModelStatus": (
        protocol_models.model_status,
        get_model_status_pb2.GetModelStatusRequest,
        False,
    ),
    "HandleReloadConfigRequest": (
        protocol_models.reload_config,
        model_management_pb2.ReloadConfigRequest,
        False,
    ),
}


def _method(core: Core, name: str, entry: tuple[_Handler, Any, bool]) -> grpc.RpcMethodHandler:
    handle, request_class, counted = entry

    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        began = time.monotonic()
        left = context.time_remaining()
        until = None if left is None else began + left
        failure: StatusError | None = None
        try:
            response = await handle(core, request, until)
        except StatusError as error:
            failure = error
        except Exception as error:  # a bug of ours or a library's must not look like a lost connection
            _LOG.exception("a request failed unexpectedly", method=name)
            failure = from_exception(error)
        if counted:
            status = failure.code.name if failure else "OK"
            core.metrics.request(request.model_spec.name, status, name, "GRPC", time.monotonic() - began)
        if failure is not None:
            await context.abort(_CODES[int(failure.code)], grpc_text(failure.message))
        return response

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request_class.FromString,
        response_serializer=lambda found: found if isinstance(found, bytes) else found.SerializeToString(),
    )


def _health(core: Core) -> grpc.GenericRpcHandler:
    response = messages.CLASSES["HealthCheckResponse"]

    async def check(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if request.service and request.service not in (
            "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService",
        ):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service}")
        return response(status=_SERVING_STATUS)

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=messages.CLASSES["HealthCheckRequest"].FromString,
        response_serializer=response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})


def credentials(file: Path) -> grpc.ServerCredentials:
    """TLS from an SSLConfig text file; the certificates are in the file itself, as TensorFlow Serving wants them.

    Raises:
        ConfigError: the file or its contents cannot be used.
    """
    config = messages.read_text("SSLConfig", file)
    if not config.server_key or not config.server_cert:
        raise ConfigError(f"{file} has no server_key and server_cert.", hint="Put both PEM texts into it.")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(f"{file} asks for client certificates but names no custom_ca to judge them by.")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


class GrpcDoor:
    """The gRPC server of a core."""

    def __init__(self, core: Core) -> None:
        options = core.options
        self._options = options
        self._socket: Path | None = None
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                # Without this a second server binds the same port silently and takes half of the requests.
                ("grpc.so_reuseport", 0),
                *options.grpc_channel_arguments,
            )
        )
        prediction = {name: _method(core, name, entry) for name, entry in _PREDICTION.items()}
        model = {name: _method(core, name, entry) for name, entry in _MODEL.items()}
        handlers = [
            grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
            grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
        ]
        if options.enable_grpc_healthcheck_service:
            handlers.append(_health(core))
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._credentials = credentials(options.ssl_config_file) if options.ssl_config_file else None

    async def start(self) -> int:
        """Bind and serve; the bound port.

        Raises:
            ServingError: the port or socket is taken.
        """
        bound = self._bind(self._options.address(self._options.port))
        if self._options.grpc_socket_path:
            self._bind(f"unix:{self._options.grpc_socket_path}", secure=False)
            self._socket = Path(self._options.grpc_socket_path)
        await self._server.start()
        return bound

    def _bind(self, address: str, *, secure: bool = True) -> int:
        try:
            if secure and self._credentials is not None:
                return int(self._server.add_secure_port(address, self._credentials))
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise ServingError(
                f"Cannot listen for gRPC on {address}: {error}.",
                hint="Is another server running there? Choose another --port, or 0 for any free one.",
            ) from error

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new requests, let those in flight end, and remove the socket that was made."""
        await self._server.stop(grace_seconds)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

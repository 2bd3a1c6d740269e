"""A plain gRPC client of TensorFlow Serving's protocol: requests as written, errors as (code, text)."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

SECONDS = 60.0


class Client:
    """Both services over one channel."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = (
            grpc.secure_channel(endpoint, credentials, options)
            if credentials
            else grpc.insecure_channel(endpoint, options)
        )
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def predict(self, request: Any, timeout: float = SECONDS) -> Any:
        return self.prediction.Predict(request, timeout=timeout)

    def metadata(self, request: Any) -> Any:
        return self.prediction.GetModelMetadata(request, timeout=SECONDS)

    def status(self, name: str, version: int | None = None, label: str = "") -> Any:
        request = get_model_status_pb2.GetModelStatusRequest()
        fill(request.model_spec, name, version=version, label=label)
        return self.models.GetModelStatus(request, timeout=SECONDS)

    def reload(self, request: Any, timeout: float = SECONDS) -> Any:
        return self.models.HandleReloadConfigRequest(request, timeout=timeout)


def fill(spec: Any, name: str, *, signature: str = "", version: int | None = None, label: str = "") -> None:
    """Fill a ModelSpec."""
    spec.name = name
    spec.signature_name = signature
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label


def predict_request(
    name: str,
    inputs: dict[str, Any],
    *,
    signature: str = "",
    version: int | None = None,
    label: str = "",
    outputs: tuple[str, ...] = (),
) -> Any:
    """A PredictRequest; inputs are arrays or ready TensorProtos."""
    request = predict_pb2.PredictRequest()
    fill(request.model_spec, name, signature=signature, version=version, label=label)
    for alias, value in inputs.items():
        proto = value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        request.inputs[alias].CopyFrom(proto)
    request.output_filter.extend(outputs)
    return request


def metadata_request(name: str, *fields: str, version: int | None = None, label: str = "") -> Any:
    """A GetModelMetadataRequest."""
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    fill(request.model_spec, name, version=version, label=label)
    request.metadata_field.extend(fields)
    return request


def floats(*rows: list[float]) -> np.ndarray:
    """float32 rows."""
    return np.array(rows, dtype=np.float32)


def failure(call: Any) -> tuple[str, str]:
    """The code and text a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("the server answered OK; an error was expected")

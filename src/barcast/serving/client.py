"""A light client of TensorFlow Serving's gRPC protocol: Predict, status, metadata; sync and async.

Works against TensorFlow Serving and `barcast-model-server` alike. Predict changes nothing on the server, so
a call that found it unavailable is repeated (full jitter); one that ran out of time is not, since the
caller's time is gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from barcast import tracing
from barcast.errors import ServingError
from barcast.serving.breaker import Breaker
from barcast.serving.protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from barcast.serving.tensors import pack, unpack

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_OPTIONS = (
    ("grpc.max_send_message_length", 256 * 2**20),
    ("grpc.max_receive_message_length", 256 * 2**20),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.lb_policy_name", "round_robin"),  # a headless Service names every pod: take turns among them
)
_ABSENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class ModelCallError(ServingError):
    """A Predict that failed.

    Attributes:
        code: gRPC's name of the failure (UNAVAILABLE, NOT_FOUND, ...), or BREAKER_OPEN.
        absent: the server itself did not answer, so its other models will not either.
    """

    def __init__(self, message: str, *, code: str, absent: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.absent = absent


@dataclass(frozen=True)
class ModelAnswer:
    """The outputs of one Predict and the version that gave them."""

    outputs: Mapping[str, NDArray[Any]]
    model: str
    version: int


def _request(
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    version: int | None,
    label: str | None,
    signature: str,
    outputs: tuple[str, ...],
) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    elif label is not None:
        request.model_spec.version_label = label
    for name, array in inputs.items():
        pack(np.asarray(array), request.inputs[name])
    request.output_filter.extend(outputs)
    return request


def _answer(response: Any) -> ModelAnswer:
    spec = response.model_spec
    arrays = {name: unpack(proto, name) for name, proto in response.outputs.items()}
    return ModelAnswer(arrays, spec.name, int(spec.version.value))


class ModelClient:
    """One model server.

    Args:
        endpoint: host:port.
        deadline_seconds: longest wait of one call, its repeats included.
        retries: repeats when the server is unavailable.
        retry_base_seconds: first wait, doubled each time, drawn uniformly from (0, wait).
        breaker: shared state that says whether to try at all.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        deadline_seconds: float = 2.0,
        retries: int = 1,
        retry_base_seconds: float = 0.05,
        breaker: Breaker | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.deadline_seconds = deadline_seconds
        self._retries = retries
        self._base = retry_base_seconds
        self.breaker = breaker or Breaker(3, 5.0)
        self._credentials = credentials
        self._channel = (
            grpc.secure_channel(endpoint, credentials, options=_OPTIONS)
            if credentials
            else grpc.insecure_channel(endpoint, options=_OPTIONS)
        )
        self._async: tuple[asyncio.AbstractEventLoop, Any] | None = None
        self._predict = self._channel.unary_unary(
            _PREDICT,
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        self._metadata = self._channel.unary_unary(
            _METADATA,
            request_serializer=get_model_metadata_pb2.GetModelMetadataRequest.SerializeToString,
            response_deserializer=get_model_metadata_pb2.GetModelMetadataResponse.FromString,
        )
        self._status = self._channel.unary_unary(
            _STATUS,
            request_serializer=get_model_status_pb2.GetModelStatusRequest.SerializeToString,
            response_deserializer=get_model_status_pb2.GetModelStatusResponse.FromString,
        )

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()

    def __enter__(self) -> ModelClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "serving_default",
        outputs: tuple[str, ...] = (),
        deadline_seconds: float | None = None,
    ) -> ModelAnswer:
        """Ask one model.

        Args:
            model: served name.
            inputs: arrays by input name, all with the same leading B.
            version: an exact version; else `label`; else the newest available.
            outputs: output names wanted; empty for all.

        Raises:
            ModelCallError: unreachable, too slow, or refused; `.code` says which.
        """
        request = _request(model, inputs, version, label, signature, outputs)
        end = time.monotonic() + (deadline_seconds or self.deadline_seconds)
        with tracing.span("model", model=model, version=version or 0):
            carried = tracing.carried()
            for attempt in range(self._retries + 1):
                self._admit()
                try:
                    timeout = max(0.001, end - time.monotonic())
                    response = self._predict(request, timeout=timeout, metadata=carried)
                except grpc.RpcError as error:
                    pause = self._judge(error, model, attempt, end)
                    time.sleep(pause)
                else:
                    self.breaker.success()
                    return _answer(response)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def predict_async(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "serving_default",
        outputs: tuple[str, ...] = (),
        deadline_seconds: float | None = None,
    ) -> ModelAnswer:
        """As `predict`, without blocking the event loop."""
        request = _request(model, inputs, version, label, signature, outputs)
        end = time.monotonic() + (deadline_seconds or self.deadline_seconds)
        call = self._async_channel().unary_unary(
            _PREDICT,
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        for attempt in range(self._retries + 1):
            self._admit()
            try:
                response = await call(request, timeout=max(0.001, end - time.monotonic()))
            except grpc.RpcError as error:
                pause = self._judge(error, model, attempt, end)
                await asyncio.sleep(pause)
            else:
                self.breaker.success()
                return _answer(response)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def close_async(self) -> None:
        """Close the async connection too."""
        if self._async is not None:
            await self._async[1].close()
            self._async = None
        self.close()

    def versions(self, model: str, deadline_seconds: float | None = None) -> dict[int, str]:
        """State of each version the server knows, e.g. {3: "AVAILABLE"}; empty when it does not know the
        model."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            response = self._status(request, timeout=deadline_seconds or self.deadline_seconds)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise self._error(error, model) from error
        states = get_model_status_pb2.ModelVersionStatus.State
        return {int(s.version): states.Name(s.state) for s in response.model_version_status}

    def signatures(self, model: str, deadline_seconds: float | None = None) -> Any:
        """The model's SignatureDefMap bytes wrapped in Any, as GetModelMetadata answers them."""
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = model
        request.metadata_field.append("signature_def")
        try:
            response = self._metadata(request, timeout=deadline_seconds or self.deadline_seconds)
        except grpc.RpcError as error:
            raise self._error(error, model) from error
        return response.metadata["signature_def"]

    def _async_channel(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._async is None or self._async[0] is not loop:
            aio = grpc.aio
            channel = (
                aio.secure_channel(self.endpoint, self._credentials, options=_OPTIONS)
                if self._credentials
                else aio.insecure_channel(self.endpoint, options=_OPTIONS)
            )
            self._async = (loop, channel)
        return self._async[1]

    def _admit(self) -> None:
        if not self.breaker.allow():
            raise ModelCallError(
                f"The model server {self.endpoint} failed repeatedly and is left alone for a moment.",
                code="BREAKER_OPEN",
                absent=True,
                hint="Start it with `barcast serve`, or set serving.endpoint.",
            )

    def _judge(self, error: Any, model: str, attempt: int, end: float) -> float:
        """Seconds to wait before a repeat; raises when there is none."""
        code = error.code()
        if code in _ABSENT:
            self.breaker.failure()
        else:
            self.breaker.success()  # it answered, if with an error
        wait = random.uniform(0, self._base * 2**attempt)
        again = code is grpc.StatusCode.UNAVAILABLE and attempt < self._retries
        if not again or time.monotonic() + wait >= end:
            raise self._error(error, model) from error
        return wait

    def _error(self, error: Any, model: str) -> ModelCallError:
        code = error.code()
        absent = code in _ABSENT
        hint = "Start it with `barcast serve`, or set serving.endpoint." if absent else ""
        text = (error.details() or "").strip()
        return ModelCallError(
            f"{model} at {self.endpoint}: {code.name}: {text}", code=code.name, absent=absent, hint=hint
        )

"""A real gRPC server that speaks Predict with answers and faults set by a test: the peer, not the thing
under test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import numpy as np

from barcast.serving.protos import predict_pb2
from barcast.serving.tensors import pack, unpack

Answer = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def outputs(p: tuple[float, float, float], expected: float = 0.01, **changes: Any) -> Answer:
    """A model that gives the same answer to every window."""

    def answer(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        b, t = inputs["window"].shape[:2]
        given = {
            "probabilities": np.tile(np.array(p, dtype=np.float32), (b, 1)),
            "confidence": np.full(b, max(p), np.float32),
            "uncertainty": np.full(b, 0.05, np.float32),
            "entropy": np.full(b, 0.9, np.float32),
            "expected_return": np.full(b, expected, np.float32),
            "expected_volatility": np.full(b, 0.02, np.float32),
            "position_size": np.full(b, 0.4, np.float32),
            "regime": np.tile(np.array([0.7, 0.2, 0.1], np.float32), (b, 1)),
            "volatility_regime": np.tile(np.array([0.2, 0.5, 0.3], np.float32), (b, 1)),
            "trend_strength": np.full(b, 0.6, np.float32),
            "attention": np.full((b, t), 1.0 / t, np.float32),
            "embedding": inputs["window"][:, -1, :2].astype(np.float32),
        }
        given.update(changes)
        return given

    return answer


class ModelDouble:
    """Models by (name, version), other signatures by (name, version, signature): an answer function, or a gRPC status
    to fail with."""

    def __init__(self) -> None:
        self.models: dict[tuple[Any, ...], Answer | grpc.StatusCode] = {}
        self.calls: list[tuple[str, int, int]] = []
        self.traces: list[str] = []  # the `traceparent` of each call that carried one
        self.delay_seconds = 0.0
        self.unavailable_times = 0
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        handler = grpc.unary_unary_rpc_method_handler(
            self._predict,
            request_deserializer=predict_pb2.PredictRequest.FromString,
            response_serializer=predict_pb2.PredictResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "tensorflow.serving.PredictionService", {"Predict": handler}
        )
        self._server.add_generic_rpc_handlers((service,))
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def _predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        name, version = request.model_spec.name, int(request.model_spec.version.value)
        inputs = {k: unpack(v, k) for k, v in request.inputs.items()}
        with self._lock:
            self.calls.append((name, version, len(inputs["window"])))
            self.traces += [str(v) for k, v in context.invocation_metadata() if k == "traceparent"]
            if self.unavailable_times > 0:
                self.unavailable_times -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "come back later")
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        signature = request.model_spec.signature_name
        model = self.models.get((name, version, signature), self.models.get((name, version)))
        if model is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})"
            )
        if isinstance(model, grpc.StatusCode):
            context.abort(model, "it is broken")
        arrays = model({**inputs, "signature": np.array([len(signature)])})
        response = predict_pb2.PredictResponse()
        response.model_spec.name = name
        response.model_spec.version.value = version
        for key, array in arrays.items():
            response.outputs[key].CopyFrom(pack(np.asarray(array)))
        return response

"""A model server's ear: a local gRPC server that keeps the window of each Predict and passes the request on.

The prediction client speaks to it as to any model server, so what it keeps is what came over the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from barcast.serving.protos import predict_pb2
from barcast.serving.tensors import unpack

_PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Recorder(grpc.GenericRpcHandler):
    """Serves Predict on a free local port. Use it as a context manager.

    Args:
        forward_to: host:port of a model server that answers; without one the answer is empty.

    Attributes:
        windows: float32 arrays received, oldest first.
        answers: how many were answered by the model server behind.
    """

    def __init__(self, forward_to: str | None = None) -> None:
        self.windows: list[npt.NDArray[np.float32]] = []
        self.answers = 0
        self.endpoint = ""
        self._channel = grpc.insecure_channel(forward_to) if forward_to else None
        self._behind: Callable[..., bytes] | None = (
            self._channel.unary_unary(_PREDICT) if self._channel is not None else None
        )
        self._server = grpc.server(ThreadPoolExecutor(1), handlers=(self,))

    def __enter__(self) -> Recorder:
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=1).wait()
        if self._channel is not None:
            self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        """gRPC's question who answers a method."""
        if handler_call_details.method != _PREDICT:
            return None
        return grpc.unary_unary_rpc_method_handler(self._predict)

    def _predict(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        request = predict_pb2.PredictRequest.FromString(raw)
        self.windows.append(unpack(request.inputs["window"], "window"))
        if self._behind is None:
            answer = predict_pb2.PredictResponse()
            answer.model_spec.CopyFrom(request.model_spec)
            return bytes(answer.SerializeToString())
        try:
            response = self._behind(raw, timeout=context.time_remaining() or 10)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
            raise
        self.answers += 1
        return response

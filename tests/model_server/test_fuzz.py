"""Random protobufs and bytes: the server refuses them, stays up, and answers the next good request."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf
from conformance_client import Client, floats, predict_request
from google.protobuf.descriptor import FieldDescriptor
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from barcast.serving.model_server import start

pytestmark = pytest.mark.slow
REQUESTS = 10_000
_PREDICTION = "/tensorflow.serving.PredictionService/"
_MODEL = "/tensorflow.serving.ModelService/"
METHODS = [
    (_PREDICTION + "Predict", predict_pb2.PredictRequest),
    (_PREDICTION + "Classify", classification_pb2.ClassificationRequest),
    (_PREDICTION + "Regress", regression_pb2.RegressionRequest),
    (_PREDICTION + "MultiInference", inference_pb2.MultiInferenceRequest),
    (_PREDICTION + "GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest),
    (_MODEL + "GetModelStatus", get_model_status_pb2.GetModelStatusRequest),
    (_MODEL + "HandleReloadConfigRequest", model_management_pb2.ReloadConfigRequest),
]
WORDS = [
    "rich",
    "serving_default",
    "two",
    "text",
    "classify",
    "regress",
    "total",
    "x",
    "a",
    "b",
    "inputs",
    "",
    "é",
]


def scalar(field: Any, dice: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return dice.randbytes(dice.choice([0, 1, 4, 12, 40]))
        return dice.choice(WORDS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return dice.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return dice.choice([0.0, 1.5, -1e30, float("nan"), float("inf")])
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return dice.choice(field.enum_type.values).number
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        return dice.choice([0, 1, 2, 2**32 - 1])
    return dice.choice([0, 1, 2, 3, -1, 2**31 - 1, 1000])


def fill(message: Any, dice: random.Random, depth: int = 0) -> Any:
    """Random values in random fields."""
    for field in message.DESCRIPTOR.fields:
        if dice.random() < (0.35 if depth else 0.15) or depth > 6:
            continue
        if field.message_type is None:
            if field.is_repeated:
                getattr(message, field.name).extend(
                    scalar(field, dice) for _ in range(dice.choice([0, 1, 3, 6]))
                )
            else:
                setattr(message, field.name, scalar(field, dice))
        elif field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            for _ in range(dice.choice([1, 1, 2])):
                entries = getattr(message, field.name)
                key = scalar(field.message_type.fields_by_name["key"], dice)
                if value.message_type is None:
                    entries[key] = scalar(value, dice)
                else:
                    fill(entries[key], dice, depth + 1)
        elif field.is_repeated:
            for _ in range(dice.choice([0, 1, 2])):
                fill(getattr(message, field.name).add(), dice, depth + 1)
        else:
            fill(getattr(message, field.name), dice, depth + 1)
    return message


def mostly_right(request: Any, dice: random.Random) -> Any:
    """Half of the requests name the model, so that they get further than the first check."""
    if dice.random() < 0.5 and "model_spec" in request.DESCRIPTOR.fields_by_name:
        request.model_spec.Clear()
        request.model_spec.name = "rich"
        request.model_spec.signature_name = dice.choice(["", "two", "text", "classify", "regress", "total"])
    if isinstance(request, predict_pb2.PredictRequest) and dice.random() < 0.5:
        shape = [dice.choice([0, 1, 2, 5]) for _ in range(dice.choice([0, 1, 2, 3]))]
        kind = dice.choice([np.float32, np.int32, np.int64, np.float64])
        request.inputs.clear()
        del request.output_filter[:]
        for alias in dice.choice([["x"], ["a", "b"], ["text"], ["x", "b"]]):
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(np.zeros(shape, kind)))
    return request


def outcome(call: Any, body: bytes) -> tuple[str, str]:
    try:
        call(body, timeout=60)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def test_ten_thousand_random_requests_do_no_harm(rich_path: Path) -> None:
    dice = random.Random(20261120)
    allowed = {
        "OK",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "UNIMPLEMENTED",
        "UNKNOWN",
        "OUT_OF_RANGE",
    }
    seen: dict[str, int] = {}
    with (
        start(
            models={"rich": rich_path.parent},
            max_num_load_retries=0,
            xla_batch_sizes="1,4",
            timeout_seconds=300,
        ) as server,
        grpc.insecure_channel(server.endpoint) as channel,
        Client(server.endpoint) as client,
    ):
        calls = {path: channel.unary_unary(path) for path, _ in METHODS}
        process = psutil.Process(server.process.pid)
        memory = []
        for number in range(REQUESTS):
            path, kind = dice.choice(METHODS)
            raw = dice.random() < 0.1
            body = (
                dice.randbytes(dice.randrange(200))
                if raw
                else mostly_right(fill(kind(), dice), dice).SerializeToString()
            )
            code, text = outcome(calls[path], body)
            # gRPC itself answers INTERNAL to bytes that are no message.
            assert code in allowed or (raw and code == "INTERNAL"), (path, code, text, body)
            seen[code] = seen.get(code, 0) + 1
            if path.endswith("HandleReloadConfigRequest") and code == "OK":
                _put_back(client, rich_path)
            if number % 1000 == 999:
                memory.append(process.memory_info().rss)
                answer = client.predict(predict_request("rich", {"x": floats([1, 2, 3])}))
                assert list(answer.outputs["y"].float_val) == [3.0, 5.0, 7.0]
        assert server.process.poll() is None
    assert seen["OK"] > 100
    assert memory[-1] < memory[2] * 1.15 + 50 * 2**20, memory


def _put_back(client: Client, path: Path) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(
        name="rich", base_path=str(path.parent), model_platform="tensorflow"
    )
    client.reload(request)

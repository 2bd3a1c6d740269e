"""Classify, Regress and MultiInference; services that are not offered."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import tensorflow as tf
from conformance_client import SECONDS, Client, failure, fill
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    regression_pb2,
    session_service_pb2,
)

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(value: float | None) -> Any:
    if value is None:
        return tf.train.Example()
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature={"x": feature}))


def examples(request: Any, *values: float | None, context: float | None = None) -> Any:
    target = request.input.example_list
    if context is not None:
        target = request.input.example_list_with_context
        target.context.CopyFrom(example(context))
    target.examples.extend(example(value) for value in values)
    return request


def classification(*values: float | None, signature: str = "classify", **kwargs: Any) -> Any:
    request = classification_pb2.ClassificationRequest()
    fill(request.model_spec, "rich", signature=signature, version=1)
    return examples(request, *values, **kwargs)


def regression(*values: float | None, signature: str = "regress", **kwargs: Any) -> Any:
    request = regression_pb2.RegressionRequest()
    fill(request.model_spec, "rich", signature=signature, version=1)
    return examples(request, *values, **kwargs)


def test_classify(client: Client) -> None:
    answer = client.prediction.Classify(classification(1.5, 2.5), timeout=SECONDS)
    assert answer.model_spec.version.value == 1
    assert answer.model_spec.signature_name == "classify"
    found = [[(c.label, c.score) for c in one.classes] for one in answer.result.classifications]
    assert found == [[("times", 3.0), ("plus", 2.5)], [("times", 5.0), ("plus", 3.5)]]


def test_regress_with_context_whose_example_wins(client: Client) -> None:
    answer = client.prediction.Regress(regression(1.5, None, context=4.0), timeout=SECONDS)
    assert [one.value for one in answer.result.regressions] == [3.0, 8.0]


@pytest.mark.parametrize("context", [None, 1.0])
def test_no_examples(client: Client, context: float | None) -> None:
    request = classification(context=context)
    assert failure(lambda: client.prediction.Classify(request, timeout=SECONDS)) == (
        "INVALID_ARGUMENT",
        "Input is empty.",
    )


def test_missing_feature_is_named(client: Client) -> None:
    code, text = failure(lambda: client.prediction.Regress(regression(None), timeout=SECONDS))
    assert code == "INVALID_ARGUMENT"
    assert "Feature: x" in text


def test_unknown_signature(client: Client) -> None:
    for call, request in (
        (client.prediction.Classify, classification(1.0, signature="nope")),
        (client.prediction.Regress, regression(1.0, signature="nope")),
    ):
        assert failure(lambda call=call, request=request: call(request, timeout=SECONDS)) == (
            "INVALID_ARGUMENT",
            "No signature was found with the name: nope",
        )


def test_signature_of_another_form(client: Client) -> None:
    code, text = failure(
        lambda: client.prediction.Classify(classification(1.0, signature="two"), timeout=SECONDS)
    )
    assert (code, text) == ("INVALID_ARGUMENT", "Expected one input Tensor.")
    code, text = failure(
        lambda: client.prediction.Regress(regression(1.0, signature="classify"), timeout=SECONDS)
    )
    assert (code, text) == ("INVALID_ARGUMENT", "Expected one output Tensor.")


def test_missing_spec(client: Client) -> None:
    request = classification_pb2.ClassificationRequest()
    assert failure(lambda: client.prediction.Classify(request, timeout=SECONDS)) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )


def multi(*tasks: tuple[str, str, str]) -> Any:
    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        fill(task.model_spec, model, signature=signature)
    return examples(request, 2.0)


def test_multi_inference(client: Client) -> None:
    request = multi(("rich", "classify", CLASSIFY), ("rich", "regress", REGRESS))
    answer = client.prediction.MultiInference(request, timeout=SECONDS)
    first, second = answer.results
    assert first.classification_result.classifications[0].classes[0].score == 6.0
    assert second.regression_result.regressions[0].value == 6.0
    assert second.model_spec.version.value == 2
    assert second.model_spec.signature_name == "regress"


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            [("rich", "regress", REGRESS), ("affine", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("rich", "regress", REGRESS)] * 2,
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress",
        ),
        (
            [("rich", "nope", REGRESS)],
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: nope",
        ),
        ([("rich", "regress", "other")], "UNIMPLEMENTED", "Unsupported signature method_name: other"),
    ],
)
def test_multi_inference_refused(client: Client, tasks: Any, code: str, text: str) -> None:
    assert failure(lambda: client.prediction.MultiInference(multi(*tasks), timeout=SECONDS)) == (code, text)


def test_what_is_not_offered_is_unimplemented(target: Any) -> None:
    with grpc.insecure_channel(target.grpc) as channel:
        call = channel.unary_unary(
            "/tensorflow.serving.SessionService/SessionRun",
            request_serializer=session_service_pb2.SessionRunRequest.SerializeToString,
            response_deserializer=session_service_pb2.SessionRunResponse.FromString,
        )
        assert (
            failure(lambda: call(session_service_pb2.SessionRunRequest(), timeout=SECONDS))[0]
            == "UNIMPLEMENTED"
        )

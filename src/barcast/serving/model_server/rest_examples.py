"""The bodies of :classify and :regress as `tensorflow.serving.Input`, and their answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import input_pb2

from barcast.serving.model_server.rest_json import binary
from barcast.serving.model_server.status import invalid

_INT64 = 2**63


def _fill(feature: Any, name: str, value: Any) -> None:
    values = value if isinstance(value, list) else [value]
    kinds = {type(item) for item in values}
    if kinds <= {int} and all(-_INT64 <= item < _INT64 for item in values):
        feature.int64_list.value.extend(values)
    elif kinds <= {int, float}:
        try:
            feature.float_list.value.extend(values)
        except OverflowError as error:
            raise invalid(f"Feature: {name} has a number that no float can hold") from error
    elif kinds == {str}:
        feature.bytes_list.value.extend(item.encode() for item in values)
    elif kinds == {dict} and all(set(item) == {"b64"} for item in values):
        feature.bytes_list.value.extend(binary(item) for item in values)
    else:
        raise invalid(f"Feature: {name} has values of unexpected or mixed types")


def _example(given: Any) -> Any:
    if not isinstance(given, dict):
        raise invalid("Example must be JSON object")
    example = example_pb2.Example()
    for name, value in given.items():
        if value == []:
            example.features.feature[name].SetInParent()
            continue
        _fill(example.features.feature[name], name, value)
    return example


def read_input(document: dict[str, Any]) -> Any:
    """The examples of a body, with its context when it has one.

    Raises:
        StatusError: INVALID_ARGUMENT when `examples` is missing, no list, empty, or holds no objects.
    """
    examples = document.get("examples")
    if not isinstance(examples, list):
        raise invalid("Request object must contain 'examples' key with a list/array value")
    if not examples:
        raise invalid("'examples' list is empty")
    given = input_pb2.Input()
    target = given.example_list
    if "context" in document:
        given.example_list_with_context.context.CopyFrom(_example(document["context"]))
        target = given.example_list_with_context
    for example in examples:
        target.examples.append(_example(example))
    return given


def _number(value: float) -> float:
    # float32 on the wire: print the shortest decimal that reads back as the same float32.
    return float(str(np.float32(value)))


def classify_results(result: Any) -> dict[str, Any]:
    """`{"results": [[["label", score], ...], ...]}`."""
    return {
        "results": [
            [[entry.label, _number(entry.score)] for entry in classification.classes]
            for classification in result.classifications
        ]
    }


def regress_results(result: Any) -> dict[str, Any]:
    """`{"results": [value, ...]}`."""
    return {"results": [_number(entry.value) for entry in result.regressions]}

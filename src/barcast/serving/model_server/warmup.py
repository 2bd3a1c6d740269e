"""Replays `assets.extra/tf_serving_warmup_requests` through a version before it answers clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from barcast.serving.model_server import example_forms as forms
from barcast.serving.model_server.examples import serialized_examples
from barcast.serving.model_server.request_forms import DEFAULT_SIGNATURE, decode_inputs, select_outputs
from barcast.serving.model_server.servable import Servable
from barcast.serving.model_server.status import Code, StatusError, invalid, precondition, unimplemented

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_MOST_RECORDS = 1000


def _signature(servable: Servable, spec: Any) -> tuple[str, Any]:
    key = spec.signature_name or DEFAULT_SIGNATURE
    if key not in servable.signatures:
        raise precondition(f'Serving signature key "{key}" not found.')
    return key, servable.signatures[key]


def _replay_examples(servable: Servable, spec: Any, given: Any, method: str) -> None:
    key, signature = _signature(servable, spec)
    check = forms.check_classify if method == forms.CLASSIFY_METHOD else forms.check_regress
    servable.run(key, {forms.INPUTS: serialized_examples(given)}, check(signature))


def _replay_one(servable: Servable, record: Any) -> None:
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        request = record.predict_log.request
        key, signature = _signature(servable, request.model_spec)
        servable.run(
            key, decode_inputs(signature, request.inputs), select_outputs(signature, request.output_filter)
        )
    elif kind == "classify_log":
        request = record.classify_log.request
        _replay_examples(servable, request.model_spec, request.input, forms.CLASSIFY_METHOD)
    elif kind == "regress_log":
        request = record.regress_log.request
        _replay_examples(servable, request.model_spec, request.input, forms.REGRESS_METHOD)
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        for task in request.tasks:
            _replay_examples(servable, task.model_spec, request.input, task.method_name)
    else:
        raise unimplemented(f"Unsupported log_type for warmup: {kind}")


def replay(servable: Servable, iterations: int) -> int:
    """Run every warm-up request of a version.

    Args:
        servable: loaded, not yet answering.
        iterations: times each request is run.

    Returns:
        The number of records; 0 without the file.

    Raises:
        StatusError: too many or unreadable records, or a request the version refuses; the load has then failed.
        tensorflow.errors.OpError: the same, from the runtime.
    """
    file = servable.path / WARMUP_FILE
    if not file.is_file():
        return 0
    records = 0
    try:
        for raw in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            records += 1
            if records > _MOST_RECORDS:
                raise invalid(f"Number of warmup records exceeds the maximum ({_MOST_RECORDS}) at {file}")
            try:
                record = prediction_log_pb2.PredictionLog.FromString(raw)
            except DecodeError as error:
                raise invalid(f"Failed to parse warmup record: {error} from {file}") from error
            for _ in range(iterations):
                _replay_one(servable, record)
    except tf.errors.DataLossError as error:
        raise StatusError(
            Code.DATA_LOSS, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error
    return records

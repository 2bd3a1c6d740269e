"""Predict: request checks in TensorFlow Serving's order, the run, the response."""

from __future__ import annotations

from typing import Any

from barcast.serving.model_server.core import Core
from barcast.serving.model_server.request_forms import (
    DEFAULT_SIGNATURE,
    decode_inputs,
    select_outputs,
    spec_bytes,
)
from barcast.serving.model_server.status import invalid, precondition
from barcast.serving.model_server.wire import predict_response

PREDICT_METHOD = "tensorflow/serving/predict"


async def predict(core: Core, request: Any, until: float | None) -> bytes:
    """Answer a PredictRequest with a serialized PredictResponse.

    Raises:
        StatusError: an unknown model, version, label or signature; inputs that do not fit; what the model said.
    """
    with core.servable(request) as servable:
        key = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = servable.signatures.get(key)
        if signature is None:
            raise precondition(f'Serving signature key "{key}" not found.')
        if core.options.enable_signature_method_name_check and signature.method_name != PREDICT_METHOD:
            raise invalid(
                f"Expected prediction signature method_name to be {PREDICT_METHOD}. Was: {signature.method_name}"
            )
        inputs = decode_inputs(signature, request.inputs)
        outputs = servable.outputs.get(key) if not request.output_filter else None
        outputs = outputs or select_outputs(signature, request.output_filter)
        found = await core.run(servable, key, inputs, outputs, api="Predict", until=until)
        return predict_response(
            spec_bytes(servable.name, servable.version, key),
            ((alias, found[alias]) for alias in outputs),
            as_content=core.options.enable_serialization_as_tensor_content,
        )

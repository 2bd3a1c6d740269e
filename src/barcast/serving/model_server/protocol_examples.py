"""Classify, Regress and MultiInference: signatures that take serialized tf.Examples."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from barcast.serving.model_server import example_forms as forms
from barcast.serving.model_server.core import Core
from barcast.serving.model_server.examples import serialized_examples
from barcast.serving.model_server.request_forms import DEFAULT_SIGNATURE, fill_spec
from barcast.serving.model_server.servable import Servable
from barcast.serving.model_server.status import invalid, unimplemented

_CHECKS = {
    forms.CLASSIFY_METHOD: (forms.check_classify, forms.classification_result),
    forms.REGRESS_METHOD: (forms.check_regress, forms.regression_result),
}


def _signature(core: Core, servable: Servable, key: str, method: str) -> Any:
    signature = servable.signatures.get(key)
    if signature is None:
        raise invalid(f"No signature was found with the name: {key}")
    if core.options.enable_signature_method_name_check and signature.method_name != method:
        raise invalid(f"Expected signature method_name to be {method}. Was: {signature.method_name}")
    return signature


async def _answer(
    core: Core, servable: Servable, key: str, given: Any, method: str, api: str, until: float | None
) -> Any:
    check, result = _CHECKS[method]
    outputs = check(_signature(core, servable, key, method))
    examples = serialized_examples(given)
    found = await core.run(servable, key, {forms.INPUTS: examples}, outputs, api=api, until=until)
    return result(found, len(examples))


async def classify(core: Core, request: Any, until: float | None) -> Any:
    """Answer a ClassificationRequest."""
    with core.servable(request) as servable:
        key = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = classification_pb2.ClassificationResponse()
        result = await _answer(core, servable, key, request.input, forms.CLASSIFY_METHOD, "Classify", until)
        response.result.CopyFrom(result)
        fill_spec(response.model_spec, servable, key)
        return response


async def regress(core: Core, request: Any, until: float | None) -> Any:
    """Answer a RegressionRequest."""
    with core.servable(request) as servable:
        key = request.model_spec.signature_name or DEFAULT_SIGNATURE
        response = regression_pb2.RegressionResponse()
        result = await _answer(core, servable, key, request.input, forms.REGRESS_METHOD, "Regress", until)
        response.result.CopyFrom(result)
        fill_spec(response.model_spec, servable, key)
        return response


async def multi_inference(core: Core, request: Any, until: float | None) -> Any:
    """Answer a MultiInferenceRequest: several signatures of one version on the same examples."""
    if not request.tasks or not request.tasks[0].model_spec.name:
        raise invalid("ModelSpec has no name specified.")
    with core.servable_of(request.tasks[0].model_spec) as servable:
        seen: set[str] = set()
        for task in request.tasks:
            if task.model_spec.name != servable.name:
                raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            key = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if key in seen:
                raise invalid(f"Duplicate evaluation of signature: {key}")
            seen.add(key)
            if key not in servable.signatures:
                raise invalid(f"Requested signature not found in model graph: {key}")
            if task.method_name not in _CHECKS:
                raise unimplemented(f"Unsupported signature method_name: {task.method_name}")
        response = inference_pb2.MultiInferenceResponse()
        for task in request.tasks:
            key = task.model_spec.signature_name or DEFAULT_SIGNATURE
            found = await _answer(
                core, servable, key, request.input, task.method_name, "MultiInference", until
            )
            entry = response.results.add()
            fill_spec(entry.model_spec, servable, key)
            if task.method_name == forms.CLASSIFY_METHOD:
                entry.classification_result.CopyFrom(found)
            else:
                entry.regression_result.CopyFrom(found)
        return response

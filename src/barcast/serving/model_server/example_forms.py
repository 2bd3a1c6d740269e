"""What Classify and Regress ask of a signature, and how they read its outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_serving.apis import classification_pb2, regression_pb2

from barcast.serving.model_server.servable import Arrays
from barcast.serving.model_server.status import invalid

INPUTS = "inputs"
OUTPUTS = "outputs"
CLASSES = "classes"
SCORES = "scores"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


def check_classify(signature: Any) -> list[str]:
    """The output aliases a classification needs.

    Raises:
        StatusError: INVALID_ARGUMENT when the signature has another form.
    """
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUTS not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature}")
    found = [alias for alias in (CLASSES, SCORES) if alias in signature.outputs]
    if not found:
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )
    return found


def check_regress(signature: Any) -> list[str]:
    """The output aliases a regression needs.

    Raises:
        StatusError: INVALID_ARGUMENT when the signature has another form.
    """
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {signature}")
    if OUTPUTS not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature}")
    return [OUTPUTS]


def _text(label: Any) -> str:
    return label.decode("utf-8", errors="replace") if isinstance(label, bytes) else str(label)


def _check_classes(name: str, array: NDArray[Any], kind: str, rows: int) -> None:
    fits = array.dtype.kind in ("OSU" if kind == "string" else "f") and (
        kind == "string" or array.dtype.itemsize == 4
    )
    if not fits:
        raise invalid(f"Expected {name} Tensor of {kind}. Got: {array.dtype}")
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_{name}] but got {list(array.shape)}")
    if array.shape[0] != rows:
        raise invalid(f"Expected {name} output batch size of {rows}. Got: {array.shape[0]}")


def classification_result(found: Arrays, rows: int) -> Any:
    """Labels and scores of `rows` examples; without scores they are 0, without labels they are empty.

    Raises:
        StatusError: INVALID_ARGUMENT when type, rank or batch size of an output is not a classification's.
    """
    classes, scores = found.get(CLASSES), found.get(SCORES)
    if classes is not None:
        _check_classes(CLASSES, classes, "string", rows)
    if scores is not None:
        _check_classes(SCORES, scores, "float", rows)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in class_index dimension. Got {classes.shape[1]} vs. "
            f"{scores.shape[1]}"
        )
    given = classes if classes is not None else scores
    assert given is not None
    result = classification_pb2.ClassificationResult()
    for row in range(rows):
        entry = result.classifications.add()
        for column in range(given.shape[1]):
            entry.classes.add(
                label="" if classes is None else _text(classes[row, column]),
                score=0.0 if scores is None else float(scores[row, column]),
            )
    return result


def regression_result(found: Arrays, rows: int) -> Any:
    """One value per example.

    Raises:
        StatusError: INVALID_ARGUMENT when type, rank or batch size of the output is not a regression's.
    """
    values = np.asarray(found[OUTPUTS])
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(values.shape)}"
        )
    if values.shape[0] != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {values.shape[0]}")
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT. Got: {values.dtype}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result

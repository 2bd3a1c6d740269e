"""`tensorflow.serving.Input` to serialized tf.Examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from barcast.serving.model_server.status import invalid


def serialized_examples(given: Any) -> NDArray[Any]:
    """The examples of an Input as an array (B,) of serialized tf.Examples.

    A context is joined to each example as bytes; when parsed, the example's own features win.

    Raises:
        StatusError: INVALID_ARGUMENT `Input is empty.`
    """
    kind = given.WhichOneof("kind")
    if kind == "example_list":
        found = [example.SerializeToString() for example in given.example_list.examples]
    elif kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        found = [
            context + example.SerializeToString() for example in given.example_list_with_context.examples
        ]
    else:
        found = []
    if not found:
        raise invalid("Input is empty.")
    array = np.empty(len(found), dtype=np.object_)
    array[:] = found
    return array

"""JSON bodies at their edges: what cannot be read is the client's error, and empty dimensions keep their shape."""

from __future__ import annotations

import numpy as np
import pytest

from barcast.serving.model_server import rest_json
from barcast.serving.model_server.status import Code, StatusError


@pytest.mark.parametrize(
    "body",
    [b'{"instances": [' + b"1" * 5000 + b"]}", b"\xff{", b"[" * 100_000],
    ids=["digits", "bytes", "deep"],
)
def test_a_document_that_cannot_be_read_is_an_invalid_argument(body: bytes) -> None:
    with pytest.raises(StatusError, match="JSON Parse error") as refused:
        rest_json.parse(body)
    assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 3), (2, 3, 0), (2, 3)])
@pytest.mark.parametrize("kind", ["float32", "float64", "object"])
def test_empty_dimensions_keep_their_shape(kind: str, shape: tuple[int, ...]) -> None:
    array = np.full(shape, b"a" if kind == "object" else 1.5, dtype=kind)
    expected = np.full(shape, "a" if kind == "object" else 1.5, dtype=object).tolist()
    assert rest_json.write_outputs({"y": array}, row=True) == {"predictions": expected}
    beside = rest_json.write_outputs({"y": array, "z": np.arange(shape[0])}, row=True)
    assert [row["y"] for row in beside["predictions"]] == expected

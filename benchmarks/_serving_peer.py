"""The peer of benchmarks/serving.py: LitServe serving the same SavedModel, in its own process.

Kept kind to the peer: windows travel as base64 of raw float32 (not as JSON numbers), batches up to 32, the signature
is XLA-compiled where TensorFlow can, as ours is.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve
import numpy as np

ROWS = (1, 8, 16, 32)


class SavedModelApi(litserve.LitAPI):
    """Decodes a window, runs the signature on the joined batch, gives probabilities and confidence back."""

    def setup(self, device: str) -> None:
        import tensorflow as tf

        self.tf = tf
        self.model = tf.saved_model.load(
            sys.argv[1]
        )  # the worker is another process: no class attribute reaches it
        signature = self.model.signatures["serving_default"]
        _, inputs = signature.structured_input_signature
        self.shape = tuple(inputs["window"].shape[1:])

        def call(window: Any, symbol_id: Any) -> Any:
            return signature(window=window, symbol_id=symbol_id)

        self.run = tf.function(call, jit_compile=True)
        try:
            for rows in ROWS:
                self.run(tf.zeros((rows, *self.shape)), tf.zeros((rows,), tf.int32))
        except tf.errors.OpError:
            self.run = signature
            self.run(window=tf.zeros((1, *self.shape)), symbol_id=tf.zeros((1,), tf.int32))

    def decode_request(self, request):  # LitServe reads the annotation: without one it hands the parsed JSON
        return np.frombuffer(base64.b64decode(request["window"]), np.float32).reshape(self.shape)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        rows = x.shape[0] if x.ndim == 3 else 1
        size = next((size for size in ROWS if size >= rows), rows)
        window = np.zeros((size, *self.shape), np.float32)
        window[:rows] = x
        found = self.run(window=self.tf.constant(window), symbol_id=self.tf.zeros((size,), self.tf.int32))
        both = np.concatenate([found["probabilities"].numpy(), found["confidence"].numpy()[:, None]], axis=1)[
            :rows
        ]
        return both if x.ndim == 3 else both[0]

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"answer": [float(value) for value in output]}


def main() -> None:
    api = SavedModelApi(max_batch_size=32, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=False)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()

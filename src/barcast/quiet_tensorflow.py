"""TensorFlow for commands that train in their own process."""

from __future__ import annotations

from barcast import logs


def load_tensorflow() -> None:
    """Import it now and quietly, so that a command says only what is its own."""
    with logs.hushed():
        import keras  # noqa: F401
        import tensorflow
    # Its warnings are of its own making (functions traced again for each new model) and help nobody who trains.
    tensorflow.get_logger().setLevel("ERROR")

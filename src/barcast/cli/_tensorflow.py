"""TensorFlow for commands that train in this process."""

from __future__ import annotations

from barcast import logs


def load_tensorflow() -> None:
    """Import it now and quietly, so that a command says only what is its own."""
    with logs.hushed():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
